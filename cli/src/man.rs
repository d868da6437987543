//! `man`: manual pages from the same source as `--help`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::failure::{Failure, Outcome};

/// Print the manual page, or write the pages of all commands
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog man | man -l -
  edgelog man --out /usr/local/share/man/man1")]
pub(crate) struct Args {
    /// Write edgelog.1 and a page for each command into this directory, which is created where it is missing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// `command` is the whole command line.
pub(crate) fn run(args: &Args, command: clap::Command) -> Outcome {
    let Some(out) = &args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        io::stdout().lock().write_all(&page)?;
        return Ok(ExitCode::SUCCESS);
    };
    write_pages(command, out)
        .map_err(|error| Failure::from(error).context(format!("write {}", edgelog::escape::escaped_path(out))))?;
    Ok(ExitCode::SUCCESS)
}

fn write_pages(command: clap::Command, out: &Path) -> io::Result<()> {
    fs::create_dir_all(out)?;
    clap_mangen::generate_to(command, out)
}
