//! `completions`: what a shell needs to complete edgelog's command line.

use std::io;
use std::process::ExitCode;

use clap_complete::Shell;

use crate::failure::Outcome;

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog completions bash > ~/.local/share/bash-completion/completions/edgelog
  edgelog completions zsh > ~/.zfunc/_edgelog
  edgelog completions fish > ~/.config/fish/completions/edgelog.fish")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// `command` is the whole command line.
pub(crate) fn run(args: &Args, mut command: clap::Command) -> Outcome {
    // Into memory first: the generator panics where its output cannot be written.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "edgelog", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script)?;
    Ok(ExitCode::SUCCESS)
}
