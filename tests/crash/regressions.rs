//! What the searches have found, each named for what a user would have seen.

use edgelog::Durability::{Interval, Os, Sync};

use edgelog::clock::{Clock, ManualClock};
use edgelog::storage::{Access, MemoryStorage, Storage};
use edgelog::{NewRecord, NewTopic, Offset, Store, TimestampMs};

use edgelog_testkit::crash::disk::{Fault, Image, Quirks, SimDisk};
use edgelog_testkit::crash::oracle::TIME_BASE;
use edgelog_testkit::crash::search::{self, guarded, run_schedule};
use edgelog_testkit::crash::workload::{Op, TOPICS, new_topic, options};

fn append(log: usize, records: u8, len: u16, durability: edgelog::Durability) -> Op {
    Op::Append { log, records, len, durability, concurrent: false }
}

/// Runs the schedule for a cut after each of the first `effects`, in each image. A cut that would come after the last
/// effect comes at the end: so would all later ones, and one of them is run.
fn at_every_effect(effects: u16, images: &[Image], ops: impl Fn(Op) -> Vec<Op>) {
    for &image in images {
        for after in 0..effects {
            let cut = Op::Cut { after, image };
            let ops = ops(cut.clone());
            let at = ops.iter().position(|op| *op == cut).expect("the cut is one of them");
            match guarded(|| run_schedule(&ops, Quirks::default())) {
                Ok(ran) if ran.reached.contains(&at) => {}
                Ok(_) => break,
                Err(what) => panic!("cut after {after} effects, {image:?}: {what}"),
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
    at_every_effect(80, &[Image::Kill], |cut| {
        vec![cut, Op::Create { topic: 1 }, append(1, 1, 100, Sync), append(2, 1, 100, Sync), last.clone()]
    });
}

/// A topic came back from a cut with fewer partitions, or with the default retention.
#[test]
fn a_topic_is_created_with_all_of_its_partitions_and_settings_or_not_at_all() {
    at_every_effect(80, &all_images(), |cut| vec![Op::Create { topic: 0 }, cut, Op::Create { topic: 1 }]);
}

/// As above, but the creation had met an error and was being undone.
#[test]
fn a_creation_that_failed_is_undone_whole() {
    for failing in 0..12 {
        at_every_effect(60, &[Image::Alternate, Image::NewestLost, Image::Random(3), Image::Random(4)], |cut| {
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

/// Looking up a time found nothing, because the index files of a truncated history had come back.
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

/// The log began behind a hole, at a segment whose predecessor the cut had taken: readers at the log start got the
/// error that they had come too late.
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

/// A program appended, and got the error that the disk is full. It truncated the log to where it ended, and found the
/// record after a crash.
#[test]
fn what_a_failed_append_left_does_not_outlast_a_truncation() {
    for after in 0..4 {
        at_every_effect(20, &[Image::Kill, Image::AllKept, Image::OldestKept], |cut| {
            vec![
                Op::Create { topic: 1 },
                Op::Fail { after, fault: Fault::Full, goes_on: true },
                Op::Append { log: 1, records: 1, len: 10, durability: Os, concurrent: true },
                Op::Truncate { log: 1, back: 20 },
                cut,
                append(1, 1, 100, Os),
            ]
        });
    }
}

/// As above, where the next append is lost in a cut, and what the failed one had left stands in its place.
#[test]
fn what_a_failed_append_left_does_not_pass_for_the_next_one() {
    let images = [Image::OldestKept, Image::Alternate, Image::NewestLost, Image::Random(1), Image::Random(2)];
    for after in 0..4 {
        for calls_before in 0..12 {
            at_every_effect(16, &images, |cut| {
                let mut ops = vec![Op::Create { topic: 0 }];
                // What a failed write leaves follows from the number of the call.
                ops.extend((0..calls_before).map(|_| append(0, 1, 10, Os)));
                ops.extend([
                    append(0, 1, 100, Sync),
                    Op::Fail { after, fault: Fault::Full, goes_on: true },
                    append(0, 1, 200, Os),
                    cut,
                    append(0, 1, 90, Os),
                    append(0, 1, 10, Os),
                ]);
                ops
            });
        }
    }
}

/// A leader epoch that could not be made durable was reported, and was given out once more after a power cut.
#[test]
fn an_epoch_that_could_not_be_made_durable_is_not_reported() {
    let ops = [
        Op::Create { topic: 0 },
        append(0, 8, 300, Sync),
        Op::Fail { after: 0, fault: Fault::Flush, goes_on: false },
        Op::Fail { after: 2, fault: Fault::Full, goes_on: true },
        append(0, 3, 700, Sync),
        Op::Append { log: 0, records: 1, len: 1500, durability: Interval, concurrent: true },
        Op::Cut { after: 0, image: Image::SectorsLost },
        append(0, 8, 20, Sync),
    ];
    run_schedule(&ops, Quirks::default()).unwrap();
}

/// Looking up a time found a later record than the first. It was in a sealed segment whose index a cut had brought
/// back from before a truncation.
#[test]
fn a_sealed_segment_is_not_read_by_an_index_from_before_a_truncation() {
    at_every_effect(30, &all_images(), |cut| {
        vec![
            Op::Create { topic: 0 },
            append(0, 1, 420, Sync),
            append(0, 1, 420, Sync),
            append(0, 8, 20, Sync),
            append(0, 8, 20, Sync),
            Op::Reopen,
            Op::Truncate { log: 0, back: 16 },
            append(0, 1, 420, Os),
            cut,
            append(0, 1, 420, Os),
            append(0, 1, 1500, Os),
            append(0, 3, 700, Os),
            append(0, 8, 300, Sync),
            append(0, 1, 10, Os),
        ]
    });
}

/// So many epochs of the last log that the checkpoint takes several sectors, with news in the second: only then can one
/// of its slots be torn.
fn many_epochs() -> Vec<Op> {
    let mut ops = all_topics();
    for _ in 0..30 {
        ops.extend([append(4, 1, 10, Os), append(4, 1, 10, Os), Op::Truncate { log: 4, back: 1 }]);
    }
    ops
}

fn all_topics() -> Vec<Op> {
    (0..3).map(|topic| Op::Create { topic }).collect()
}

/// Each flush of `news` fails once, the process dies, and the power goes at every effect of the next one.
fn flush_fails_then_power(before: Vec<Op>, news: &[Op]) {
    let from = before.len();
    let outcome = search::flush_fails_then_power(&[before, news.to_vec()].concat(), from, 1, 12);
    assert!(outcome.counts["failed flushes"] > 0);
    outcome.assert_none();
}

/// A checkpoint was written over the newest one: torn, it left the one before, and an epoch was given out twice.
#[test]
fn a_torn_checkpoint_leaves_the_newest_one() {
    let images: Vec<Image> = (0..6).map(Image::Random).chain([Image::Alternate]).collect();
    at_every_effect(14, &images, |cut| {
        let news = [append(4, 2, 10, Sync), cut, Op::Truncate { log: 4, back: 1 }, append(1, 1, 10, Sync)];
        [many_epochs(), news.to_vec(), vec![append(4, 1, 10, Sync), Op::Truncate { log: 4, back: 1 }]].concat()
    });
}

/// The checkpoint's flush failed, and the page cache went on showing it; the next process wrote over the slot that was
/// on the device, which left the one before both: an epoch was given out twice.
#[test]
fn a_checkpoint_in_the_page_cache_alone_is_not_built_upon() {
    flush_fails_then_power(
        [all_topics(), vec![append(4, 2, 10, Sync), Op::Truncate { log: 4, back: 1 }, append(4, 1, 10, Sync)]].concat(),
        &[append(0, 2, 10, Sync), Op::Truncate { log: 0, back: 1 }],
    );
}

/// The clean mark's flush failed half way through a close, and the next process believed the slot that had it.
#[test]
fn a_close_whose_mark_is_in_the_page_cache_alone_is_not_built_upon() {
    flush_fails_then_power(
        [all_topics(), vec![append(4, 2, 10, Sync), Op::Truncate { log: 4, back: 1 }, append(4, 1, 10, Sync)]].concat(),
        &[Op::Reopen],
    );
}

/// A store with many logs lost its checkpoint when that outgrew its file.
#[test]
fn a_checkpoint_that_outgrows_its_file_outlasts_a_power_cut() {
    let clock = ManualClock::new(TimestampMs(TIME_BASE));
    let disk = SimDisk::new(Quirks::default());
    let store = options(&clock).open_on(disk.clone()).unwrap();
    store.create_topic(&NewTopic::new("small")).unwrap();
    store.log("small", 0).unwrap().append_with(NewRecord::value(b"kept"), Sync).unwrap();
    disk.record();
    let long = "x".repeat(200);
    store.create_topic(&NewTopic::new(long.clone()).partitions(30)).unwrap();
    let last = disk.snapshot();
    let cuts = disk.take_cuts();
    disk.kill();
    for (n, core) in cuts.iter().chain([&last]).enumerate() {
        for image in all_images() {
            let disk = SimDisk::from_core(core.image(image));
            let store = options(&clock).open_on(disk.clone()).unwrap();
            let report = store.recovery_report();
            assert!(!report.checkpoint_lost, "cut {n}, {image:?}: {report}");
            assert_eq!(store.log("small", 0).unwrap().offsets().log_end_offset, 1, "cut {n}, {image:?}");
            let is_there = store.topics().unwrap().iter().any(|topic| topic.name == long);
            assert!(is_there || n < cuts.len(), "cut {n}, {image:?}");
            disk.kill();
        }
    }
}

/// As above, where the new file's name could not be made durable: what was written into it later had no name after a
/// cut, and an epoch was given out twice.
#[test]
fn a_checkpoint_file_without_a_name_that_lasts_is_made_again() {
    let clock = ManualClock::new(TimestampMs(TIME_BASE));
    for failing in 0.. {
        let disk = SimDisk::new(Quirks::default());
        let store = options(&clock).open_on(disk.clone()).unwrap();
        store.create_topic(&NewTopic::new("grows")).unwrap();
        store.create_topic(&NewTopic::new("small")).unwrap();
        // Fourteen long names leave room for a few epochs; it is a truncation that ends it, which syncs no names.
        store.create_topic(&NewTopic::new("x".repeat(200)).partitions(14)).unwrap();
        let room = disk.metadata("edgelog.checkpoint").unwrap().len;
        let (grows, small) = (store.log("grows", 0).unwrap(), store.log("small", 0).unwrap());
        disk.fail_in(failing, Fault::Flush);
        let mut grown = 0;
        while grown < 40 && !disk.fault_hit() {
            grown += 1;
            let _ = grows.append_with(NewRecord::value(b"kept"), Os);
            let truncated = grows.append_with(NewRecord::value(b"truncated"), Os);
            let _ = truncated.and_then(|truncated| grows.truncate_to(truncated.base_offset));
        }
        if !disk.fault_hit() {
            assert!(disk.metadata("edgelog.checkpoint").unwrap().len > room, "the checkpoint had to grow");
            disk.kill();
            return;
        }
        small.append_with(NewRecord::value(b"kept"), Sync).unwrap();
        small.append_with(NewRecord::value(b"truncated"), Sync).unwrap();
        if small.truncate_to(Offset(1)).is_err() {
            // The file that holds could not be flushed, and answers so until the store is opened again.
            disk.kill();
            continue;
        }
        let epoch = small.append_with(NewRecord::value(b"kept too"), Sync).unwrap().leader_epoch;
        let last = disk.snapshot();
        disk.kill();
        for image in all_images() {
            let disk = SimDisk::from_core(last.image(image));
            let store = options(&clock).open_on(disk.clone()).unwrap();
            let report = store.recovery_report();
            assert!(!report.checkpoint_lost, "flush {failing}, {image:?}: {report}");
            let log = store.log("small", 0).unwrap();
            assert_eq!(log.offsets().log_end_offset, 2, "flush {failing}, {image:?}");
            assert!(log.leader_epoch() > epoch, "flush {failing}, {image:?}: epoch {epoch} twice");
            disk.kill();
        }
    }
}

/// Deleting a topic failed, and a power cut brought it back: with another identity, so that its followers began again
/// at its start.
#[test]
fn a_topic_whose_deletion_failed_comes_back_as_what_it_was() {
    for topic in 0..3 {
        for failing in 0..8 {
            at_every_effect(24, &[Image::AllLost, Image::NamesLost, Image::AllKept, Image::Random(1)], |cut| {
                vec![
                    Op::Create { topic: 0 },
                    Op::Create { topic: 1 },
                    Op::Create { topic: 2 },
                    append([0, 1, 3][topic], 8, 300, Sync),
                    Op::Fail { after: failing, fault: Fault::Flush, goes_on: true },
                    Op::Delete { topic },
                    cut,
                    append([1, 0, 0][topic], 1, 420, Sync),
                    Op::Truncate { log: [1, 0, 0][topic], back: 20 },
                    Op::Tick { advance: 2000 },
                ]
            });
        }
    }
}

/// An append got the error that the disk is full, and all of its bytes stood behind the end of a segment. The next
/// append began another segment, and the power went. The whole batch was gone from the files, and was not kept in
/// another file.
#[test]
fn what_a_failed_append_left_in_a_sealed_segment_is_kept_aside() {
    for after in 0..4 {
        at_every_effect(30, &[Image::DataLost, Image::SizesLost, Image::Alternate, Image::Kill], |cut| {
            vec![
                Op::Create { topic: 2 },
                Op::Create { topic: 0 },
                append(0, 1, 1500, Os),
                append(1, 3, 40, Interval),
                Op::Append { log: 0, records: 1, len: 420, durability: Os, concurrent: true },
                Op::Append { log: 0, records: 3, len: 700, durability: Interval, concurrent: true },
                Op::Fail { after, fault: Fault::Full, goes_on: true },
                append(0, 1, 1500, Interval),
                append(0, 8, 20, Os),
                cut,
                Op::Tick { advance: 5 },
                append(0, 1, 420, Os),
            ]
        });
    }
}

/// A read that failed once while the store was opened took acknowledged records out of the log.
#[test]
fn a_read_that_fails_once_at_an_open_ends_no_log() {
    for after in 0..60 {
        let ops = [
            Op::Create { topic: 1 },
            append(1, 1, 1500, Sync),
            append(1, 3, 40, Sync),
            Op::Fail { after, fault: Fault::Io, goes_on: true },
            Op::Fail { after: 0, fault: Fault::Flush, goes_on: true },
            append(1, 8, 300, Sync),
            Op::Reopen,
        ];
        if let Err(what) = guarded(|| run_schedule(&ops, Quirks::default())) {
            panic!("call {after}: {what}");
        }
    }
}

fn put(storage: &MemoryStorage, path: &str, bytes: &[u8]) {
    let dir = path.split('/').next().unwrap_or_default();
    let _ = storage.create_dir(dir);
    let _ = storage.remove_file(path);
    storage.open(path, Access::CreateNew).unwrap().write_at(bytes, 0).unwrap();
}

fn bytes(storage: &MemoryStorage, path: &str) -> Vec<u8> {
    let file = storage.open(path, Access::Read).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn all_names(storage: &MemoryStorage) -> Vec<String> {
    let mut names = Vec::new();
    for entry in storage.read_dir("").unwrap() {
        if entry.is_dir {
            names.extend(
                storage.read_dir(&entry.name).unwrap().into_iter().map(|e| format!("{}/{}", entry.name, e.name)),
            );
        }
        names.push(entry.name);
    }
    names
}

/// Directories of other programs lost their files to an open: by their names they looked like what a creation or a
/// deletion had left.
#[test]
fn what_other_programs_have_in_the_data_directory_survives() {
    const LOG: &str = "00000000000000000000.log";
    let (storage, clock) = (MemoryStorage::new(), ManualClock::new(TimestampMs(TIME_BASE)));
    let open = || options(&clock).open_on(storage.clone()).unwrap();
    let store = open();
    store.create_topic(&new_topic(1)).unwrap();
    store.log(TOPICS[1], 1).unwrap().append(NewRecord::value(b"a record")).unwrap();
    store.close().unwrap();
    drop(store);
    let batch = bytes(&storage, &format!("{}-1/{LOG}", TOPICS[1]));
    let hash = crc32fast::hash(b"orders");
    let foreign = [
        "backup-2026/orders.csv".to_owned(),
        "photos-1/cat.jpg".to_owned(),
        "photos-1/00000000000000000000.cut".to_owned(),
        "photos-2/00000000000000000007.snapshot".to_owned(),
        "photos-3/00000000000000000007.index".to_owned(),
        "photos-4/next.prepared".to_owned(),
        "photos-5/00000000000000000007.log.part".to_owned(),
        "photos-0/topic.properties".to_owned(),
        "empty-1/topic.properties.part".to_owned(),
        format!("orders-0.0123456789abcdef0123456789abcdef-delete/{LOG}"),
        "pictures-0.0123456789abcdef-delete/cat.jpg".to_owned(),
        format!("orders-0.{hash:08x}01234567-delete/notes.txt"),
        format!("orders-3/{LOG}"),
        "orders-3/00000000000000000007.index".to_owned(),
        "orders-3/00000000000000000007.log.swap".to_owned(),
        "orders-3/00000000000000000009.log.part".to_owned(),
        "orders-3/next.prepared".to_owned(),
        format!("{}-1/notes.txt", TOPICS[1]),
        "lost+found/x".to_owned(),
    ];
    for path in &foreign {
        put(&storage, path, &batch);
    }
    let before = all_names(&storage);
    for round in 0..3 {
        let store = open();
        let report = store.recovery_report();
        assert!(report.removed.is_empty() && report.missing.is_empty() && report.unopened.is_empty(), "{report}");
        assert!(report.left.iter().any(|(dir, _)| dir == "backup-2026") && report.left.len() == 11, "{report}");
        assert_eq!(store.topics().unwrap().len(), 2, "{:?}", store.topics());
        if round == 1 {
            store.log(TOPICS[1], 0).unwrap().append(NewRecord::value(b"a record")).unwrap();
        } else {
            store.close().unwrap();
        }
        for path in &foreign {
            assert_eq!(bytes(&storage, path), batch, "{path}");
        }
    }
    let derived = |name: &str| name.starts_with("orders-3/") || name.starts_with(TOPICS[1]);
    let new: Vec<_> = all_names(&storage).into_iter().filter(|name| !before.contains(name) && !derived(name)).collect();
    assert!(new.is_empty(), "{new:?}");
    // A deletion takes the log's files, and leaves the others.
    let store = open();
    store.delete_topic(TOPICS[1]).unwrap();
    let left: Vec<_> = all_names(&storage).into_iter().filter(|name| name.starts_with(TOPICS[1])).collect();
    assert!(left.len() == 2 && left.iter().any(|name| name.ends_with("-delete/notes.txt")), "{left:?}");
}

/// A topic that was to keep its records for ever lost them, since its settings were lost first.
#[test]
fn a_topic_whose_settings_are_lost_loses_nothing_else() {
    const FILES: [&str; 2] = ["topic.properties", "edgelog.properties"];
    let dir = format!("{}-0", TOPICS[0]);
    for (lost, empty) in
        [(&FILES[..], false), (&FILES[..], true), (&FILES[..1], false), (&FILES[..1], true), (&FILES[1..], true)]
    {
        let (storage, clock) = (MemoryStorage::new(), ManualClock::new(TimestampMs(TIME_BASE)));
        let open = || options(&clock).open_on(storage.clone()).unwrap();
        let store = open();
        store.create_topic(&new_topic(0)).unwrap();
        for _ in 0..30 {
            store.log(TOPICS[0], 0).unwrap().append(NewRecord::value(&[7; 500])).unwrap();
        }
        store.close().unwrap();
        drop(store);
        for file in lost {
            let path = format!("{dir}/{file}");
            storage.remove_file(&path).unwrap();
            if empty {
                storage.open(&path, Access::CreateNew).unwrap();
            }
        }
        for _ in 0..2 {
            clock.set(clock.now() + (40 << 30));
            let store = open();
            let report = store.recovery_report();
            for _ in 0..30 {
                store.log(TOPICS[0], 0).unwrap().append(NewRecord::value(&[7; 500])).unwrap();
            }
            store.tick(clock.now()).unwrap();
            assert_eq!(store.log(TOPICS[0], 0).unwrap().offsets().log_start_offset, 0, "{lost:?}: {report}");
            assert_eq!(store.topic(TOPICS[0]).unwrap().retention_suspended.is_some(), lost.len() == 2, "{report}");
            assert_eq!(report.suspended.len(), usize::from(lost.len() == 2), "{report}");
            store.close().unwrap();
        }
        let store = open();
        if lost.len() == 2 {
            // Altering another key lets retention go on as it was: deleting nothing.
            store.alter_topic(TOPICS[0], &[("flush.ms", Some("20"))]).unwrap();
        } else {
            assert!(FILES.iter().all(|file| !bytes(&storage, &format!("{dir}/{file}")).is_empty()), "healed");
        }
        let topic = store.topic(TOPICS[0]).unwrap();
        assert_eq!((topic.config.retention_ms, topic.retention_suspended), (-1, None));
        assert_eq!(topic.overrides["retention.ms"], "-1");
        drop(store);
        assert!(!open().recovery_report().has_notes());
    }
}

/// The second writer came in as soon as the name of the first one's lock was removed.
#[test]
fn a_lock_without_its_file_keeps_a_second_writer_out() {
    let dir = std::env::temp_dir().join(format!(
        "edgelog-crash-lock-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let clock = ManualClock::new(TimestampMs(TIME_BASE));
    let store = options(&clock).open(&dir).unwrap();
    store.create_topic(&new_topic(0)).unwrap();
    std::fs::remove_file(dir.join(".lock")).unwrap();
    let second = options(&clock).open(&dir).map(|second| drop(Store::close(&second)));
    let _ = store.close();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(matches!(second, Err(edgelog::Error::DataDirLocked(_))), "{second:?}");
}

/// A power cut stopped the deletion of a topic between two partitions, the next open finished it, and reported the
/// second partition as gone with all of its records. At every effect of a deletion, and of the open behind it.
#[test]
fn a_deletion_that_a_cut_stops_is_finished_and_reported_as_one() {
    let clock = ManualClock::new(TimestampMs(TIME_BASE));
    for partitions in [1, 3] {
        let disk = SimDisk::new(Quirks::default());
        let store = options(&clock).open_on(disk.clone()).unwrap();
        store.create_topic(&NewTopic::new("kept")).unwrap();
        store.create_topic(&NewTopic::new("t").partitions(partitions)).unwrap();
        for partition in 0..partitions {
            store.log("t", partition).unwrap().append_with(NewRecord::value(b"gone"), Sync).unwrap();
        }
        disk.record();
        store.delete_topic("t").unwrap();
        let cuts = disk.take_cuts();
        disk.kill();
        let mut finished = 0;
        for (n, core) in cuts.iter().enumerate() {
            for image in all_images() {
                let disk = SimDisk::from_core(core.image(image));
                disk.record();
                let store = options(&clock).open_on(disk.clone()).unwrap();
                let at = format!("{partitions} partitions, cut {n}, {image:?}");
                let report = store.recovery_report();
                assert!(report.missing.is_empty(), "{at}: {report}");
                let is_there = store.topics().unwrap().iter().any(|topic| topic.name == "t");
                if !report.finished_deletions.is_empty() {
                    finished += 1;
                    assert!(!is_there && report.finished_deletions == ["t"], "{at}: {report}");
                    assert!(report.removed.is_empty(), "{at}: {report}");
                    assert!(report.to_string().contains("the deletion of topic t"), "{at}: {report}");
                }
                let again = disk.take_cuts();
                disk.kill();
                for (second, core) in again.iter().enumerate() {
                    let disk = SimDisk::from_core(core.image(image));
                    let store = options(&clock).open_on(disk.clone()).unwrap();
                    let report = store.recovery_report();
                    assert!(report.missing.is_empty(), "{at}, then cut {second}: {report}");
                    disk.kill();
                }
            }
        }
        assert!(finished > 0, "the deletion was never found half done");
    }
}

/// All of them, for an engine with a known bug.
#[cfg(edgelog_canary)]
pub(crate) const ALL: &[fn()] = &[
    a_topic_that_a_killed_process_created_outlives_the_power_cut_after_it,
    a_topic_is_created_with_all_of_its_partitions_and_settings_or_not_at_all,
    a_creation_that_failed_is_undone_whole,
    a_topic_is_deleted_whole_or_not_at_all,
    what_was_deleted_is_not_reported_as_lost,
    an_index_from_before_a_truncation_is_not_believed,
    a_log_does_not_begin_behind_what_a_cut_has_taken,
    what_a_failed_append_left_does_not_outlast_a_truncation,
    what_a_failed_append_left_does_not_pass_for_the_next_one,
    an_epoch_that_could_not_be_made_durable_is_not_reported,
    a_sealed_segment_is_not_read_by_an_index_from_before_a_truncation,
    a_torn_checkpoint_leaves_the_newest_one,
    a_checkpoint_in_the_page_cache_alone_is_not_built_upon,
    a_close_whose_mark_is_in_the_page_cache_alone_is_not_built_upon,
    a_checkpoint_that_outgrows_its_file_outlasts_a_power_cut,
    a_checkpoint_file_without_a_name_that_lasts_is_made_again,
    a_topic_whose_deletion_failed_comes_back_as_what_it_was,
    what_a_failed_append_left_in_a_sealed_segment_is_kept_aside,
    a_read_that_fails_once_at_an_open_ends_no_log,
    what_other_programs_have_in_the_data_directory_survives,
    a_topic_whose_settings_are_lost_loses_nothing_else,
    a_lock_without_its_file_keeps_a_second_writer_out,
    a_deletion_that_a_cut_stops_is_finished_and_reported_as_one,
    super::odd_logs::a_log_whose_checkpoint_says_what_cannot_be_costs_no_other_log,
    super::odd_logs::a_recovery_point_or_a_log_start_that_no_segment_reaches_is_not_believed,
    super::odd_logs::an_epoch_that_no_segment_supports_hides_no_record,
];
