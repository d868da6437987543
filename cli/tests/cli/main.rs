//! The real binary, from the outside: what a person or a script sees.

mod append_json;
mod append_tail;
#[cfg(feature = "bridge")]
mod bridge;
#[cfg(feature = "bridge")]
mod bridge_keys;
mod commands;
mod damage;
mod dlq;
mod escaped;
mod export;
mod groups;
mod import;
mod inspect;
mod lost_segments;
mod record;
mod support;
mod tail;
mod top;
mod verdicts;

use std::fmt::Write;

/// So many lines, each made of its number.
fn numbered(count: u32, line: impl Fn(u32) -> String) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "{}", line(n));
        text
    })
}
