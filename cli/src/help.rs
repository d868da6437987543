//! The text behind a command's options, as lines that are wrapped once, when they are shown.

/// A line this long, with the word that follows it, was full where its author wrapped it.
const FULL_LINE_CHARS: usize = 112;

/// The command with each paragraph of its help on one line: a terminal that is narrower wraps it, and not what was
/// wrapped before.
pub(crate) fn unwrapped(command: clap::Command) -> clap::Command {
    let text = command.get_after_help().map(|text| joined(&text.to_string()));
    let command = match text {
        Some(text) => command.after_help(text),
        None => command,
    };
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, unwrapped))
}

/// Joins lines that were one sentence. What is indented is an example, and stays as it is.
fn joined(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = "";
    for line in text.lines() {
        let first_word = line.split(' ').next().unwrap_or_default();
        let is_full = before.chars().count() + 1 + first_word.chars().count() > FULL_LINE_CHARS;
        let is_text = |line: &str| !line.is_empty() && !line.starts_with(' ');
        if !out.is_empty() {
            out.push(if is_full && is_text(before) && is_text(line) { ' ' } else { '\n' });
        }
        out.push_str(line);
        before = line;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_lines_are_joined() {
        let full = "x".repeat(110);
        let text = format!("Examples:\n  edgelog a\n\n{full}\nyes and\nmore\njson: a\n  {full}\n{full}");
        let expected = format!("Examples:\n  edgelog a\n\n{full} yes and\nmore\njson: a\n  {full}\n{full}");
        assert_eq!(joined(&text), expected);
    }
}
