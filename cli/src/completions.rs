//! `completions`: what a shell needs to complete edgelog's command line, and the names that it asks for meanwhile.

use std::io::{self, Write};
use std::process::ExitCode;

use clap_complete::Shell;
use edgelog::edgelog_core::config::{KEYS, Scope};

use crate::context::Context;
use crate::failure::Outcome;

/// Print a completion script for a shell
///
/// The one for bash also completes topics, of the data directory that the command line names, and keys of topics.
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

/// Print names for a completion script: one a line, and nothing where there are none
#[derive(clap::Args)]
pub(crate) struct NamesArgs {
    /// Which names
    #[arg(value_enum)]
    of: Names,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Names {
    /// Topics of the data directory
    Topics,
    /// Keys of a topic's configuration
    Keys,
}

/// Behind what clap writes: topics and keys, which the binary is asked for.
const BASH_NAMES: &str = r#"
_edgelog_names() {
    _edgelog "$@"
    local cur="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" what="" names word at dir=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        word="${COMP_WORDS[at]}"
        case "$word" in
            --dir) dir=(--dir "${COMP_WORDS[at+1]/#\~/$HOME}") ;;
            tail|append|stat|export|import|fsck|repair|delete|alter|describe) what=topics ;;
        esac
    done
    case "$before" in
        -c|--config|--unset) [[ " ${COMP_WORDS[*]} " == *" topics "* ]] && what=keys ;;
        -*) what="" ;;
    esac
    if [[ -n "$what" && "$cur" != -* ]]; then
        names="$("${COMP_WORDS[0]}" "${dir[@]}" complete-names "$what" 2>/dev/null)"
        COMPREPLY+=($(compgen -W "$names" -- "$cur"))
    fi
}
complete -F _edgelog_names -o bashdefault -o default edgelog
"#;

/// `command` is the whole command line.
pub(crate) fn run(args: &Args, mut command: clap::Command) -> Outcome {
    // Into memory first: the generator panics where its output cannot be written.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "edgelog", &mut script);
    if args.shell == Shell::Bash {
        script.extend_from_slice(BASH_NAMES.as_bytes());
    }
    io::stdout().lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// A shell asks while a person types: whatever is wrong, there are no names.
pub(crate) fn names(args: &NamesArgs, ctx: &Context) -> Outcome {
    let mut out = io::stdout().lock();
    match args.of {
        Names::Keys => {
            for row in KEYS.iter().filter(|row| row.scope == Scope::Topic) {
                writeln!(out, "{}", row.key)?;
            }
        }
        Names::Topics => {
            let topics = ctx.attach().ok().and_then(|store| store.topics().ok()).unwrap_or_default();
            for topic in topics {
                writeln!(out, "{}", topic.name)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
