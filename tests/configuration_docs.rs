//! Pages that repeat what the code says are held to it: every key in `docs/configuration.md`, the README's examples,
//! which are the crate's doc tests, and the recipes of `docs/cookbook.md`, which are an example that this runs.

use std::fs;
use std::path::Path;

use edgelog::edgelog_core::config::KEYS;

#[allow(dead_code)] // its `main`
#[path = "../examples/configuration_table.rs"]
mod configuration_table;

#[path = "../examples/cookbook.rs"]
mod cookbook;

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

/// Thirteen keys of the bridge stood on no page.
#[cfg(feature = "bridge")]
#[test]
fn every_key_of_the_bridge_is_documented() {
    let page = page("docs/configuration.md");
    for row in edgelog::bridge::BRIDGE_KEYS {
        assert!(page.contains(&format!("| `{}` |", row.key)), "docs/configuration.md does not have {}", row.key);
    }
}

#[test]
fn the_tables_are_as_the_example_prints_them() {
    let page = page("docs/configuration.md");
    for (heading, table) in configuration_table::tables() {
        assert!(
            page.contains(&format!("## {heading}\n")) && page.contains(&table),
            "docs/configuration.md is out of date: cargo run --example configuration_table --features bridge -- \
             --write docs/configuration.md\n{table}"
        );
    }
}

/// The blocks of Rust in `text` that begin with `fence`, without the lines that a doc test hides.
fn examples(text: &str, fence: &str) -> Vec<Vec<String>> {
    let lines = text.lines().map(|line| line.strip_prefix("//!").map_or(line, |l| l.strip_prefix(' ').unwrap_or(l)));
    let (mut blocks, mut begun): (Vec<Vec<String>>, Option<&str>) = (Vec::new(), None);
    for line in lines {
        match begun {
            None if line.starts_with("```") => {
                begun = Some(line);
                if line == fence {
                    blocks.push(Vec::new());
                }
            }
            Some(_) if line == "```" => begun = None,
            Some(fence_of_it) if fence_of_it == fence && line != "#" && !line.starts_with("# ") => {
                blocks.last_mut().expect("it has begun").push(line.to_owned());
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn the_readme_shows_the_examples_that_the_doc_tests_run() {
    let in_readme = examples(&page("README.md"), "```rust");
    let in_crate = examples(&page("src/lib.rs"), "```");
    assert!(in_readme.len() == 2 && in_readme.iter().all(|example| example.len() >= 20), "{in_readme:?}");
    assert_eq!(in_readme, in_crate);
}

#[test]
fn the_cookbook_shows_functions_of_its_example_and_they_do_what_they_say() {
    let source = page("examples/cookbook.rs");
    let recipes = examples(&page("docs/cookbook.md"), "```rust");
    assert!(recipes.len() >= 10, "only {} recipes were found", recipes.len());
    for recipe in recipes {
        let recipe = recipe.join("\n");
        assert!(
            source.contains(&recipe),
            "examples/cookbook.rs does not have this recipe of docs/cookbook.md:\n{recipe}"
        );
    }
    cookbook::main().expect("the example runs");
}
