//! What the searches have found, each named for what a user would have seen.

use edgelog::Durability::{Interval, Os, Sync};

use super::disk::{Fault, Image, Quirks};
use super::search::{guarded, run_schedule};
use super::workload::Op;

fn append(log: usize, records: u8, len: u16, durability: edgelog::Durability) -> Op {
    Op::Append { log, records, len, durability, beside: false }
}

/// Runs the schedule for a cut after each of the first `effects`, in each image.
fn at_every_effect(effects: u16, images: &[Image], ops: impl Fn(Op) -> Vec<Op>) {
    for after in 0..effects {
        for &image in images {
            if let Err(what) = guarded(|| run_schedule(&ops(Op::Cut { after, image }), Quirks::default())) {
                panic!("cut after {after} effects, {image:?}: {what}");
            }
        }
    }
}

fn all_images() -> Vec<Image> {
    Image::CHOSEN.into_iter().chain((0..10).map(Image::Random)).collect()
}

/// A process died while it created a topic, the next one found it in the page cache and acknowledged records in it; the
/// power went, and the topic was gone with them.
#[test]
fn a_topic_that_a_killed_process_created_outlives_the_power_cut_after_it() {
    let last = Op::Cut { after: 1000, image: Image::AllLost };
    at_every_effect(40, &[Image::Kill], |cut| {
        vec![cut, Op::Create { topic: 1 }, append(1, 1, 100, Sync), append(2, 1, 100, Sync), last.clone()]
    });
}

/// A topic came back from a cut with fewer partitions, or with the default retention.
#[test]
fn a_topic_is_created_with_all_of_its_partitions_and_settings_or_not_at_all() {
    at_every_effect(40, &all_images(), |cut| vec![Op::Create { topic: 0 }, cut, Op::Create { topic: 1 }]);
}

/// As above, where the creation had met an error and was being taken back.
#[test]
fn a_creation_that_failed_is_taken_back_whole() {
    for failing in 0..8 {
        at_every_effect(30, &[Image::Alternate, Image::NewestLost, Image::Random(3), Image::Random(4)], |cut| {
            let failing = Op::Fail { after: failing, fault: Fault::Flush, goes_on: false };
            vec![Op::Create { topic: 0 }, failing, cut, Op::Create { topic: 1 }]
        });
    }
}

/// Of a topic whose deletion was cut short, some partitions were left, or names without their files.
#[test]
fn a_topic_is_deleted_whole_or_not_at_all() {
    let records = || vec![Op::Create { topic: 1 }, append(1, 3, 700, Sync), append(2, 3, 700, Sync)];
    at_every_effect(30, &all_images(), |cut| [records(), vec![cut, Op::Delete { topic: 1 }]].concat());
    for second in 0..12 {
        let again = Op::Cut { after: second, image: Image::NewestLost };
        at_every_effect(12, &[Image::Kill], |cut| {
            [records(), vec![cut, Op::Delete { topic: 1 }, again.clone(), Op::FlushAll]].concat()
        });
    }
}

/// A report of lost offsets, all of which had been deleted.
#[test]
fn what_was_deleted_is_not_reported_as_lost() {
    let ops = [
        Op::Create { topic: 0 },
        append(0, 1, 1500, Sync),
        append(0, 1, 420, Os),
        append(0, 3, 700, Sync),
        append(0, 8, 300, Os),
        Op::Cut { after: 20, image: Image::Alternate },
        Op::DeleteRecords { log: 0, keep: 0 },
        append(0, 3, 700, Interval),
        Op::DeleteRecords { log: 0, keep: 30 },
    ];
    run_schedule(&ops, Quirks::default()).unwrap();
}

/// Looking up a time found nothing, because the index files of a history that was taken back had come back.
#[test]
fn an_index_from_before_a_truncation_is_not_believed() {
    at_every_effect(40, &all_images(), |cut| {
        vec![
            Op::Create { topic: 1 },
            append(1, 8, 20, Sync),
            append(1, 1, 420, Interval),
            Op::Reopen,
            Op::Truncate { log: 1, back: 60 },
            append(1, 1, 1500, Os),
            cut,
            Op::Reopen,
        ]
    });
}

/// The log began behind a hole, at a segment whose predecessor the cut had taken: readers at the log start were told
/// that they had come too late.
#[test]
fn a_log_does_not_begin_behind_what_a_cut_has_taken() {
    at_every_effect(30, &all_images(), |cut| {
        vec![
            Op::Create { topic: 0 },
            append(0, 8, 300, Interval),
            append(0, 1, 10, Sync),
            append(0, 3, 700, Os),
            Op::DeleteRecords { log: 0, keep: 3 },
            cut,
            append(0, 8, 300, Interval),
        ]
    });
    let ops = [
        Op::Create { topic: 0 },
        Op::Cut { after: 24, image: Image::Random(16_048_171_730_335) },
        append(0, 8, 300, Interval),
        append(0, 1, 10, Sync),
        append(0, 3, 700, Os),
        Op::DeleteRecords { log: 0, keep: 3 },
        append(0, 8, 300, Interval),
    ];
    run_schedule(&ops, Quirks::default()).unwrap();
}

/// All of them, for an engine with a known bug.
#[cfg(edgelog_canary)]
pub(crate) const ALL: &[fn()] = &[
    a_topic_that_a_killed_process_created_outlives_the_power_cut_after_it,
    a_topic_is_created_with_all_of_its_partitions_and_settings_or_not_at_all,
    a_creation_that_failed_is_taken_back_whole,
    a_topic_is_deleted_whole_or_not_at_all,
    what_was_deleted_is_not_reported_as_lost,
    an_index_from_before_a_truncation_is_not_believed,
    a_log_does_not_begin_behind_what_a_cut_has_taken,
];
