//! `man`: manual pages from the same source as `--help`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_mangen::Man;

use crate::failure::{Failure, Outcome};

/// Print the manual page, or write the pages of all commands
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  edgelog man | man -l -
  edgelog man tail | man -l -
  edgelog man --out /usr/local/share/man/man1")]
pub(crate) struct Args {
    /// The command whose page is printed; several words where it stands behind another: topics create
    #[arg(conflicts_with = "out")]
    command: Vec<String>,
    /// Write edgelog.1 and a page for each command into this directory, which is created where it is missing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// `command` is the whole command line.
pub(crate) fn run(args: &Args, command: clap::Command) -> Outcome {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let whole = Pages::new(&command);
    let Some(out) = &args.out else {
        let mut found = command;
        for name in &args.command {
            let below = found.find_subcommand(name).cloned();
            found = below.ok_or_else(|| {
                let name = edgelog::escape::shown_name(name).to_string();
                Failure::new(format!("there is no command {name}")).hint("`edgelog help` lists them.")
            })?;
        }
        let mut page = Vec::new();
        whole.write(&found, &mut page)?;
        io::stdout().lock().write_all(&page)?;
        return Ok(ExitCode::SUCCESS);
    };
    whole
        .write_all(&command, out)
        .map_err(|error| Failure::from(error).context(format!("write {}", edgelog::escape::escaped_path(out))))?;
    Ok(ExitCode::SUCCESS)
}

/// What pages have in common.
struct Pages {
    /// The names of all pages.
    names: Vec<String>,
    /// The exit codes of commands that have none of their own.
    exit_codes: Vec<Section>,
}

impl Pages {
    fn new(command: &clap::Command) -> Pages {
        let mut names = Vec::new();
        add_names(command, &mut names);
        let text = after_help(command);
        Pages { names, exit_codes: sections(&text).into_iter().filter(Section::is_exit_codes).collect() }
    }

    fn write_all(&self, command: &clap::Command, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            self.write_all(below, dir)?;
        }
        let mut page = Vec::new();
        self.write(command, &mut page)?;
        fs::write(dir.join(format!("{}.1", name_of(command))), page)
    }

    /// Writes the page of `command`. Its after-help is made sections of its own: examples keep their lines.
    fn write(&self, command: &clap::Command, out: &mut Vec<u8>) -> io::Result<()> {
        let page = Man::new(command.clone()).manual("edgelog").source(concat!("edgelog ", env!("CARGO_PKG_VERSION")));
        page.render_title(out)?;
        // Neither stretched nor hyphenated: options and paths are to be copied.
        writeln!(out, ".ad l\n.nh")?;
        page.render_name_section(out)?;
        page.render_synopsis_section(out)?;
        page.render_description_section(out)?;
        page.render_options_section(out)?;
        if command.get_subcommands().any(|below| !below.is_hide_set()) {
            page.render_subcommands_section(out)?;
        }
        let text = after_help(command);
        let (examples, rest): (Vec<_>, Vec<_>) = sections(&text).into_iter().partition(Section::is_examples);
        let (exit_codes, notes): (Vec<_>, Vec<_>) = rest.into_iter().partition(Section::is_exit_codes);
        if !notes.is_empty() {
            writeln!(out, ".SH NOTES")?;
            notes.iter().try_for_each(|section| section.write(out))?;
        }
        writeln!(out, ".SH EXIT STATUS")?;
        let exit_codes = if exit_codes.is_empty() { &self.exit_codes } else { &exit_codes };
        exit_codes.iter().try_for_each(|section| section.write(out))?;
        writeln!(out, ".SH ENVIRONMENT")?;
        writeln!(out, ".TP\n.B EDGELOG_DIR\nThe data directory, where \\-\\-dir names none.")?;
        writeln!(out, ".TP\n.B NO_COLOR\nNo colours on a terminal.")?;
        if !examples.is_empty() {
            writeln!(out, ".SH EXAMPLES")?;
            examples.iter().try_for_each(|section| as_they_are(out, &section.lines))?;
        }
        writeln!(out, ".SH SEE ALSO")?;
        let others: Vec<String> = self.related(&name_of(command)).map(|name| format!(".BR {name} (1)")).collect();
        writeln!(out, "{}", others.join(" ,\n").replace('-', "\\-"))
    }

    /// The pages above and below the one of that name, and its siblings.
    fn related<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a String> {
        let parent = |name: &str| name.rsplit_once('-').map(|(parent, _)| parent.to_owned());
        let above = parent(name);
        self.names.iter().filter(move |other| {
            let is_near = *other != name && (parent(other) == above || Some(*other) == above.as_ref());
            is_near || parent(other).as_deref() == Some(name)
        })
    }
}

fn add_names(command: &clap::Command, names: &mut Vec<String>) {
    names.push(name_of(command));
    command.get_subcommands().filter(|below| !below.is_hide_set()).for_each(|below| add_names(below, names));
}

/// `edgelog-topics-create`.
fn name_of(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn after_help(command: &clap::Command) -> String {
    command.get_after_help().map(ToString::to_string).unwrap_or_default()
}

/// A paragraph, with the lines under a heading that ends in a colon.
struct Section {
    heading: Option<String>,
    lines: Vec<String>,
}

impl Section {
    fn is_examples(&self) -> bool {
        self.heading.as_deref() == Some("Examples")
    }

    fn is_exit_codes(&self) -> bool {
        let is_codes = |text: &str| text.starts_with("Exit codes");
        self.heading.as_deref().is_some_and(is_codes) || self.lines.first().is_some_and(|line| is_codes(line))
    }

    fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let heading = self.heading.as_ref().filter(|_| !self.is_exit_codes());
        if let Some(heading) = heading {
            writeln!(out, ".PP\n{}:", roff(heading))?;
        }
        let (set, text): (Vec<String>, Vec<String>) =
            self.lines.iter().cloned().partition(|line| line.starts_with(' '));
        as_they_are(out, &set)?;
        for line in text {
            writeln!(out, ".PP\n{}", roff(line.strip_prefix("Exit codes: ").unwrap_or(&line)))?;
        }
        Ok(())
    }
}

/// The paragraphs of a help text.
fn sections(text: &str) -> Vec<Section> {
    let paragraphs = text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty());
    let section = |paragraph: &str| {
        let mut lines: Vec<String> = paragraph.lines().map(str::to_owned).collect();
        let is_heading = lines.len() > 1 && lines[0].ends_with(':') && lines[1].starts_with(' ');
        let heading = is_heading.then(|| lines.remove(0).trim_end_matches(':').to_owned());
        Section { heading, lines }
    };
    paragraphs.map(section).collect()
}

/// Lines that are neither filled nor stretched.
fn as_they_are(out: &mut Vec<u8>, lines: &[String]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, ".PP\n.nf\n.RS 4")?;
    for line in lines {
        writeln!(out, "{}", roff(line.trim_start()))?;
    }
    writeln!(out, ".RE\n.fi")
}

/// A line of text in which nothing is a command for the formatter.
fn roff(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
