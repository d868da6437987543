//! `completions`: what a shell needs to complete edgelog's command line, and the names that it asks for meanwhile.

use std::io::{self, Write};
use std::process::ExitCode;

use clap_complete::Shell;
use edgelog::edgelog_core::config::{KEYS, Scope};

use crate::context::Context;
use crate::failure::Outcome;

/// Print a completion script for a shell
///
/// They also complete topics, of the data directory that the command line names, and keys of topics.
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
            tail|append|stat|top|export|import|fsck|repair|delete|alter|describe) what=topics ;;
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

/// In front of what ends clap's script for zsh: the same. What a line of that script completes is put in below.
const ZSH_NAMES: &str = r#"
_edgelog_names() {
    local what=$1 at
    shift
    local -a typed dir names
    typed=("${(@Q)${(z)BUFFER}}")
    at=${typed[(I)--dir]}
    (( at )) && dir=(--dir "${typed[at + 1]/#\~/$HOME}")
    names=(${(f)"$(command edgelog "${dir[@]}" complete-names $what 2>/dev/null)"})
    compadd "$@" -a names
}
_edgelog_topics() { _edgelog_names topics "$@" }
_edgelog_keys() { _edgelog_names keys "$@" }
_edgelog_settings() { _edgelog_names keys -S = -q "$@" }

"#;
const ZSH_END: &str = "if [ \"$funcstack[1]\" = \"_edgelog\" ]; then\n";

/// Behind clap's script for fish: the same.
const FISH_NAMES: &str = r#"
function __edgelog_names
    set -l typed (commandline -opc)
    set -l dir
    if set -l at (contains -i -- --dir $typed); and test $at -lt (count $typed)
        set dir --dir (string replace -r '^~' $HOME -- $typed[(math $at + 1)])
    end
    command $typed[1] $dir complete-names $argv[1] 2>/dev/null
end
complete -c edgelog -n "__fish_seen_subcommand_from tail stat top export fsck repair delete alter describe" \
    -f -a "(__edgelog_names topics)"
complete -c edgelog -n "__fish_seen_subcommand_from append import" -a "(__edgelog_names topics)"
complete -c edgelog -n "__fish_seen_subcommand_from topics; and __fish_seen_subcommand_from create alter" \
    -s c -l config -x -a "(__edgelog_names keys)="
complete -c edgelog -n "__fish_seen_subcommand_from topics; and __fish_seen_subcommand_from alter" \
    -l unset -x -a "(__edgelog_names keys)"
"#;

/// clap's script for zsh, with names where it has files: it knows nothing of topics.
fn with_names(script: &str) -> String {
    let named: Vec<String> = script
        .lines()
        .map(|line| {
            let is_topic = |what: &&str| line.trim_start_matches(['\'', '*', ':']).starts_with(*what);
            let action = if ["topic -- ", "topics -- ", "name -- The topic"].iter().any(is_topic) {
                "_edgelog_topics"
            } else if line.starts_with("'*-c+[Set ") || line.starts_with("'*--config=[Set ") {
                "_edgelog_settings"
            } else if line.starts_with("'*--unset=[Set ") {
                "_edgelog_keys"
            } else {
                "_default"
            };
            line.replace(":_default'", &format!(":{action}'"))
        })
        .collect();
    format!("{}\n", named.join("\n")).replace(ZSH_END, &format!("{ZSH_NAMES}{ZSH_END}"))
}

/// `command` is the whole command line.
pub(crate) fn run(args: &Args, mut command: clap::Command) -> Outcome {
    // Into memory first: the generator panics where its output cannot be written.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "edgelog", &mut script);
    match args.shell {
        Shell::Bash => script.extend_from_slice(BASH_NAMES.as_bytes()),
        Shell::Fish => script.extend_from_slice(FISH_NAMES.as_bytes()),
        Shell::Zsh => script = with_names(&String::from_utf8_lossy(&script)).into_bytes(),
        _ => {}
    }
    io::stdout().lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// A shell asks while a person types. On any error there are no names.
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
