//! House rules that no compiler checks: imports go downward, `unsafe` stays in its room, sources stay readable, users
//! read plain words.
//!
//! Each rule reads the sources as text. A rule that finds nothing to read fails: a moved folder must not switch it off.

mod fields;
mod imports;
mod walk;
mod words;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use fields::{OpenField, open_fields};
use imports::{Circle, Crate, Import};

const COLUMNS_MAX: usize = 120;
/// In the command line's sources, where long lines are sentences in quotes.
const COLUMNS_OF_TEXT_MAX: usize = 190;
/// Of a file in `src/`, tests included.
const LINES_MAX: usize = 900;

/// The floors of the root package, lowest first. A module may use those of its own row and of the rows before.
const FLOORS: &[&[&str]] = &[
    &["canary", "clock", "codec", "error", "escape", "events", "sync", "sorted", "testing", "zeros"],
    &["storage"],
    &["segment"],
    &["log"],
    &["store"],
    &["inspect"],
    &["kafka", "clients"],
    &["bridge"],
];

/// What a floor holds that knows nothing of the floors between it and the lowest one: a protocol knows no logs.
const ON_THE_GROUND: &[&str] = &["kafka"];

/// Folders that hold our sources, from the root of the workspace.
const SOURCE_DIRS: &[&str] = &[
    "src",
    "no_std_core",
    "cli",
    "tests",
    "benches",
    "examples",
    "fuzz",
    ".ci",
    "ffi",
    "testkit",
    "xtask",
    "bindings",
];

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

/// The sources below `dir` of one crate.
fn sources(dir: &str) -> (Crate, Vec<Import>) {
    let found = files(dir, &[".rs"]);
    assert!(!found.is_empty(), "{dir} holds no sources any more");
    let krate = Crate::read(Path::new(dir), &found);
    let imports = krate.imports();
    (krate, imports)
}

/// The module at the top of `src` that a file belongs to.
fn top_module(path: &Path) -> &str {
    let top = path.components().nth(1).expect("a file in src").as_os_str().to_str().expect("ASCII names");
    top.strip_suffix(".rs").unwrap_or(top)
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// What `lib.rs` defines is above all floors, and what it only exports belongs to the floor that defines it. Unit tests
/// may stand on any floor.
fn upward_imports(krate: &Crate, imports: &[Import]) -> Findings {
    let mut findings = Findings::default();
    for path in &krate.files {
        let module = top_module(path);
        if module != "lib" && floor_of(module).is_none() {
            findings.add(path, 1, &format!("`{module}` has no floor: give it one in FLOORS"));
        }
    }
    for Import { from, line, to, path, .. } in imports.iter().filter(|import| !import.in_test) {
        let (from, to) = (&krate.files[*from], &krate.files[*to]);
        let (Some(floor), Some(below)) = (floor_of(top_module(from)), floor_of(top_module(to))) else {
            if top_module(to) == "lib" {
                findings.add(from, *line, &format!("`{path}` is defined by {}, above all floors", to.display()));
            }
            continue;
        };
        if below > floor {
            findings.add(from, *line, &format!("`{path}` is defined by {}, a floor above", to.display()));
        }
        let room = top_module(from);
        if ON_THE_GROUND.contains(&room) && below > 0 && room != top_module(to) {
            findings.add(from, *line, &format!("`{path}` is of {}, which `{room}` knows nothing of", to.display()));
        }
    }
    findings
}

#[test]
fn imports_go_downward() {
    let (krate, imports) = sources("src");
    assert!(imports.len() > 100, "only {} imports were found in src", imports.len());
    upward_imports(&krate, &imports)
        .none("Imports go downward only; pass a value, not a type (CONTRIBUTING.md, floors).");
}

/// How a circle goes round: for each of its files, one import of another one.
fn way_round(circle: &Circle, krate: &Crate) -> String {
    let mut way = String::new();
    for Import { from, line, to, path, .. } in &circle.imports {
        let (from, to) = (krate.files[*from].display(), krate.files[*to].display());
        let _ = writeln!(way, "    {from}:{line}: `{path}` of {to}");
    }
    way
}

#[test]
fn no_files_import_each_other() {
    let mut found = Findings::default();
    for dir in ["src", "no_std_core/src", "ffi/src", "cli/src"] {
        let (krate, imports) = sources(dir);
        for circle in krate.circles(&imports) {
            found.add(Path::new(dir), 0, &format!("{:?}:\n{}", circle.files, way_round(&circle, &krate)));
        }
    }
    found.none("What two files need of each other belongs into a third, below both.");
}

/// Files that include a file of another place as a module, for what cannot be a package that both depend on: the
/// library's own tests are another build of it, and an example is a program.
const INCLUDERS: &[&str] = &[
    "ffi/tests/faults.rs",
    "ffi/tests/random_calls.rs",
    "fuzz/fuzz_targets/c_calls.rs",
    "src/testing.rs",
    "tests/configuration_docs.rs",
];

#[test]
fn what_tests_share_is_in_testkit() {
    let mut found: Vec<String> = rust_files()
        .into_iter()
        .filter(|(_, text)| code_of(text).contains("#[path"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    found.sort();
    assert_eq!(found, INCLUDERS);
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
    let scripts =
        ["tests", ".ci", "ffi", "bindings"].iter().flat_map(|dir| files(dir, &[".sh", ".py", ".java", "run"]));
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

/// Plain values of the bridge: structs that are only data, whose fields every file may read. All others keep theirs.
const PLAIN_VALUES: &[&str] = &[
    "BatchMark",
    "Began",
    "BridgeConfig",
    "CommittedOffset",
    "Creation",
    "DrainLimits",
    "InternalTopic",
    "LentLog",
    "LogProgress",
    "LogStart",
    "Loss",
    "OperatorDecision",
    "PendingCommit",
    "PlannedLog",
    "Producer",
    "ProducerBatch",
    "Refusal",
    "Refused",
    "Resolved",
    "StartFacts",
    "StartPolicy",
    "Target",
    "TargetRules",
    "TargetTopic",
    "TimeBounds",
    "TransactionPlan",
    "TransactionResult",
];

/// What breaks the rule on fields in these sources; and the plain values that were met.
fn shared_fields(sources: &[(PathBuf, String)]) -> (Findings, BTreeSet<String>) {
    let (mut findings, mut met) = (Findings::default(), BTreeSet::new());
    for (path, text) in sources {
        for OpenField { line, name, field } in open_fields(text) {
            if PLAIN_VALUES.contains(&name.as_str()) {
                met.insert(name);
            } else {
                findings.add(path, line, &format!("`{name}` lets other files touch `{field}`"));
            }
        }
    }
    (findings, met)
}

#[test]
fn no_file_of_the_bridge_touches_another_s_fields() {
    let (findings, met) = shared_fields(&files("src/bridge", &[".rs"]));
    findings.none("State has private fields, and methods named for what they do; a value that is only data is listed.");
    let unmet: Vec<_> = PLAIN_VALUES.iter().filter(|name| !met.contains(**name)).collect();
    assert!(unmet.is_empty(), "these are listed as plain values, and src/bridge has none of them: {unmet:?}");
}

/// A canary for each way to let a field be touched.
#[test]
fn a_planted_shared_field_is_found() {
    for (field, is_found) in [
        ("pub(super) n: u8", true),
        ("pub(crate) n: u8", true),
        ("pub(in crate::bridge) n: u8", true),
        ("n: u8", false),
        ("pub n: u8", false),
    ] {
        for (name, is_state) in [("State", true), ("Target", false)] {
            for text in [format!("struct {name} {{ {field} }}"), format!("mod inner {{ struct {name} {{ {field} }} }}")]
            {
                let (findings, _) = shared_fields(&[("src/bridge/a.rs".into(), text.clone())]);
                assert_eq!(!findings.0.is_empty(), is_found && is_state, "{text}");
            }
        }
    }
    let (findings, _) = shared_fields(&[("src/bridge/a.rs".into(), "struct State(u8, pub(super) u8);".to_owned())]);
    assert_eq!(findings.0, "  src/bridge/a.rs:1: `State` lets other files touch `1`\n");
}

/// A batch goes from the log to the commit in so many calls from one file to another.
const HOPS_MAX: usize = 30;
/// Where the page has that walk.
const WALK: (&str, &str) = ("docs/design.md", "### One batch, from the log to the commit");
/// What the walk comes back to, since Kafka's protocol has three requests to a commit. All others are entered once.
const ENTERED_AGAIN: &[&str] = &["cluster", "session"];

#[test]
fn the_walk_of_a_batch_is_short_and_is_what_the_page_says() {
    let page = fs::read_to_string(root().join(WALK.0)).expect("the page on the design");
    let hops = walk::hops(&page, WALK.1);
    assert!((20..=HOPS_MAX).contains(&hops.len()), "{} hops, at most {HOPS_MAX} are allowed", hops.len());
    let (wrong, entered) = walk::walked(&hops, &files("src", &[".rs"]));
    assert!(wrong.is_empty(), "{}: {wrong:#?}", WALK.0);
    let again: Vec<&str> = entered.iter().filter(|(_, times)| **times > 1).map(|(file, _)| file.as_str()).collect();
    assert_eq!(again, ENTERED_AGAIN, "{entered:?}");
}

#[test]
fn a_planted_hop_that_is_none_is_found() {
    let sources = [("src/a.rs".into(), "b::go(1)".to_owned()), ("src/b.rs".into(), "pub fn go(n: u8) {}".to_owned())];
    let found = |page: &str| walk::walked(&walk::hops(page, "# Walk"), &sources);
    let (wrong, entered) = found("# Walk\n| 1 | `a` | `b::go` | |\n# Other\n| 2 | `a` | `b::come` | |\n");
    assert_eq!((wrong, entered.get("b")), (Vec::new(), Some(&1)));
    for (row, words) in [
        ("| 2 | `a` | `b::go` | |", "at the place of 1"),
        ("| 1 | `c` | `b::go` | |", "no file c.rs"),
        ("| 1 | `b` | `a::stay` | |", "b.rs does not call stay"),
        ("| 1 | `a` | `c::go` | |", "there is no c::go"),
    ] {
        let (wrong, _) = found(&format!("# Walk\n{row}\n"));
        assert!(wrong.iter().any(|wrong| wrong.contains(words)), "{row}: {wrong:?}");
    }
}

/// The rules above read code with these two; here is what they must see.
#[test]
fn the_reader_separates_code_from_comments_and_strings() {
    let text = concat!(
        "let a = \"unsafe // no\"; // unsafe\n",
        "/* unsafe /* nested */ unsafe */ let b: &'static str = r#\"un\"safe\"#;\n",
        "let c = '\"'; let d = '\\''; let e = b'\\\\'; unsafe_code(); done",
    );
    let code = code_of(text);
    assert!(!words(&code).any(|(_, word)| word == "unsafe" || word == "safe"), "{code}");
    assert!(words(&code).any(|word| word == (2, "static")), "{code}");
    assert!(words(&code).any(|word| word == (3, "done")), "{code}");
}

/// A crate of files that are not there.
fn planted(files: &[(&str, &str)]) -> (Crate, Vec<Import>) {
    let sources: Vec<_> = files.iter().map(|(path, text)| (Path::new("src").join(path), (*text).to_owned())).collect();
    let krate = Crate::read(Path::new("src"), &sources);
    let imports = krate.imports();
    (krate, imports)
}

/// The files of the planted circles, as one line.
fn circles_of(files: &[(&str, &str)]) -> String {
    let (krate, imports) = planted(files);
    let names = |circle: Circle| {
        let names =
            circle.files.iter().map(|path| path.strip_prefix("src").expect("planted there").display().to_string());
        names.collect::<Vec<_>>().join(" ")
    };
    krate.circles(&imports).into_iter().map(names).collect::<Vec<_>>().join("; ")
}

/// A canary for every way to import: `log/a.rs` uses `log/b.rs` each time, which uses it.
#[test]
fn a_planted_circle_is_found_in_every_form_of_use() {
    let back = "use super::a::A;\npub struct B; pub fn f(_: A) {} pub mod inner { pub struct C; }\n\
                #[macro_export] macro_rules! m { () => {} }";
    for form in [
        "use super::b::B;",
        "use super::{b::B, other};",
        "use super::{other, b::{self, B as C}};",
        "use super::b; fn g() { b::f() }",
        "use super::b as renamed; fn g() { renamed::f() }",
        "use super::b::*;",
        "use super::b::inner::C;",
        "use crate::log::b::B;",
        "use crate::{storage::S, log::{b::B}};",
        "use crate::B;",
        "use crate::Renamed;",
        "use crate::log::B;",
        "pub use super::B;",
        "pub(crate) use crate::log::b::inner;",
        "use super::super::log::b::B;",
        "fn g() -> crate::log::b::B { todo() }",
        "fn g(b: super::b::B) {}",
        "struct G { b: Vec<super::b::B> }",
        "fn g() { use super::b::f; f() }",
        "fn g() { super::b::f() }",
        "fn g() { println!(\"{}\", super::b::f()) }",
        "macro_rules! g { () => { $crate::log::b::f() } }",
        "impl From<super::b::B> for A { fn from(_: super::b::B) -> A { A } }",
        "mod inner { use super::super::b::B; }",
        "mod inner { fn g() { crate::log::b::f::<u8>() } }",
    ] {
        let files = [
            ("lib.rs", "mod log; mod storage; pub use log::B; pub use log::b::B as Renamed;"),
            ("storage.rs", "pub struct S;"),
            ("log/mod.rs", "mod a; mod b; mod other; pub use b::B;"),
            ("log/other.rs", ""),
            ("log/b.rs", back),
            ("log/a.rs", &format!("pub struct A;\n{form}")),
        ];
        assert_eq!(circles_of(&files), "log/a.rs log/b.rs", "{form}");
    }
}

#[test]
fn what_is_no_circle_is_not_called_one() {
    let b = ("log/b.rs", "use super::a::A; pub struct B;");
    for a in [
        "pub struct A;",
        "pub struct A; // super::b::B",
        "/// As [`super::b::B`].\npub struct A;",
        "pub struct A; const TEXT: &str = \"super::b::B\";",
        "pub struct A; #[cfg(test)] mod tests { use super::super::b::B; }",
        "pub struct A; #[cfg(all(test, not(loom)))] use super::b::B;",
        "pub struct A; use std::b::B; fn f(b: other::b::B) {}",
        "pub struct A; enum b { B } fn f() -> b { b::B }",
    ] {
        let files = [("lib.rs", "mod log;"), ("log/mod.rs", "mod a; mod b; pub use b::B;"), b, ("log/a.rs", a)];
        assert_eq!(circles_of(&files), "", "{a}");
    }
}

/// One that only declares and exports is none of a circle's files; one with code that its children use, and which uses
/// them, is.
#[test]
fn a_mod_file_counts_by_its_code() {
    let child = ("log/a.rs", "use super::Shared; pub struct A; impl Shared { fn g(&self) {} }");
    let with = |text| circles_of(&[("lib.rs", "mod log;"), ("log/mod.rs", text), child]);
    assert_eq!(with("mod a; pub use a::A; pub struct Shared;"), "");
    assert_eq!(with("mod a; pub use a::A; pub struct Shared { a: A }"), "log/a.rs log/mod.rs");
    assert_eq!(with("mod a; use a::A; pub struct Shared;"), "log/a.rs log/mod.rs");
    assert_eq!(with("mod a; pub struct Shared; fn f() { a::g() }"), "log/a.rs log/mod.rs");
    assert_eq!(with("mod a; pub use a::A; pub use std::sync::Arc as Shared;"), "");
    let exported = [
        ("lib.rs", "mod log;"),
        ("log/mod.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
        ("log/a.rs", "use super::B; pub struct A;"),
        ("log/b.rs", "pub struct B;"),
    ];
    assert_eq!(circles_of(&exported), "");
}

#[test]
fn a_circle_of_many_files_is_one() {
    let files = [
        ("main.rs", "mod a; mod b; mod c; mod d; fn main() { a::f() }"),
        ("a.rs", "use crate::b::f as g; pub fn f() {}"),
        ("b.rs", "pub fn f() { crate::c::f() }"),
        ("c.rs", "pub fn f() { super::a::f(); crate::d::f() }"),
        ("d.rs", "pub fn f() {}"),
    ];
    assert_eq!(circles_of(&files), "a.rs b.rs c.rs");
}

/// A canary for each way up: segment uses store, through each kind of path.
#[test]
fn a_planted_upward_import_is_found() {
    for form in [
        "use crate::store::Store;",
        "use crate::Store;",
        "use crate::{Segment, Store as S};",
        "fn f(_: &crate::Store) {}",
        "fn f(_: super::store::Store) {}",
        "use super::store::*;",
        "use crate::defined_by_lib;",
    ] {
        let (krate, imports) = planted(&[
            (
                "lib.rs",
                "mod segment; mod store; pub use store::Store; pub use segment::Segment; pub fn defined_by_lib() {}",
            ),
            ("segment.rs", &format!("pub struct Segment;\n{form}")),
            ("store/mod.rs", "use crate::Segment; use crate::segment; pub struct Store;"),
        ]);
        let findings = upward_imports(&krate, &imports).0;
        assert_eq!(findings.lines().count(), 1, "{form}: {findings}");
        assert!(findings.contains("segment.rs:2"), "{form}: {findings}");
    }
    // A protocol that knows the store below it.
    let (krate, imports) = planted(&[
        ("lib.rs", "mod error; mod kafka; mod store;"),
        ("error.rs", "pub struct Error;"),
        ("store.rs", "pub struct Store;"),
        ("kafka/mod.rs", "mod link; mod tls;"),
        ("kafka/link.rs", "use super::tls::Tls; use crate::error::Error; pub struct Link;"),
        ("kafka/tls.rs", "pub struct Tls;\nuse crate::store::Store;"),
    ]);
    let findings = upward_imports(&krate, &imports).0;
    assert!(findings.contains("tls.rs:2") && findings.lines().count() == 1, "{findings}");
    let (krate, imports) = planted(&[("lib.rs", "mod attic;"), ("attic.rs", "")]);
    assert!(upward_imports(&krate, &imports).0.contains("`attic` has no floor"));
}
