//! Which file of a crate imports which: every form of `use`, and every path in the code.
//!
//! An import leads to the file that *defines* the name, however many modules hand it on; and a module that exports a
//! name of its child, without a use of it in its own code, does not import it. So a `mod.rs` that only declares its
//! children and exports their names is no part of a circle; one whose code uses its children, which use its code, is.
//! Methods are not names: a type may be extended in several files, and each of them imports the type.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, UseTree, Visibility};

/// The modules that lead to a name, from the crate's root.
type ModulePath = Vec<String>;

/// A name that is handed on from module to module is followed so far.
const STEPS_MAX: usize = 16;

/// One file that imports a name from another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    pub(crate) from: usize,
    pub(crate) line: usize,
    pub(crate) to: usize,
    /// As it stands in the source.
    pub(crate) path: String,
    /// It stands in code that only tests are built with.
    pub(crate) in_test: bool,
}

/// A module: a file, or a `mod name { .. }` inside of one.
#[derive(Debug, Default)]
struct Module {
    file: usize,
    defined: BTreeSet<String>,
    /// What `use` brings in: the name here, and the paths that it stands for, in one build or another.
    used: BTreeMap<String, Vec<ModulePath>>,
    globs: Vec<ModulePath>,
    /// Every word of its code but for what stands in `use`.
    words: BTreeSet<String>,
}

/// A path in the source.
#[derive(Debug)]
struct Mention {
    module: ModulePath,
    line: usize,
    path: ModulePath,
    in_test: bool,
    /// It stands in a `use` that other modules see.
    is_export: bool,
}

/// The sources of one crate.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    pub(crate) files: Vec<PathBuf>,
    modules: BTreeMap<ModulePath, Module>,
    mentions: Vec<Mention>,
    /// Files that are declared for tests alone.
    for_tests: BTreeSet<ModulePath>,
}

impl Crate {
    /// Reads the files of the crate whose root module is the file `lib.rs` or `main.rs` in `dir`.
    pub(crate) fn read(dir: &Path, sources: &[(PathBuf, String)]) -> Crate {
        let mut krate = Crate::default();
        for (path, text) in sources {
            let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let inside = path.strip_prefix(dir).expect("a file of the crate");
            let file = krate.files.len();
            krate.files.push(path.clone());
            krate.items(&module_of(inside), file, &parsed.items, false);
        }
        krate
    }

    fn items(&mut self, path: &ModulePath, file: usize, items: &[Item], in_test: bool) {
        self.modules.entry(path.clone()).or_insert_with(|| Module { file, ..Module::default() });
        for item in items {
            let in_test = in_test || attributes(item).iter().any(is_for_tests);
            if let Item::Mod(inner) = item {
                let path = [path.as_slice(), &[inner.ident.to_string()]].concat();
                match &inner.content {
                    Some((_, items)) => self.items(&path, file, items, in_test),
                    None if in_test => drop(self.for_tests.insert(path)),
                    None => {}
                }
                continue;
            }
            let module = self.modules.get_mut(path).expect("it was entered above");
            if let Item::Use(item) = item {
                module.take(&item.tree, &mut Vec::new());
            } else if let Some(name) = name_of(item) {
                module.defined.insert(name);
            }
            let is_use = matches!(item, Item::Use(_));
            if !is_use && !in_test {
                words(item.to_token_stream(), &mut module.words);
            }
            let is_export = matches!(item, Item::Use(item) if !matches!(item.vis, Visibility::Inherited));
            let mut found = Vec::new();
            mentions(item.to_token_stream(), &[], &mut found);
            self.mentions.extend(found.into_iter().map(|(line, mentioned)| Mention {
                module: path.clone(),
                line,
                path: mentioned,
                in_test,
                is_export,
            }));
        }
    }

    /// Every import of one file from another.
    pub(crate) fn imports(&self) -> Vec<Import> {
        let mut imports = BTreeSet::new();
        for mention in &self.mentions {
            let module = &self.modules[&mention.module];
            let from = module.file;
            let is_child = |path: &ModulePath| path.len() > mention.module.len() && path.starts_with(&mention.module);
            if mention.is_export
                && mention.path.last().is_some_and(|name| !module.words.contains(name))
                && self.absolute(&mention.module, &mention.path, STEPS_MAX).iter().all(is_child)
            {
                continue;
            }
            let in_test = mention.in_test || self.for_tests.iter().any(|path| mention.module.starts_with(path));
            for to in self.files_of(&mention.module, &mention.path, STEPS_MAX) {
                if to != from {
                    let path = mention.path.join("::");
                    imports.insert(Import { from, line: mention.line, to, path, in_test });
                }
            }
        }
        imports.into_iter().collect()
    }

    /// The files that define what `path`, said in `module`, names; none where that is another crate's, or is a module
    /// with children, whose names count where they are used.
    fn files_of(&self, module: &ModulePath, path: &[String], steps_left: usize) -> BTreeSet<usize> {
        let mut files = BTreeSet::new();
        let Some(steps_left) = steps_left.checked_sub(1) else { return files };
        for path in self.absolute(module, path, steps_left) {
            let depth = (0..=path.len()).rev().find(|&depth| self.modules.contains_key(&path[..depth]));
            let depth = depth.expect("the crate has a root module");
            let (at, rest) = (path[..depth].to_vec(), &path[depth..]);
            let module = &self.modules[&at];
            let Some(name) = rest.first() else {
                if !self.modules.keys().any(|other| other.len() > depth && other.starts_with(&at)) {
                    files.insert(module.file);
                }
                continue;
            };
            if module.defined.contains(name) || name == "*" {
                files.insert(module.file);
            } else if let Some(targets) = module.used.get(name) {
                for target in targets {
                    files.extend(self.files_of(&at, &[target.as_slice(), &rest[1..]].concat(), steps_left));
                }
            } else {
                let globs = module.globs.iter().map(|glob| self.files_of_glob(&at, glob, rest, steps_left));
                let found: BTreeSet<usize> = globs.flatten().collect();
                // What no file is seen to define comes out of a macro of this one.
                if found.is_empty() {
                    files.insert(module.file)
                } else {
                    files.extend(found);
                    false
                };
            }
        }
        files
    }

    /// As [`files_of`](Crate::files_of), for what `use glob::*` may bring into the module `at`.
    fn files_of_glob(&self, at: &ModulePath, glob: &[String], rest: &[String], steps_left: usize) -> BTreeSet<usize> {
        let brings = |target: &ModulePath| {
            self.modules.get(target).is_some_and(|module| {
                module.defined.contains(&rest[0]) || module.used.contains_key(&rest[0]) || !module.globs.is_empty()
            })
        };
        let targets = self.absolute(at, glob, steps_left).into_iter().filter(brings);
        let absolute = targets.map(|target| [&["crate".to_owned()], target.as_slice(), rest].concat());
        absolute.flat_map(|path| self.files_of(at, &path, steps_left)).collect()
    }

    /// The paths from the crate's root; none for one that leads out of the crate, or to a name of this module.
    fn absolute(&self, module: &ModulePath, path: &[String], steps_left: usize) -> Vec<ModulePath> {
        let mut base = module.clone();
        let mut rest = path;
        match rest.first().map(String::as_str) {
            None => return Vec::new(),
            Some("crate") => (base, rest) = (Vec::new(), &rest[1..]),
            Some("self") => rest = &rest[1..],
            Some("super") => {
                while rest.first().is_some_and(|first| first == "super") {
                    if base.pop().is_none() {
                        return Vec::new();
                    }
                    rest = &rest[1..];
                }
            }
            Some(first) => {
                let child = [base.as_slice(), &[first.to_owned()]].concat();
                if !self.modules.contains_key(&child) {
                    // Another module that `use` has brought in; types are counted where they are imported.
                    let Some(steps_left) = steps_left.checked_sub(1) else { return Vec::new() };
                    let used = self.modules[module].used.get(first).into_iter().flatten();
                    let used = used.filter(|used| used[0] != first);
                    let modules = used.flat_map(|used| self.absolute(module, used, steps_left));
                    let modules = modules.filter(|used| self.modules.contains_key(used));
                    return modules.map(|used| [used.as_slice(), &rest[1..]].concat()).collect();
                }
            }
        }
        base.extend(rest.iter().cloned());
        vec![base]
    }

    /// The circles among `imports`: sets of files of which each reaches each other one, with the imports inside.
    pub(crate) fn circles(&self, imports: &[Import]) -> Vec<Circle> {
        let mut next: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.files.len()];
        for import in imports.iter().filter(|import| !import.in_test) {
            next[import.from].insert(import.to);
        }
        let reached: Vec<BTreeSet<usize>> = (0..self.files.len())
            .map(|start| {
                let (mut seen, mut left) = (BTreeSet::new(), vec![start]);
                while let Some(file) = left.pop() {
                    left.extend(next[file].iter().filter(|&&to| seen.insert(to)));
                }
                seen
            })
            .collect();
        let mut circles = Vec::new();
        let mut done: BTreeSet<usize> = BTreeSet::new();
        for file in 0..self.files.len() {
            if !reached[file].contains(&file) || done.contains(&file) {
                continue;
            }
            let members: BTreeSet<usize> =
                reached[file].iter().copied().filter(|&other| reached[other].contains(&file)).collect();
            done.extend(&members);
            let inside =
                |import: &&Import| !import.in_test && members.contains(&import.from) && members.contains(&import.to);
            let imports = imports.iter().filter(inside).cloned().collect();
            circles.push(Circle { files: members.iter().map(|&file| self.files[file].clone()).collect(), imports });
        }
        circles
    }
}

/// Files that import each other, directly or through others.
#[derive(Debug)]
pub(crate) struct Circle {
    pub(crate) files: BTreeSet<PathBuf>,
    pub(crate) imports: Vec<Import>,
}

impl Module {
    /// Notes the names that one `use` brings in.
    fn take(&mut self, tree: &UseTree, before: &mut ModulePath) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.take(&path.tree, before);
                before.pop();
            }
            UseTree::Name(name) if name.ident == "self" => {
                if let Some(last) = before.last() {
                    self.used.entry(last.clone()).or_default().push(before.clone());
                }
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                self.used.entry(name.clone()).or_default().push([before.as_slice(), &[name]].concat());
            }
            UseTree::Rename(rename) => {
                let name = rename.ident.to_string();
                let path = if name == "self" { before.clone() } else { [before.as_slice(), &[name]].concat() };
                self.used.entry(rename.rename.to_string()).or_default().push(path);
            }
            UseTree::Glob(_) => self.globs.push(before.clone()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.take(tree, before)),
        }
    }
}

/// `log/read.rs` is `log::read`, `log/mod.rs` is `log`, `lib.rs` the root.
fn module_of(inside: &Path) -> ModulePath {
    let mut path: ModulePath =
        inside.with_extension("").iter().map(|part| part.to_str().expect("ASCII names").to_owned()).collect();
    if path.last().is_some_and(|last| last == "mod")
        || matches!(path.as_slice(), [only] if only == "lib" || only == "main")
    {
        path.pop();
    }
    path
}

/// Whether the attribute is `cfg(test)`, or one that asks for tests and for more.
fn is_for_tests(attribute: &Attribute) -> bool {
    if !attribute.path().is_ident("cfg") {
        return false;
    }
    let Ok(condition) = attribute.parse_args::<TokenStream>() else { return false };
    let tokens: Vec<TokenTree> = condition.into_iter().collect();
    let is_test = |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word == "test");
    match tokens.as_slice() {
        [only] => is_test(only),
        [TokenTree::Ident(all), TokenTree::Group(conditions)] if all == "all" => {
            conditions.stream().into_iter().any(|token| is_test(&token))
        }
        _ => false,
    }
}

/// All paths of two and more parts in `tokens`, each with its line. What a `use` lists in braces is spelled in full,
/// and `*` is a part. Macros are tokens like all others.
fn mentions(tokens: TokenStream, before: &[String], found: &mut Vec<(usize, ModulePath)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(first) if !(at >= 2 && is_colons(&tokens, at - 2)) => {
                let line = first.span().start().line;
                let mut path = [before, &[first.to_string()]].concat();
                while is_colons(&tokens, at + 1) {
                    at += 3;
                    match tokens.get(at) {
                        Some(TokenTree::Ident(part)) => path.push(part.to_string()),
                        Some(TokenTree::Punct(star)) if star.as_char() == '*' => path.push("*".to_owned()),
                        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                            mentions(group.stream(), &path, found);
                            path.clear();
                        }
                        // Generic arguments.
                        _ => break,
                    }
                }
                // `self` in braces is the module before them.
                if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                    path.pop();
                }
                if path.len() > 1 {
                    found.push((line, path));
                }
                // `a as b` in braces: the new name is none to look for.
                if !before.is_empty() && matches!(tokens.get(at + 1), Some(TokenTree::Ident(word)) if word == "as") {
                    at += 2;
                }
            }
            TokenTree::Punct(star) if star.as_char() == '*' && !before.is_empty() => {
                found.push((star.span().start().line, [before, &["*".to_owned()]].concat()));
            }
            TokenTree::Group(group) => mentions(group.stream(), &[], found),
            _ => {}
        }
        at += 1;
    }
}

fn words(tokens: TokenStream, found: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) => drop(found.insert(word.to_string())),
            TokenTree::Group(group) => words(group.stream(), found),
            _ => {}
        }
    }
}

/// Whether `::` stands at `at`.
fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon = |at: usize| match tokens.get(at) {
        Some(TokenTree::Punct(punct)) if punct.as_char() == ':' => Some(punct.spacing()),
        _ => None,
    };
    is_colon(at) == Some(Spacing::Joint) && is_colon(at + 1).is_some()
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
