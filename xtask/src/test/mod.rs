//! `./test`: the project's tests, in stages, with everything that they need.
//!
//! A stage runs its steps one after another, and some of them at one time. After the first stages there are rows, each
//! of which runs its stages one after another; all rows run at one time, and their steps share the machine's
//! processors. A new test is a step of a stage below `stages`, and a line of `help.txt` where a
//! person has to know of it.

mod packages;
mod processors;
mod results;
mod runner;
mod screen;
mod stages;

use std::path::PathBuf;
use std::thread;

use crate::command::Result;
use runner::Runner;
use stages::{COMPUTING, FIRST, LONG, Named, QUICK, WAITING};

const HELP: &str = include_str!("help.txt");

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Help,
    List,
    Stages(Vec<String>),
}

/// Runs what `arguments` ask for. Whether nothing failed.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let asked = match parse(arguments)? {
        Asked::Help => {
            print!("{HELP}");
            return Ok(true);
        }
        Asked::List => {
            names().for_each(|name| println!("{name}"));
            return Ok(true);
        }
        Asked::Stages(asked) => asked,
    };
    // Where `./test` is. A copy without git can be tested, too.
    let root = std::env::current_dir().map_err(|error| format!("the current directory: {error}"))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let runner = Runner::new(&root, &target)?;
    let of = |all: &[Named]| -> Vec<Named> {
        all.iter().copied().filter(|(name, _)| asked.iter().any(|asked| asked == name)).collect()
    };
    let run = |stages: Vec<Named>| stages.into_iter().for_each(|(name, stage)| runner.stage(name, false, stage));
    run(of(&[QUICK]));
    run(of(&FIRST));
    thread::scope(|scope| {
        for row in COMPUTING {
            scope.spawn(|| run(of(row)));
        }
        for (name, stage) in of(&WAITING) {
            runner.stage(name, true, stage);
        }
    });
    run(of(&LONG));
    Ok(runner.summarise())
}

fn names() -> impl Iterator<Item = &'static str> {
    whole().chain(LONG.iter().map(|(name, _)| *name))
}

fn parse(arguments: &[String]) -> Result<Asked> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let some = match words[..] {
        [] => return Ok(Asked::Stages(whole().map(str::to_owned).collect())),
        ["-h" | "--help", ..] => return Ok(Asked::Help),
        ["--list"] => return Ok(Asked::List),
        ["--quick"] => return Ok(Asked::Stages(vec![QUICK.0.to_owned()])),
        ["--only", some] => some,
        [word] if word.starts_with("--only=") => &word["--only=".len()..],
        _ => return Err(format!("unknown options: {}; `./test --help` lists what there is", words.join(" "))),
    };
    let some: Vec<String> = some.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let known: Vec<&str> = names().chain([QUICK.0]).collect();
    match some.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("no stage {name}; there are: {}", known.join(" "))),
        None if some.is_empty() => Err(format!("--only needs a stage: {}", known.join(" "))),
        None => Ok(Asked::Stages(some)),
    }
}

fn whole() -> impl Iterator<Item = &'static str> {
    FIRST.iter().chain(COMPUTING.into_iter().flatten()).chain(&WAITING).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Asked> {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn stages_are_taken_by_name() {
        let two = Asked::Stages(vec!["kafka".to_owned(), "unit".to_owned()]);
        assert_eq!(parsed(&["--only", "kafka,unit"]).as_ref(), Ok(&two));
        assert_eq!(parsed(&["--only=kafka,unit"]).as_ref(), Ok(&two));
        assert!(parsed(&["--only", "kafak"]).unwrap_err().contains("no stage kafak; there are: lint unit"));
        assert!(parsed(&["--only", ""]).is_err());
        assert!(parsed(&["--fast"]).unwrap_err().contains("--fast"));
    }

    #[test]
    fn the_whole_has_no_long_stage() {
        let Ok(Asked::Stages(stages)) = parsed(&[]) else { panic!("no stages") };
        assert!(stages.iter().all(|name| LONG.iter().all(|(long, _)| name != long)), "{stages:?}");
        assert_eq!(stages.len(), FIRST.len() + COMPUTING.concat().len() + WAITING.len());
    }

    #[test]
    fn the_help_has_every_stage() {
        for name in names() {
            assert!(HELP.lines().any(|line| line.trim_start().split(' ').next() == Some(name)), "{name}");
        }
    }
}
