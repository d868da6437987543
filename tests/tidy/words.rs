//! Words that a person who reads pages, help, errors, comments or names should not meet: the house's own, for which
//! English or the field has a plain one. STYLE.md has the glossary.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Expr, Fields, Item, Lit, Meta};

use crate::{Findings, SOURCE_DIRS, files, root};

/// What is refused, and what there is instead.
const REFUSED: &[(&str, &str)] = &[
    ("told", "reported, printed, named"),
    ("tells", "reports, shows, says"),
    ("somebody", "another process, a person"),
    ("anybody", "anyone; or who it is"),
    ("nobody", "no process, no person"),
    ("whoever", "who it is"),
    ("whatever", "what it is; at any, no matter which"),
    ("anew", "again, over; rewrite, rebuild"),
    ("beside", "next to, in another process, in the data directory"),
    ("settle", "resolve"),
    ("settles", "resolves"),
    ("settled", "resolved"),
    ("lane", "partition sender"),
    ("lanes", "partition senders"),
    ("taken back", "truncated"),
    ("take back", "truncate"),
    ("takes back", "truncates"),
    ("took back", "truncated"),
];

/// What comments, tests and names do not say either, in all that is in `SOURCE_DIRS`.
const REFUSED_IN_SOURCES: &[(&str, &str)] = &[
    ("tell", "report, print, show, name"),
    ("telling", "reporting, printing"),
    ("settling", "resolving"),
    ("unsettled", "unresolved"),
    ("medium", "disk"),
    ("in the place of", "in place of, instead of"),
];

/// Files and folders whose comments and names still have such words. The list only shrinks: what has none is taken off.
const NOT_DONE: &[&str] = &[
    "src/inspect/check.rs",
    "src/inspect/export.rs",
    "src/inspect/report.rs",
    "src/inspect/segment_check.rs",
    "tests/engine/from_anywhere.rs",
    "tests/engine/judgement.rs",
    "tests/engine/out_of_order.rs",
    "tests/kafka",
    "tests/readable.rs",
    "tests/verdicts.rs",
];

/// Where such a word is the field's own, or is quoted.
const TERMS: &[(&str, &[&str])] = &[("src/codec/xxhash.rs", &["lane", "lanes", "nobody"])];

/// The texts among our sources, by the end of the name.
const TEXTS: &[&str] =
    &[".rs", ".py", ".sh", ".java", ".c", ".h", ".md", ".toml", ".service", "Makefile", "/run", "/walk", "/init"];

/// Pages whose readers are users.
const PAGES: &[&str] = &["README.md", "SECURITY.md", "CONTRIBUTING.md"];

/// The words of a text with their lines (counted from 1), in lower case. An identifier is one word.
fn identifiers(text: &str) -> impl Iterator<Item = (usize, String)> {
    let is_of_word = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.lines().enumerate().flat_map(move |(n, line)| {
        line.split(move |c| !is_of_word(c)).filter(|word| !word.is_empty()).map(move |word| (n + 1, word.to_owned()))
    })
}

/// The words of a source: those of a name stand apart, as `told` and `once` of `told_once` and `ToldOnce`.
fn parts_of_names(text: &str) -> Vec<(usize, String)> {
    let mut parts = Vec::new();
    for (line, name) in identifiers(text) {
        for name in name.split('_') {
            let starts_part = |at: usize| {
                let byte = |at: usize| name.as_bytes().get(at).copied().unwrap_or(b'A');
                byte(at).is_ascii_uppercase()
                    && (byte(at - 1).is_ascii_lowercase() || byte(at + 1).is_ascii_lowercase())
            };
            let mut from = 0;
            for at in (1..name.len()).filter(|&at| starts_part(at)).chain([name.len()]) {
                parts.push((line, name[from..at].to_ascii_lowercase()));
                from = at;
            }
        }
    }
    parts.retain(|(_, part)| !part.is_empty());
    parts
}

/// Those of `list` that are among `words`, each with its line and what there is instead.
fn among<'a>(words: &[(usize, String)], list: &[(&'a str, &'a str)]) -> Vec<(usize, &'a str, &'a str)> {
    let mut found = Vec::new();
    for at in 0..words.len() {
        for (refused, instead) in list {
            let mut rest = words[at..].iter().map(|(_, word)| word.as_str());
            if refused.split(' ').all(|word| rest.next() == Some(word)) {
                found.push((words[at].0, *refused, *instead));
            }
        }
    }
    found
}

/// The refused words in a text, each with its line (counted from 1) and what there is instead.
fn refused(text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let words: Vec<_> = identifiers(text).map(|(line, word)| (line, word.to_ascii_lowercase())).collect();
    among(&words, REFUSED)
}

/// The refused words in a source: code, comments and strings. To tell two things apart is English.
fn refused_in_source(text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let words = parts_of_names(text);
    let list: Vec<_> = [REFUSED, REFUSED_IN_SOURCES].concat();
    let is_plain = |line: usize, word: &str| {
        ["tell", "tells", "told"].contains(&word)
            && words.iter().any(|(other, apart)| apart == "apart" && (line..line + 2).contains(other))
    };
    among(&words, &list).into_iter().filter(|&(line, word, _)| !is_plain(line, word)).collect()
}

/// A page without what stands between backticks: code says what it says. Lines stay where they are.
fn prose(page: &str) -> String {
    let (mut fenced, mut text) = (false, String::new());
    for line in page.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            text.extend(line.split('`').step_by(2));
        }
        text.push('\n');
    }
    text
}

/// Every string of more than one word in a source, but for documentation and attributes, with its line.
fn strings(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    // Behind `#`, or `#!`, stands an attribute.
    let mut after_hash = false;
    for token in tokens {
        let is_hash = match &token {
            TokenTree::Punct(punct) => punct.as_char() == '#' || after_hash && punct.as_char() == '!',
            _ => false,
        };
        match token {
            // Attributes: documentation is read by programmers; what `#[error("...")]` and clap show is read by users.
            TokenTree::Group(group) if after_hash => {
                let shown = group
                    .stream()
                    .into_iter()
                    .next()
                    .is_some_and(|first| matches!(first.to_string().as_str(), "error" | "command" | "arg"));
                if shown {
                    strings(group.stream(), found);
                }
            }
            TokenTree::Group(group) => strings(group.stream(), found),
            TokenTree::Literal(literal) => {
                if let Ok(string) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                    if string.value().contains(' ') {
                        found.push((literal.span().start().line, string.value()));
                    }
                }
            }
            _ => {}
        }
        after_hash = is_hash;
    }
}

/// The documentation of a clap structure and of its fields, which is its help.
fn help(item: &Item) -> Vec<String> {
    let doc = |attributes: &[Attribute]| -> Vec<String> {
        let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(literal) => match &literal.lit {
                    Lit::Str(text) => Some(text.value()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        });
        lines.collect()
    };
    let is_clap = |attributes: &[Attribute]| {
        attributes.iter().any(|attribute| {
            let Meta::List(list) = &attribute.meta else { return false };
            let derived = list.tokens.to_string();
            list.path.is_ident("derive")
                && ["Args", "Parser", "Subcommand", "ValueEnum"].iter().any(|name| derived.contains(name))
        })
    };
    let of_fields = |fields: &Fields| fields.iter().flat_map(|field| doc(&field.attrs)).collect::<Vec<_>>();
    match item {
        Item::Struct(item) if is_clap(&item.attrs) => [doc(&item.attrs), of_fields(&item.fields)].concat(),
        Item::Enum(item) if is_clap(&item.attrs) => {
            let variants =
                item.variants.iter().flat_map(|variant| [doc(&variant.attrs), of_fields(&variant.fields)].concat());
            doc(&item.attrs).into_iter().chain(variants).collect()
        }
        _ => Vec::new(),
    }
}

/// A source without its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn look(path: &Path, text: &str, findings: &mut Findings) {
    let file = syn::parse_file(without_tests(text)).expect("sources parse");
    let mut said = Vec::new();
    strings(without_tests(text).parse().expect("sources are tokens"), &mut said);
    said.extend(file.items.iter().flat_map(help).map(|line| (0, line)));
    for (line, text) in said {
        for (_, word, instead) in refused(&text) {
            findings.add(path, line, &format!("`{word}` in {text:?}; say {instead}"));
        }
    }
}

#[test]
fn users_read_plain_words() {
    let mut findings = Findings::default();
    let docs = files("docs", &[".md"]).into_iter();
    let others = PAGES.iter().map(|page| {
        let text = fs::read_to_string(root().join(page)).expect("a page");
        (PathBuf::from(page), text)
    });
    for (path, text) in docs.chain(others) {
        for (line, word, instead) in refused(&prose(&text)) {
            findings.add(&path, line, &format!("`{word}`; say {instead}"));
        }
    }
    let mut sources = 0;
    for (path, text) in ["src", "no_std_core/src", "cli/src", "ffi/src"].iter().flat_map(|dir| files(dir, &[".rs"])) {
        let name = path.display().to_string();
        if !name.ends_with("tests.rs") && !name.contains("/tests/") {
            look(&path, &text, &mut findings);
            sources += 1;
        }
    }
    assert!(sources > 80, "only {sources} sources were read");
    findings.none("STYLE.md has a glossary of what these are called elsewhere.");
}

#[test]
fn comments_and_names_are_plain_words() {
    let (mut findings, mut sources) = (Findings::default(), 0);
    let mut done: BTreeSet<&str> = NOT_DONE.iter().copied().collect();
    for (path, text) in SOURCE_DIRS.iter().flat_map(|dir| files(dir, TEXTS)) {
        // Here they are listed.
        if path == Path::new("tests/tidy/words.rs") {
            continue;
        }
        sources += 1;
        let terms = TERMS.iter().find(|(of, _)| path == Path::new(of)).map_or(&[][..], |(_, terms)| terms);
        for (line, word, instead) in refused_in_source(&text).into_iter().filter(|(_, word, _)| !terms.contains(word)) {
            match NOT_DONE.iter().find(|room| path.starts_with(room)) {
                Some(room) => drop(done.remove(room)),
                None => findings.add(&path, line, &format!("`{word}`; say {instead}")),
            }
        }
    }
    findings.none("STYLE.md has a glossary of what these are called elsewhere.");
    assert!(sources > 400, "only {sources} sources were read");
    assert!(done.is_empty(), "these have no private words any more; take them off NOT_DONE: {done:?}");
}

/// A canary for each place in a source in which such a word can stand.
#[test]
fn a_planted_word_in_a_source_is_found() {
    for (source, word) in [
        ("// Nobody has it open.", "nobody"),
        ("/// Works beside a writer.", "beside"),
        ("fn f() {\n    // It was taken\n    // back.\n}", "taken back"),
        ("# What a script tells.", "tells"),
        ("/* Whoever\n * calls */", "whoever"),
        ("let was_told = true;", "told"),
        ("const TELL_EVERY: u8 = 1;", "tell"),
        ("struct LaneEnd;", "lane"),
        ("struct OpenLane;", "lane"),
        ("fn isSettled() {}", "settled"),
        ("name(\"beside\")", "beside"),
        ("// A copy in the place of a link.", "in the place of"),
    ] {
        let found: Vec<_> = refused_in_source(source).into_iter().map(|(_, word, _)| word).collect();
        assert_eq!(found, [word], "{source}");
    }
    for source in ["// To tell the two histories\n// apart.", "// besides, planes, mediums", "let plane = 1;"] {
        assert_eq!(refused_in_source(source), [], "{source}");
    }
}

/// A canary for each place in which such a word can stand.
#[test]
fn a_planted_word_is_found() {
    for source in [
        r#"fn f() { warn("nobody has it open") }"#,
        r#"fn f() -> String { format!("{x}: told once") }"#,
        r#"#[derive(thiserror::Error)] enum E { #[error("the file was written anew")] A }"#,
        r#"#[derive(clap::Args)] #[command(after_help = "It works beside a writer")] struct A;"#,
        "/// Works beside a writer\n#[derive(clap::Args)] struct A;",
        "#[derive(clap::Args)] struct A {\n    /// What it tells\n    a: u8 }",
        "#[derive(ValueEnum)] enum A {\n    /// Whoever\n    B }",
    ] {
        let mut findings = Findings::default();
        look(Path::new("planted.rs"), source, &mut findings);
        assert_eq!(findings.0.lines().count(), 1, "{source}: {}", findings.0);
    }
    for source in ["/// Told to programmers.\nfn f() {}", r#"fn f() { name("beside") }"#, "// Nobody.\nfn f() {}"] {
        let mut findings = Findings::default();
        look(Path::new("planted.rs"), source, &mut findings);
        assert_eq!(findings.0, "", "{source}");
    }
    assert_eq!(
        refused(&prose("It was\ntaken back.\n\n```text\ntold\n```\n`told` once")),
        [(2, "taken back", "truncated")]
    );
}
