//! Pages that repeat what the code says are held to it: every key in `docs/configuration.md`, and the README's
//! example, which is the crate's doc test.

use std::fs;
use std::path::Path;

use edgelog::core::config::{KEYS, Scope};

#[allow(dead_code)] // its `main`
#[path = "../examples/configuration_table.rs"]
mod configuration_table;

fn page(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_key_is_documented_with_its_default_and_its_sentence() {
    let page = page("docs/configuration.md");
    for row in KEYS {
        let line = page.lines().find(|line| line.starts_with(&format!("| `{}` |", row.key)));
        let line = line.unwrap_or_else(|| panic!("docs/configuration.md does not have {}", row.key));
        let default = format!("| `{}`", configuration_table::default(row));
        for part in [default.as_str(), row.doc, row.why] {
            assert!(line.contains(part), "{}: docs/configuration.md does not say {part:?}", row.key);
        }
    }
}

#[test]
fn the_tables_are_as_the_example_prints_them() {
    let page = page("docs/configuration.md");
    for scope in [Scope::Topic, Scope::Store] {
        let table = configuration_table::table(scope);
        assert!(
            page.contains(&table),
            "docs/configuration.md is out of date: cargo run --example configuration_table\n{table}"
        );
    }
}

/// The first block of Rust in `text`, without the lines that a doc test hides.
fn first_example(text: &str, fence: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.strip_prefix("//!").map_or(line, |l| l.strip_prefix(' ').unwrap_or(l)));
    let block = lines.skip_while(|line| *line != fence).skip(1).take_while(|line| *line != "```");
    block.filter(|line| *line != "#" && !line.starts_with("# ")).map(str::to_owned).collect()
}

#[test]
fn the_readme_shows_the_example_that_the_doc_test_runs() {
    let in_readme = first_example(&page("README.md"), "```rust");
    let in_crate = first_example(&page("src/lib.rs"), "```");
    assert!(in_readme.len() >= 20, "the README has no example");
    assert_eq!(in_readme, in_crate);
}
