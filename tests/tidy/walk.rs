//! The walk of one batch through the bridge, as a page has it: which call leads from which file into which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A line of the table on the page: number, file, call, and what it does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hop {
    number: usize,
    /// The file, by its name without `.rs`, that calls.
    from: String,
    /// The type, or the file, that the function is of.
    of: String,
    function: String,
}

/// The hops in `page` behind the line `heading`, up to the next heading.
pub(super) fn hops(page: &str, heading: &str) -> Vec<Hop> {
    let section = page.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with('#'));
    section.filter_map(hop).collect()
}

fn hop(line: &str) -> Option<Hop> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let number = cells.next()?.parse().ok()?;
    let from = cells.next()?.trim_matches('`').to_owned();
    let (of, function) = cells.next()?.trim_matches('`').split_once("::")?;
    Some(Hop { number, from, of: of.to_owned(), function: function.to_owned() })
}

/// What of the hops is not in these sources; and how often each file is entered, by its name without `.rs`.
pub(super) fn walked(hops: &[Hop], sources: &[(PathBuf, String)]) -> (Vec<String>, BTreeMap<String, usize>) {
    let (mut wrong, mut entered) = (Vec::new(), BTreeMap::new());
    for (n, Hop { number, from, of, function }) in hops.iter().enumerate() {
        if *number != n + 1 {
            wrong.push(format!("hop {number} is at the place of {}", n + 1));
        }
        // Behind a dot or a path, or, where it is imported, by its name alone; also with the types that it is of.
        let calls = |text: &str| {
            let one = |before| ["(", "::<"].iter().any(|behind| text.contains(&format!("{before}{function}{behind}")));
            one(".") || one("::") || text.contains(&format!("= {function}("))
        };
        let named = |path: &Path| path.file_stem().is_some_and(|stem| stem == from.as_str());
        let Some((_, text)) = sources.iter().find(|(path, _)| named(path)) else {
            wrong.push(format!("hop {number}: there is no file {from}.rs"));
            continue;
        };
        if !calls(text) {
            wrong.push(format!("hop {number}: {from}.rs does not call {function}"));
        }
        let is_of = |path: &Path, text: &str| {
            let is_file = path.file_stem().is_some_and(|stem| stem == of.as_str());
            let is_type = [" {", "<"].iter().any(|behind| text.contains(&format!("impl {of}{behind}")))
                || text.contains(&format!("> {of}<")) && text.contains("impl<");
            (is_file || is_type) && text.contains(&format!("fn {function}"))
        };
        match sources.iter().find(|(path, text)| is_of(path, text)) {
            Some((path, _)) => {
                let stem = path.file_stem().expect("a file").to_string_lossy().into_owned();
                *entered.entry(stem).or_default() += 1;
            }
            None => wrong.push(format!("hop {number}: there is no {of}::{function}")),
        }
    }
    (wrong, entered)
}
