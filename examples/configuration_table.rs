//! Prints the tables of `docs/configuration.md` from the tables of keys themselves; a test holds the page to them.
//!
//!     cargo run --example configuration_table --features bridge
//!     cargo run --example configuration_table --features bridge -- --write docs/configuration.md

use std::fmt::Write as _;

use edgelog::edgelog_core::config::{ConfigKey, KEYS, Scope, ValueType};

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [option, page] = &arguments[..] {
        assert_eq!(option, "--write", "the one option there is");
        return std::fs::write(page, with_tables(&std::fs::read_to_string(page)?));
    }
    for (heading, table) in tables() {
        println!("## {heading}\n\n{table}");
    }
    Ok(())
}

/// Every table that this build knows, under its heading.
pub(crate) fn tables() -> Vec<(&'static str, String)> {
    vec![
        ("Topic keys", table(Scope::Topic)),
        ("Store keys", table(Scope::Store)),
        #[cfg(feature = "bridge")]
        ("Bridge keys", bridge_table()),
    ]
}

/// `page` with the first table behind each of the headings replaced.
fn with_tables(page: &str) -> String {
    let mut page = page.to_owned();
    for (heading, table) in tables() {
        let heading = format!("## {heading}\n");
        let Some(from) = page.find(&heading).and_then(|at| Some(at + page[at..].find("\n|")? + 1)) else { continue };
        let len = page[from..].find("\n\n").map_or(page.len() - from, |len| len + 1);
        page.replace_range(from..from + len, &table);
    }
    page
}

/// The keys of the bridge as a Markdown table.
#[cfg(feature = "bridge")]
fn bridge_table() -> String {
    let mut out = String::from("| key | default | what it does |\n|---|---|---|\n");
    for row in edgelog::bridge::BRIDGE_KEYS {
        let default = if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) };
        let _ = writeln!(out, "| `{}` | {default} | {} |", row.key, row.doc);
    }
    out
}

/// The keys of one scope as a Markdown table.
fn table(scope: Scope) -> String {
    let mut out = String::from("| key | values | default | Kafka's default | what it does |\n|---|---|---|---|---|\n");
    for row in KEYS.iter().filter(|row| row.scope == scope) {
        let kafka = row.kafka_default.map_or_else(|| "no such key".to_owned(), |text| value(row, text));
        let why = if row.why.is_empty() { String::new() } else { format!(" Ours differs: {}.", row.why) };
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {kafka} | {}{why} |",
            row.key,
            values(row),
            value(row, default(row)),
            row.doc
        );
    }
    out
}

/// The default where pages are read: on a 64-bit machine.
pub(crate) fn default(row: &ConfigKey) -> &'static str {
    match row.key {
        "edgelog.map.bytes.max" => "1073741824",
        "edgelog.decompressed.bytes.max" => "134217728",
        _ => row.default,
    }
}

fn values(row: &ConfigKey) -> String {
    let unit = if row.unit.is_empty() { String::new() } else { format!(" {}", row.unit) };
    match row.value_type {
        ValueType::Number { min, max: i64::MAX } => format!("{min} and up,{unit}").replace(",,", ","),
        ValueType::Number { min, max } => format!("{min} to {max}{unit}"),
        ValueType::Bool => "`true`, `false`".to_owned(),
        ValueType::Word { words } => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        _ => String::new(),
    }
}

/// A value as it is set, and for people.
fn value(row: &ConfigKey, text: &str) -> String {
    let readable = match text.parse::<i64>() {
        Ok(i64::MAX) => "never".to_owned(),
        Ok(ms) if row.unit == "ms" && ms >= 1000 => duration(ms),
        Ok(bytes) if row.unit == "bytes" && bytes >= 1 << 20 => mebibytes(bytes),
        _ => return format!("`{text}`"),
    };
    let small = match row.key {
        "edgelog.map.bytes.max" => "; 64 MiB on 32-bit machines",
        "edgelog.decompressed.bytes.max" => "; 16 MiB on 32-bit machines",
        _ => "",
    };
    format!("`{text}` ({readable}{small})")
}

fn duration(ms: i64) -> String {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    match ms {
        ms if ms % DAY_MS == 0 => format!("{} days", ms / DAY_MS),
        ms if ms % 60_000 == 0 => format!("{} min", ms / 60_000),
        ms => format!("{} s", ms / 1000),
    }
}

fn mebibytes(bytes: i64) -> String {
    match (bytes >> 20, bytes % (1 << 20)) {
        (mebibytes, 0) => format!("{mebibytes} MiB"),
        (mebibytes, rest) => format!("{mebibytes} MiB + {rest}"),
    }
}
