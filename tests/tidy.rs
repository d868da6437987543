//! House rules that no compiler checks: imports go downward, `unsafe` stays in its room, sources stay readable.
//!
//! Each rule reads the sources as text. A rule that finds nothing to read fails: a moved folder must not switch it off.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 120;
/// In the command line's sources, where long lines are sentences in quotes.
const COLUMNS_OF_TEXT_MAX: usize = 190;
/// Of a file in `src/`, tests included.
const LINES_MAX: usize = 900;

/// The floors of the root package, lowest first. A module may use those of its own row and of the rows before.
const FLOORS: &[&[&str]] = &[
    &["canary", "clock", "codec", "error", "events", "sync", "zeros"],
    &["storage"],
    &["segment"],
    &["log"],
    &["store"],
    &["inspect"],
    &["producer", "consumer", "group", "dead_letter"],
    &["bridge"],
];

/// Folders that hold our sources, from the root of the workspace.
const SOURCE_DIRS: &[&str] = &["src", "no_std_core", "cli", "tests", "benches", "examples", "fuzz", ".ci", "ffi"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file under `dir` whose name ends in one of `endings`: its path, from the root like `dir`, and its text.
fn files(dir: &str, endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                // `data` holds bytes that others wrote.
                if !matches!(name, "target" | "data" | "corpus" | "artifacts") {
                    dirs.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let bytes = fs::read(&path).expect("a readable file");
                let text = String::from_utf8_lossy(&bytes).into_owned();
                found.push((path.strip_prefix(root()).expect("a file under the root").to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let found: Vec<_> = SOURCE_DIRS.iter().flat_map(|dir| files(dir, &[".rs"])).collect();
    assert!(found.iter().any(|(path, _)| path == Path::new("src/lib.rs")), "src/lib.rs is not where it was");
    found
}

/// Collects what breaks a rule, to show all of it at once.
#[derive(Default)]
struct Findings(String);

impl Findings {
    fn add(&mut self, path: &Path, line: usize, what: &str) {
        let _ = writeln!(self.0, "  {}:{line}: {what}", path.display());
    }

    fn none(self, rule: &str) {
        assert!(self.0.is_empty(), "{rule}\n{}", self.0);
    }
}

/// Drops the text from `from` to `end` but for its line breaks, and returns where to go on.
fn skip(text: &str, from: usize, end: usize, code: &mut String) -> usize {
    let end = end.min(text.len());
    code.extend(text.as_bytes()[from..end].iter().filter(|&&b| b == b'\n').map(|_| '\n'));
    end
}

/// The text without comments, and without what stands between quotes; line breaks stay, so lines keep their numbers.
/// Knows what our sources hold: line and nested block comments, strings, raw strings, characters, lifetimes.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        if rest.starts_with(b"//") {
            let length = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
            at = skip(text, at, at + length, &mut code);
        } else if rest.starts_with(b"/*") {
            let (mut depth, mut end) = (1, at + 2);
            while depth > 0 && end < bytes.len() {
                match &bytes[end..] {
                    [b'/', b'*', ..] => (depth, end) = (depth + 1, end + 2),
                    [b'*', b'/', ..] => (depth, end) = (depth - 1, end + 2),
                    _ => end += 1,
                }
            }
            at = skip(text, at, end, &mut code);
        } else if let Some(hashes) = raw_string_hashes(rest).filter(|_| !after_word) {
            let open = rest.iter().position(|&b| b == b'"').expect("a raw string has a quote") + 1;
            let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
            let body = &rest[open..];
            let length = body.windows(close.len()).position(|w| w == close).unwrap_or(body.len());
            at = skip(text, at, at + open + length + close.len(), &mut code);
        } else if rest[0] == b'"' {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            at = skip(text, at, end + 1, &mut code);
        } else if rest.starts_with(b"'\\") {
            // An escaped character: what is escaped is never the closing quote but in '\''.
            let length = rest[3..].iter().position(|&b| b == b'\'').map_or(rest.len(), |n| n + 4);
            at = skip(text, at, at + length, &mut code);
        } else if rest.len() > 2 && rest[0] == b'\'' && rest[2] == b'\'' {
            at += 3;
        } else {
            code.push(rest[0] as char);
            at += 1;
        }
    }
    code
}

/// The number of `#` of a raw string that starts here.
fn raw_string_hashes(rest: &[u8]) -> Option<usize> {
    let rest = rest.strip_prefix(b"b").unwrap_or(rest).strip_prefix(b"r")?;
    let hashes = rest.iter().take_while(|&&b| b == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

/// Every identifier of the code with the number of its line, from 1.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(n, line)| {
        line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|w| !w.is_empty())
            .map(move |w| (n + 1, w))
    })
}

/// The modules of the root package that the code names: `X` of each `crate::X` and of each `crate::{X, Y::Z}`.
fn crate_modules(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        let name_of = |path: &str| -> String {
            path.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (0, 0);
            for (n, c) in group.char_indices() {
                match c {
                    ',' | '}' if depth == 0 => {
                        found.push((line, name_of(&group[start..n])));
                        start = n + 1;
                        if c == '}' {
                            break;
                        }
                    }
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
            }
        } else {
            found.push((line, name_of(rest)));
        }
    }
    found.retain(|(_, name)| name.starts_with(|c: char| c.is_ascii_lowercase()));
    found
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

#[test]
fn imports_go_downward() {
    let mut findings = Findings::default();
    for (path, text) in files("src", &[".rs"]) {
        let module = path.components().nth(1).expect("a file in src").as_os_str().to_str().expect("ASCII names");
        let module = module.strip_suffix(".rs").unwrap_or(module);
        if module == "lib" {
            continue;
        }
        let Some(floor) = floor_of(module) else {
            findings.add(&path, 1, &format!("`{module}` has no floor: give it one in FLOORS"));
            continue;
        };
        for (line, used) in crate_modules(&code_of(&text)) {
            match floor_of(&used) {
                Some(below) if below <= floor => {}
                Some(_) => findings.add(&path, line, &format!("`{module}` uses `{used}`, a floor above it")),
                None => findings.add(&path, line, &format!("`{used}` has no floor: give it one in FLOORS")),
            }
        }
    }
    findings.none("Imports go downward only; pass a value, not a type (CONTRIBUTING.md, floors).");
}

#[test]
fn unsafe_stays_in_one_file() {
    let mut rooms = Vec::new();
    for (path, text) in ["src", "no_std_core", "cli"].iter().flat_map(|dir| files(dir, &[".rs"])) {
        // Test and bench programs may count allocations, which takes `unsafe impl GlobalAlloc`.
        let program = path.components().any(|c| matches!(c.as_os_str().to_str(), Some("tests" | "benches")));
        if !program && words(&code_of(&text)).any(|(_, word)| word == "unsafe") {
            rooms.push(path);
        }
    }
    let allowed = rooms.len() <= 1 && rooms.iter().all(|path| path.starts_with("src/storage"));
    assert!(allowed, "`unsafe` may be in one file, under src/storage; found it in {rooms:?}");
}

#[test]
fn sources_are_ascii_and_at_most_120_columns() {
    let mut findings = Findings::default();
    let scripts = ["tests", ".ci", "ffi"].iter().flat_map(|dir| files(dir, &[".sh", ".py", ".java", "run"]));
    for (path, text) in rust_files().into_iter().chain(scripts) {
        for (n, line) in text.lines().enumerate() {
            if let Some(c) = line.chars().find(|c| !c.is_ascii()) {
                findings.add(&path, n + 1, &format!("{c:?} is not ASCII; write it as an escape or in words"));
            }
            // What the command line says to people stands in one line of the source, as it stands in theirs.
            let says = path.starts_with("cli/src/");
            if line.chars().count() > if says { COLUMNS_OF_TEXT_MAX } else { COLUMNS_MAX } {
                findings.add(&path, n + 1, &format!("{} columns", line.chars().count()));
            }
        }
    }
    findings.none("Sources are ASCII and at most 120 columns wide.");
}

#[test]
fn nothing_unfinished_is_left() {
    let mut findings = Findings::default();
    for (path, text) in rust_files() {
        let code = code_of(&text);
        for banned in ["dbg!", "todo!", "unimplemented!"] {
            let word = banned.trim_end_matches('!');
            for (n, line) in code.lines().enumerate() {
                if line.contains(banned) && words(line).any(|(_, w)| w == word) {
                    findings.add(&path, n + 1, banned);
                }
            }
        }
    }
    findings.none("These are for the desk, not for the repository.");
}

#[test]
fn no_file_of_the_engine_is_too_long() {
    let mut findings = Findings::default();
    for (path, text) in files("src", &[".rs"]) {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            findings.add(&path, lines, &format!("{lines} lines; let a file be one noun, of at most {LINES_MAX}"));
        }
    }
    findings.none("A file that long is two files.");
}

/// The rules above read code with these two; here is what they must see.
#[test]
fn the_reader_tells_code_from_comments_and_strings() {
    let text = concat!(
        "let a = \"unsafe // no\"; // unsafe\n",
        "/* unsafe /* nested */ unsafe */ let b: &'static str = r#\"un\"safe\"#;\n",
        "let c = '\"'; let d = '\\''; let e = b'\\\\'; unsafe_code(); done",
    );
    let code = code_of(text);
    assert!(!words(&code).any(|(_, word)| word == "unsafe" || word == "safe"), "{code}");
    assert!(words(&code).any(|word| word == (2, "static")), "{code}");
    assert!(words(&code).any(|word| word == (3, "done")), "{code}");

    let uses = concat!(
        "use crate::log::Log;\n",
        "use crate::{error::{Error, Result}, storage, Store};\n",
        "fn f(_: $crate::x) { crate::sync::g() }",
    );
    let found = crate_modules(uses);
    let want = [(1, "log"), (2, "error"), (2, "storage"), (3, "sync")].map(|(n, s)| (n, s.to_owned()));
    assert_eq!(found, want);
}
