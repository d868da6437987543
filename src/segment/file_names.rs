//! Names of the files in a partition directory, printed and parsed in this one place.
//!
//! Kafka's: twenty digits of the base offset, then `.log`, `.index` or `.timeindex`. Ours, which Kafka ignores by name:
//! `.part` (a copy being made; removed at open), `.cut` (bytes that recovery took out of the log and kept aside) and
//! `next.prepared` (room made ready for the next segment).

use edgelog_core::{LeaderEpoch, Offset, Position};

/// The room made ready for the next segment; it gets its real name at the roll.
pub(crate) const PREPARED: &str = "next.prepared";
/// Kafka's text file of epochs; derived from the checkpoint.
pub(crate) const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";
/// Kafka's text file with the topic's id; ours carries the log's identity.
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";
/// The topic's configuration, in partition 0's directory.
pub(crate) const TOPIC_CONFIG: &str = "topic.properties";
/// Ours: says which partition the directory is, and in partition 0's has the topic's configuration once more.
pub(crate) const OWN_FILE: &str = "edgelog.properties";
/// Ours: how far the named producers came.
pub(crate) const SEQUENCES: &str = "edgelog.sequences";

/// A base offset has so many in a name.
const DIGITS: usize = 20;

pub(crate) fn log_file(dir: &str, base_offset: Offset) -> String {
    in_dir(dir, base_offset, ".log")
}

/// A segment's name in its directory.
pub(crate) fn log_file_name(base_offset: Offset) -> String {
    named(String::new(), base_offset, ".log")
}

fn in_dir(dir: &str, base_offset: Offset, ending: &str) -> String {
    let mut path = String::with_capacity(dir.len() + 1 + DIGITS + ending.len());
    path.push_str(dir);
    path.push('/');
    named(path, base_offset, ending)
}

/// Adds twenty digits and `ending`. `format!` adds the zeros one at a time, which was a tenth of what an open and a
/// recovery of a small store cost.
fn named(mut name: String, base_offset: Offset, ending: &str) -> String {
    let mut digits = [b'0'; DIGITS];
    let mut rest = base_offset.0.unsigned_abs();
    for digit in digits.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    if base_offset < 0 {
        digits[0] = b'-';
    }
    name.extend(digits.map(char::from));
    name.push_str(ending);
    name
}

pub(crate) fn index_file(dir: &str, base_offset: Offset) -> String {
    in_dir(dir, base_offset, ".index")
}

fn time_index_file(dir: &str, base_offset: Offset) -> String {
    in_dir(dir, base_offset, ".timeindex")
}

/// Both index files of a segment: by offset, and by time.
pub(crate) fn index_files(dir: &str, base_offset: Offset) -> [String; 2] {
    [index_file(dir, base_offset), time_index_file(dir, base_offset)]
}

/// The copy of a segment's kept prefix while it is being made.
pub(crate) fn part_file(dir: &str, base_offset: Offset) -> String {
    in_dir(dir, base_offset, ".log.part")
}

/// Bytes cut from the segment `base_offset` at `position`, kept aside. The epoch keeps the names of two cuts
/// apart.
pub(crate) fn cut_file(dir: &str, base_offset: Offset, position: Position, epoch: LeaderEpoch) -> String {
    format!("{dir}/{base_offset:020}-{position}-{epoch}.cut")
}

/// The base offset in the name of a `.log` file, or `None` for any other name.
pub(crate) fn parse_log_file(name: &str) -> Option<Offset> {
    parse_digits(name.strip_suffix(".log")?)
}

/// The base offset in the name of an index file of either kind.
pub(crate) fn parse_index_file(name: &str) -> Option<Offset> {
    parse_digits(name.strip_suffix(".index").or_else(|| name.strip_suffix(".timeindex"))?)
}

/// The base offset in the name of a file that recovery put aside.
pub(crate) fn parse_cut_file(name: &str) -> Option<Offset> {
    parse_digits(name.strip_suffix(".cut")?.split('-').next()?)
}

/// Where in its segment stood what a file with this name keeps.
pub(crate) fn cut_file_position(name: &str) -> Option<Position> {
    name.strip_suffix(".cut")?.split('-').nth(1)?.parse().ok()
}

/// The epoch in the name of a file that recovery put aside: the higher, the later.
pub(crate) fn cut_file_epoch(name: &str) -> Option<LeaderEpoch> {
    name.strip_suffix(".cut")?.rsplit('-').next()?.parse().ok()
}

/// A segment that Kafka's log cleaner has written and not yet put in place.
pub(crate) fn swap_file(dir: &str, base_offset: Offset) -> String {
    format!("{dir}/{base_offset:020}.log.swap")
}

/// The base offset in the name of a segment that Kafka's log cleaner has written and not yet put in place.
pub(crate) fn parse_swap_file(name: &str) -> Option<Offset> {
    parse_log_file(name.strip_suffix(".swap")?)
}

/// The log's end in the name of a broker's producer snapshot.
pub(crate) fn parse_snapshot_file(name: &str) -> Option<Offset> {
    parse_digits(name.strip_suffix(".snapshot")?)
}

/// Which of `names` holds the segment at `base` where its copy is unfinished and no file has the segment's own name:
/// keeping a tail aside takes two renames, and a stop between them leaves the segment under its `.cut` name. Of several
/// it is the newest; an older one is the tail of an earlier recovery.
pub(crate) fn displaced_segment<'a>(names: impl Iterator<Item = &'a str>, base: Offset) -> Option<&'a str> {
    names.filter(|name| parse_cut_file(name) == Some(base)).max_by_key(|name| cut_file_epoch(name))
}

/// The base offset in the name of an unfinished copy.
pub(crate) fn parse_part_file(name: &str) -> Option<Offset> {
    parse_log_file(name.strip_suffix(".part")?)
}

/// Whether a file with this name in a partition directory belongs to the log: ours, and those that a broker has there.
pub(crate) fn is_of_log(name: &str) -> bool {
    const SUFFIXES: [&str; 5] = ["log", "index", "timeindex", "snapshot", "txnindex"];
    // A broker's, in the making or about to go; and ours in the making.
    let name = [".deleted", ".cleaned", ".swap", ".part"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let others = [PREPARED, LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA, TOPIC_CONFIG, OWN_FILE, SEQUENCES];
    let of_segment = |(base, suffix): (&str, &str)| parse_digits(base).is_some() && SUFFIXES.contains(&suffix);
    others.contains(&name)
        || parse_cut_file(name.strip_suffix(".salvaged").unwrap_or(name)).is_some()
        || name.split_once('.').is_some_and(of_segment)
}

fn parse_digits(digits: &str) -> Option<Offset> {
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_log_are_distinguished_from_others_in_its_directory() {
        for ours in [
            "00000000000000000042.log",
            "00000000000000000042.timeindex",
            "00000000000000000042.log.part",
            "00000000000000000042.snapshot",
            "00000000000000000042.index.deleted",
            "00000000000000000042-4096-3.cut",
            "00000000000000000042-4096-3.cut.salvaged",
            "next.prepared",
            "edgelog.properties",
            "edgelog.sequences.part",
            "topic.properties.part",
            "leader-epoch-checkpoint",
        ] {
            assert!(is_of_log(ours), "{ours}");
        }
        for other in ["notes.txt", "42.log", "00000000000000000042.log~", "00000000000000000042.csv", ".DS_Store", ""] {
            assert!(!is_of_log(other), "{other}");
        }
    }

    #[test]
    fn a_name_has_the_twenty_digits_that_the_standard_library_prints() {
        for offset in [0, 1, 9, 10, 42, i64::MAX - 1, i64::MAX, -1, -42, i64::MIN] {
            assert_eq!(index_file("t-0", Offset(offset)), format!("t-0/{offset:020}.index"));
        }
    }

    #[test]
    fn a_printed_name_parses_back_and_others_do_not() {
        assert_eq!(log_file("t-0", Offset(42)), "t-0/00000000000000000042.log");
        assert_eq!(parse_log_file("00000000000000000042.log"), Some(Offset(42)));
        assert_eq!(parse_index_file("00000000000000000042.timeindex"), Some(Offset(42)));
        for other in
            ["42.log", "0000000000000000004x.log", "99999999999999999999.log", "00000000000000000042.log.part", ""]
        {
            assert_eq!(parse_log_file(other), None, "{other}");
        }
    }
}
