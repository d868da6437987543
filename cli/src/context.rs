//! What every command begins with: the data directory, opening it for reading or writing, and finding a topic by
//! name.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use edgelog::escape::{Escaped, Text, escaped, escaped_path, shown_name};
use edgelog::{Log, RecoveryReport, Store, StoreOptions, Topic, TopicPartition, topic_matches};

use crate::failure::{DAMAGE, Failure, damage, warn};
use crate::progress;

/// Options of every command.
#[derive(clap::Args)]
pub(crate) struct StoreArgs {
    /// The data directory [default: ./edgelog-data]
    #[arg(long, global = true, env = "EDGELOG_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The data directory that a command works on.
pub(crate) struct Context {
    dir: PathBuf,
    is_named: bool,
}

/// A topic as it was named on the command line: all of its partitions, or one.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) topic: Topic,
    pub(crate) partition: Option<u32>,
}

impl Target {
    pub(crate) fn partitions(&self) -> Vec<u32> {
        self.partition.map_or_else(|| self.topic.partition_ids.clone(), |partition| vec![partition])
    }

    /// The logs named, by partition.
    pub(crate) fn logs(&self, store: &Store) -> Result<Vec<Log>, Failure> {
        self.partitions().into_iter().map(|partition| Ok(store.log(&self.topic.name, partition)?)).collect()
    }
}

/// Logs that can be read, and whether any could not.
#[derive(Default)]
pub(crate) struct Readable {
    pub(crate) logs: Vec<Log>,
    pub(crate) has_lost: bool,
}

impl Readable {
    pub(crate) fn add(&mut self, store: &Store, topic: &str, partition: u32) {
        match store.log(topic, partition) {
            Ok(log) => self.logs.push(log),
            Err(error) => {
                self.has_lost = true;
                let text = match error {
                    edgelog::Error::UnknownTopicOrPartition { .. } => "its segment files are gone".to_owned(),
                    error => error.to_string(),
                };
                damage(format_args!("{topic}-{partition} cannot be read: {}", escaped(text)));
            }
        }
    }

    /// Notes a partition that is not there at all, although the checkpoint names it.
    pub(crate) fn miss(&mut self, name: &TopicPartition) {
        self.has_lost = true;
        damage(format_args!("{name} cannot be read: its directory is gone"));
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.has_lost { ExitCode::from(DAMAGE) } else { ExitCode::SUCCESS }
    }
}

impl Context {
    pub(crate) fn new(args: StoreArgs) -> Context {
        let is_named = args.dir.is_some();
        Context { dir: args.dir.unwrap_or_else(|| PathBuf::from("./edgelog-data")), is_named }
    }

    /// Whether the data directory was named. If not, it is by chance the one that is here.
    pub(crate) fn is_named(&self) -> bool {
        self.is_named
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The data directory's name for people.
    pub(crate) fn shown_dir(&self) -> Escaped<Text<'_>> {
        escaped_path(&self.dir)
    }

    /// Attaches read-only: works while another process writes the directory, and when none does.
    pub(crate) fn attach(&self) -> Result<Store, Failure> {
        self.attach_with(Store::options())
    }

    /// As [`attach`](Context::attach), with keys of the store.
    pub(crate) fn attach_with(&self, options: StoreOptions) -> Result<Store, Failure> {
        let dir = self.shown_dir();
        let beginning =
            "`edgelog record` or `edgelog append TOPIC` makes one; --dir (or EDGELOG_DIR) names another place.";
        match fs::read_dir(&self.dir) {
            Ok(mut entries) => {
                let is_ours = |name: &str| name == "edgelog.checkpoint" || is_log_dir(&self.dir, name);
                if !entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_ours))) {
                    return Err(Failure::new(format!("there is no store in {dir}")).hint(beginning));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::new(format!("there is no directory {dir}")).hint(beginning));
            }
            Err(error) => return Err(Failure::new(format!("cannot read {dir}: {error}"))),
        }
        Ok(options.attach(&self.dir)?)
    }

    /// Opens for writing, creating the directory where it is missing. What a crash left behind is printed on standard
    /// error.
    pub(crate) fn open(&self) -> Result<Store, Failure> {
        let store = self.open_with(Store::options())?;
        print_recovery(&store.recovery_report());
        Ok(store)
    }

    /// As [`open`](Context::open) for a caller that prints the recovery report itself.
    pub(crate) fn open_with(&self, options: StoreOptions) -> Result<Store, Failure> {
        let label = format!("opening {}", self.shown_dir());
        progress::while_doing(&label, || options.open(&self.dir)).map_err(|error| match error {
            edgelog::Error::DataDirLocked(source) => {
                let holder = writer_of(&self.dir).map(|writer| format!("process {writer}")).unwrap_or(source.to_string());
                Failure::new(format!("{} is in use: {holder} has it open for writing", self.shown_dir())).hint(
                    "One process writes a data directory; any number may read it meanwhile: `tail`, `stat` and `topics` work now.\n\
                     To write, stop that process first, or choose another directory with --dir.",
                )
            }
            error => Failure::from(error),
        })
    }

    /// Finds a topic by `name` or `name-partition`, where a topic with the whole name goes first.
    pub(crate) fn find(&self, store: &Store, name: &str) -> Result<Target, Failure> {
        let topics = store.topics()?;
        self.find_in(&topics, name, None)
    }

    /// As [`find`](Context::find), for reading: what cannot be read at all is reported, and the others are there.
    pub(crate) fn readable(&self, store: &Store, name: &str, partition: Option<u32>) -> Result<Readable, Failure> {
        let topics = store.topics()?;
        let split = name.parse::<TopicPartition>().ok();
        let is_topic = |topic: &str| topics.iter().any(|known| known.name == topic);
        let is_meant = |missing: &TopicPartition| {
            let is_whole = missing.topic == name && partition.is_none_or(|asked| asked == missing.partition);
            is_whole || (split.as_ref() == Some(missing) && !is_topic(name) && partition.is_none())
        };
        let missing: Vec<TopicPartition> = store.missing_partitions()?.into_iter().filter(is_meant).collect();
        let mut readable = Readable::default();
        match self.find_in(&topics, name, partition) {
            Ok(target) => target.partitions().into_iter().for_each(|id| readable.add(store, &target.topic.name, id)),
            Err(_) if !missing.is_empty() => {}
            Err(error) => return Err(error),
        }
        for name in &missing {
            readable.miss(name);
        }
        Ok(readable)
    }

    /// As [`readable`](Context::readable), of several names, some of which may be patterns. Each log is there once, in the
    /// order in which it was named first.
    pub(crate) fn all_readable(
        &self,
        store: &Store,
        names: &[String],
        partition: Option<u32>,
    ) -> Result<Readable, Failure> {
        let mut all = Readable::default();
        for name in self.expanded(store, names)? {
            let found = self.readable(store, &name, partition)?;
            all.has_lost |= found.has_lost;
            for log in found.logs {
                if all.logs.iter().all(|known| known.name() != log.name()) {
                    all.logs.push(log);
                }
            }
        }
        Ok(all)
    }

    /// The names, each once. A pattern is replaced with the names of the topics that match it.
    pub(crate) fn expanded(&self, store: &Store, names: &[String]) -> Result<Vec<String>, Failure> {
        let topics = store.topics()?;
        let missing = store.missing_partitions()?;
        let mut expanded: Vec<String> = Vec::new();
        for name in names {
            let known = topics.iter().map(|topic| topic.name.as_str());
            let known = known.chain(missing.iter().map(|missing| missing.topic.as_str()));
            let mut found: Vec<&str> = known.filter(|topic| topic_matches(name, topic)).collect();
            if !is_pattern(name) {
                found = vec![name];
            }
            if found.is_empty() {
                let text = format!("no topic in {} is named like {}", self.shown_dir(), shown_name(name));
                return Err(Failure::new(text).hint("`edgelog topics` lists them."));
            }
            for name in found {
                if !expanded.iter().any(|known| known == name) {
                    expanded.push(name.to_owned());
                }
            }
        }
        Ok(expanded)
    }

    /// As [`find`](Context::find), with a partition from an option of its own.
    pub(crate) fn find_in(&self, topics: &[Topic], name: &str, partition: Option<u32>) -> Result<Target, Failure> {
        let named = |name: &str| topics.iter().find(|topic| topic.name == name).cloned();
        let split = || {
            let (topic, number) = name.rsplit_once('-')?;
            Some((named(topic)?, number.parse::<u32>().ok()?))
        };
        let (topic, partition) = match (named(name), split()) {
            (Some(topic), _) => (topic, partition),
            (None, Some((_, number))) if partition.is_some_and(|asked| asked != number) => {
                return Err(Failure::new(format!(
                    "{} names a partition, and --partition another one",
                    shown_name(name)
                )));
            }
            (None, Some((topic, number))) => (topic, Some(number)),
            (None, None) => return Err(self.unknown_topic(topics, name)),
        };
        if let Some(partition) = partition.filter(|partition| !topic.partition_ids.contains(partition)) {
            let ids = &topic.partition_ids;
            let (first, last) = (ids.first().copied().unwrap_or(0), ids.last().copied().unwrap_or(0));
            let has = if ids.len() == 1 { first.to_string() } else { format!("{first} to {last}") };
            return Err(Failure::new(format!("topic {} has no partition {partition}: it has {has}", topic.name)));
        }
        Ok(Target { topic, partition })
    }

    /// The directory of the first partition of `topic`, and the file in it that Kafka's log cleaner left.
    fn only_swap(&self, topic: &str) -> Option<(String, String)> {
        let dir = format!("{topic}-0");
        let names = fs::read_dir(self.dir.join(&dir)).ok()?.flatten();
        let swaps = names.filter_map(|entry| entry.file_name().into_string().ok());
        Some((dir, swaps.filter(|name| name.ends_with(".log.swap")).min()?))
    }

    fn unknown_topic(&self, topics: &[Topic], name: &str) -> Failure {
        const NAMED_MAX: usize = 12;
        let names = || topics.iter().map(|topic| topic.name.as_str());
        let mut hint = String::new();
        let found_swap = self.only_swap(name);
        let nearest = edgelog::edgelog_core::config::nearest(name, names());
        let name = shown_name(name);
        if let Some((dir, swap)) = found_swap {
            let (dir, swap) = (shown_name(&dir).to_string(), shown_name(&swap).to_string());
            let segment = swap.trim_end_matches(".swap");
            let text = format!(
                "there is no topic {name} in {}: {dir} holds no segment, but {swap}, which Kafka's log cleaner left",
                self.shown_dir()
            );
            return Failure::new(text).hint(format!("Rename it to {segment} to have its records."));
        }
        if let Some(nearest) = nearest {
            let _ = write!(hint, "Did you mean {nearest}? ");
        }
        if topics.is_empty() {
            hint.push_str(
                "The store has no topics yet: `edgelog append TOPIC` or `edgelog topics create TOPIC` makes one.",
            );
        } else {
            let listed: Vec<&str> = names().take(NAMED_MAX).collect();
            let more = topics.len().saturating_sub(NAMED_MAX);
            let _ = write!(hint, "Topics here: {}", listed.join(", "));
            let _ = match more {
                0 => write!(hint, "."),
                more => write!(hint, " and {more} more (`edgelog topics`)."),
            };
        }
        Failure::new(format!("there is no topic {name} in {}", self.shown_dir())).hint(hint)
    }
}

/// Whether it names topics by * or ?, which no topic's name has.
pub(crate) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// What opening found, on standard error, where it found anything.
pub(crate) fn print_recovery(report: &RecoveryReport) {
    if !report.clean || report.lost_offsets() > 0 || report.has_notes() {
        warn(report);
    }
}

fn is_log_dir(dir: &Path, name: &str) -> bool {
    name.parse::<TopicPartition>().is_ok() && dir.join(name).is_dir()
}

/// The process that has the directory open for writing: number and name. From the kernel's list of locks, so that
/// looking disturbs no process.
pub(crate) fn writer_of(dir: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let inode_of = |path: &Path| Some(format!(":{}", fs::metadata(path).ok()?.ino()));
    // The lock on the directory stands where the file was removed.
    let inodes: Vec<String> = [inode_of(&dir.join(".lock")), inode_of(dir)].into_iter().flatten().collect();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
    let holder = locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words.len() > 5 && words[1] == "FLOCK" && words[3] == "WRITE";
        let is_it = is_it && inodes.iter().any(|inode| words[5].ends_with(inode));
        is_it.then(|| words[4].to_owned())
    })?;
    if holder.parse::<u32>().map_or(true, |number| number == 0) {
        // A process that has no number in this container.
        return Some("outside this container".to_owned());
    }
    let name = fs::read_to_string(format!("/proc/{holder}/comm")).unwrap_or_default();
    // A process chooses its own name.
    Some(if name.is_empty() { holder } else { format!("{holder} ({})", escaped(name.trim_end())) })
}
