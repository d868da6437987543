//! `edgelog`: record, append, read and look after logs from the command line.
//!
//! Each command is one file with its `Args` and a `run(args, &Context)`. What they share: [`context`] (the data
//! directory, finding topics, opening), [`failure`] (errors that say what to do next, exit codes), [`print`]
//! (tables, colours, numbers), [`screen`] (bytes of records on a terminal), [`interrupt`] (Ctrl-C), [`progress`] and
//! [`time`].

#![allow(clippy::cast_precision_loss)] // Rates and percentages are for people to read.
#![allow(clippy::struct_excessive_bools)] // The flags of a command are booleans.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use edgelog::escape::escaped_bytes;

mod append;
#[cfg(feature = "bridge")]
mod bridge;
mod channel;
mod completions;
mod context;
mod csv;
mod dlq;
mod dump;
mod export;
mod failure;
mod filter;
mod format;
mod fsck;
mod groups;
mod help;
mod import;
mod input;
mod inspected;
mod interrupt;
mod json_record;
mod live;
mod man;
mod print;
mod printer;
mod progress;
mod record;
mod repair;
mod screen;
mod setting;
mod stat;
mod tail;
mod telemetry;
mod terminal;
mod time;
mod top;
mod topics;

use context::{Context, StoreArgs};

/// Kafka's log on this device: durable when acknowledged, readable while it is written, Kafka's own bytes on disk.
#[derive(Parser)]
#[command(
    name = "edgelog",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = AFTER_HELP
)]
pub(crate) struct Cli {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Topics are named `name` (all partitions) or `name-partition`; where a topic has the full name, that one is meant.

Examples:
  edgelog record --for 30s               record this machine's telemetry
  edgelog tail cpu                       the last ten records, then what comes
  echo hello | edgelog append greetings  append lines
  edgelog topics                         what is there
  edgelog stat                           where each log stands
  edgelog groups                         where each group of consumers stands
  edgelog dlq                            what could not be processed
  edgelog fsck                           check every byte

Exit codes:
  0    done
  1    an error, printed on standard error
  2    damage was met: what is good was printed, what is lost is named on standard error
  130  interrupted (Ctrl-C)
`fsck` has its own: 0 sound, 1 damage that heals itself, 2 data lost. `bridge` has a further one: 3, a person has to decide.";

#[derive(Subcommand)]
enum Command {
    Record(record::Args),
    Append(append::Args),
    Tail(tail::Args),
    Topics(topics::Args),
    Stat(stat::Args),
    Groups(groups::Args),
    Dlq(dlq::Args),
    Top(top::Args),
    Dump(dump::Args),
    Fsck(fsck::Args),
    Repair(repair::Args),
    Export(export::Args),
    Import(import::Args),
    #[cfg(feature = "bridge")]
    Bridge(Box<bridge::Args>),
    Completions(completions::Args),
    #[command(hide = true)]
    CompleteNames(completions::NamesArgs),
    Man(man::Args),
}

/// All commands and options, with their help.
fn command_line() -> clap::Command {
    help::unwrapped(Cli::command())
}

/// Reads the command line. An error repeats arguments, and a script's may be names that others chose: it is the error of
/// the same arguments escaped.
fn parse() -> Result<Cli, clap::Error> {
    let matches = command_line().try_get_matches();
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| {
        let shown = std::env::args_os().map(|argument| {
            let shown = escaped_bytes(argument.as_encoded_bytes()).at_most(failure::LINE_CHARS_MAX);
            shown.to_string()
        });
        let same = command_line().try_get_matches_from(shown).err();
        same.unwrap_or_else(|| clap::Error::raw(error.kind(), format!("{}\n", failure::said(error.render()))))
    })
}

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error),
    };
    let ctx = Context::new(cli.store);
    let outcome = match cli.command {
        Command::Record(args) => record::run(&args, &ctx),
        Command::Append(args) => append::run(&args, &ctx),
        Command::Tail(args) => tail::run(&args, &ctx),
        Command::Topics(args) => topics::run(args, &ctx),
        Command::Stat(args) => stat::run(&args, &ctx),
        Command::Groups(args) => groups::run(&args, &ctx),
        Command::Dlq(args) => dlq::run(&args, &ctx),
        Command::Top(args) => top::run(&args, &ctx),
        Command::Dump(args) => dump::run(&args),
        Command::Fsck(args) => fsck::run(&args, &ctx),
        Command::Repair(args) => repair::run(&args, &ctx),
        Command::Export(args) => export::run(&args, &ctx),
        Command::Import(args) => import::run(&args, &ctx),
        #[cfg(feature = "bridge")]
        Command::Bridge(args) => bridge::run(&args, &ctx),
        Command::Completions(args) => completions::run(&args, command_line()),
        Command::CompleteNames(args) => completions::names(&args, &ctx),
        Command::Man(args) => man::run(&args, command_line()),
    };
    failure::exit(outcome)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
