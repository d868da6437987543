//! Defends that the commands agree: what one of them says of a log (ranges, words, exit code) the others say too.
//! Segments are made by hand, as a broker or damage would leave them.

use std::fs;

use edgelog::core::{LeaderEpoch, Offset, RecordBatchBuilder, TimestampMs, crc32c, stamp_base};

use crate::support::{Done, Place};

/// An hour ago: retention leaves it.
fn now() -> i64 {
    let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since_1970.as_millis()).unwrap() - 3_600_000
}

/// A batch of one record for each value.
pub(crate) fn batch(base_offset: i64, values: &[&str]) -> Vec<u8> {
    batch_at(now(), base_offset, values)
}

fn batch_at(timestamp: i64, base_offset: i64, values: &[&str]) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(vec![0; 1 << 16]);
    for value in values {
        builder.append(TimestampMs(timestamp), None, Some(value.as_bytes()), &[]).unwrap();
    }
    let bytes = builder.finish();
    stamp_base(bytes, Offset(base_offset), LeaderEpoch(0));
    bytes.to_vec()
}

/// The same batch with other bytes from `at` on, and the checksum put right.
pub(crate) fn with(mut batch: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// Puts a file into a partition's directory.
pub(crate) fn put(place: &Place, log: &str, file: &str, bytes: &[u8]) {
    let dir = place.store().join(log);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(file), bytes).unwrap();
}

fn segment(base_offset: i64) -> String {
    format!("{base_offset:020}.log")
}

fn tail(place: &Place) -> Done {
    place.run(&["tail", "t", "--from-beginning", "--no-follow", "--json"])
}

fn offsets(done: &Done) -> Vec<i64> {
    done.json().iter().map(|record| record["offset"].as_i64().unwrap()).collect()
}

#[test]
fn json_says_which_clock_stamped_a_record() {
    let place = Place::new();
    // Attribute bit 3: the log's clock.
    let now = now();
    let stamped = with(with(batch_at(now, 0, &["a"]), 21, &8_i16.to_be_bytes()), 35, &(now + 5).to_be_bytes());
    put(&place, "t-0", &segment(0), &[stamped, batch_at(now, 1, &["b"])].concat());
    let expected = [("logappend", now + 5), ("create", now)];
    let exported = place.run(&["export", "t", "--to", "-", "--format", "json"]).exits(0);
    for done in [tail(&place).exits(0), exported] {
        let kinds: Vec<_> = done.json().iter().map(|r| (r["tstype"].clone(), r["ts"].clone())).collect();
        assert_eq!(kinds, expected.map(|(kind, time)| (kind.into(), time.into())));
    }
}

#[test]
fn offsets_are_not_counted_as_records() {
    let place = Place::new();
    // As compaction leaves them: one record in the place of a hundred.
    let thin = |base| with(batch(base, &["v"]), 23, &99_i32.to_be_bytes());
    put(&place, "t-0", &segment(0), &[thin(0), thin(100)].concat());
    place.run_with(&["append", "t"], b"c\n").exits(0);
    let stat = place.run(&["stat", "t"]).exits(0);
    assert!(stat.stdout.contains("0..201 (201 offsets)") && !stat.stdout.contains("record"), "{}", stat.stdout);
    let topics = place.run(&["topics"]).exits(0);
    assert!(topics.lines()[0].contains("OFFSETS") && !topics.stdout.contains("RECORDS"), "{}", topics.stdout);
    let unsure = place.run(&["topics", "delete", "t"]).exits(1);
    assert!(unsure.stderr.contains("201 offsets") && !unsure.stderr.contains("201 record"), "{}", unsure.stderr);
}

/// A batch whose CRC holds and whose records do not decode: all of it is lost, in every command, by the same words.
#[test]
fn a_batch_whose_records_do_not_decode_is_one_range_everywhere() {
    for fault in [
        // Two records by the header, and three are there.
        with(with(batch(0, &["a", "b", "c"]), 57, &2_i32.to_be_bytes()), 23, &1_i32.to_be_bytes()),
        // The first record's length runs past the payload.
        with(batch(0, &["a", "b"]), 61, &[0x7e]),
    ] {
        let last = i32::from_be_bytes(fault[23..27].try_into().unwrap());
        let place = Place::new();
        put(&place, "t-0", &segment(0), &[fault, batch(i64::from(last) + 1, &["good"])].concat());
        let cannot = format!("the CRC holds, and the records of the batch 0..={last} cannot be read: ");
        let lost = format!("offsets 0 to {last} lost: {cannot}");
        let fsck = place.run(&["fsck"]).exits(2);
        assert!(fsck.stdout.contains(&lost), "{}", fsck.stdout);
        let cause = fsck.stdout.split(&lost).nth(1).unwrap().lines().next().unwrap();
        let read = tail(&place).exits(2);
        assert_eq!(offsets(&read), [i64::from(last) + 1]);
        let json = place.run(&["export", "t", "--to", "-", "--format", "json"]).exits(2);
        assert_eq!(json.stdout, read.stdout);
        let to = place.path("broker");
        let broker = place.run(&["export", "t", "--to", to.to_str().unwrap(), "--for-broker"]).exits(2);
        for done in [&read, &json, &broker] {
            assert!(done.stderr.contains(&lost), "{}", done.stderr);
            let told = done.stderr.split(&lost).nth(1).unwrap().lines().next().unwrap();
            assert!(told.ends_with(cause), "{told}\n{cause}");
        }
        let path = place.store().join("t-0").join(segment(0));
        let dump = place.run(&["dump", "--deep-iteration", path.to_str().unwrap()]).exits(2);
        assert!(dump.stdout.contains(cause) && dump.stdout.contains("isvalid: false"), "{}", dump.stdout);
    }
}

/// A message of format 1, as Kafka wrote it before 0.11. (Nothing looks at its CRC.)
fn old_message(offset: i64, value: &str) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0, 1, 0];
    body.extend(now().to_be_bytes());
    body.extend((-1_i32).to_be_bytes());
    body.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
    body.extend(value.as_bytes());
    [&offset.to_be_bytes()[..], &i32::try_from(body.len()).unwrap().to_be_bytes(), &body].concat()
}

/// Every file below the store, with its bytes.
fn files(place: &Place, log: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(place.store().join(log)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn an_old_message_format_is_named_by_every_command_and_left_as_it_is() {
    const NAMED: &str = "message format 1, which Kafka wrote before 0.11";
    let old = [old_message(0, "old"), old_message(1, &"older".repeat(100))].concat();
    let good = batch(2, &["a", "b", "c"]);
    for (what, segments, good_offsets) in [
        ("in front of batches", vec![(0, [&old[..], &good].concat())], vec![2, 3, 4]),
        ("alone", vec![(0, old.clone())], vec![]),
        ("in a later segment", vec![(0, batch(0, &["x"])), (1, old_message(1, "old"))], vec![0]),
        ("behind batches", vec![(0, [batch(0, &["x"]), old_message(1, "old")].concat())], vec![0]),
    ] {
        let place = Place::new();
        for (base, bytes) in &segments {
            put(&place, "t-0", &segment(*base), bytes);
        }
        let before = files(&place, "t-0");
        let read = tail(&place).exits(2);
        assert_eq!(offsets(&read), good_offsets, "{what}");
        assert!(read.stderr.contains(NAMED), "{what}: {}", read.stderr);
        let fsck = place.run(&["fsck"]).exits(2);
        assert!(fsck.stdout.contains(NAMED), "{what}: {}", fsck.stdout);
        // `stat` looks at where segments begin.
        let stat: &[&str] =
            if what == "behind batches" { &["export", "t", "--to", "-", "--format", "csv"] } else { &["stat"] };
        for arguments in [&["export", "t", "--to", "-", "--format", "json"][..], stat] {
            let done = place.run(arguments).exits(2);
            assert!(done.stderr.contains(NAMED), "{what}: {arguments:?}: {}", done.stderr);
        }
        let last = place.store().join("t-0").join(&before.last().unwrap().0);
        let dump = place.run(&["dump", last.to_str().unwrap()]).exits(2);
        assert!(dump.stdout.contains(NAMED), "{what}: {}", dump.stdout);
        let dry = place.run(&["repair", "--dry-run"]).exits(2);
        assert!(dry.stdout.contains(NAMED) && !dry.stdout.contains("sound:"), "{what}: {}", dry.stdout);
        let append = place.run_with(&["append", "t"], b"new\n").exits(2);
        assert!(append.stderr.contains("could not be opened") && append.stderr.contains(NAMED), "{}", append.stderr);
        assert!(!append.stderr.contains("earlier I/O error"), "{what}: {}", append.stderr);
        // Other logs open.
        place.run_with(&["append", "u"], b"new\n").exits(0);
        place.run(&["repair"]).exits(2);
        assert_eq!(files(&place, "t-0"), before, "{what}");
        assert_eq!(offsets(&tail(&place).exits(2)), good_offsets, "{what}, after all of it");
    }
}

/// Batch by batch, what the writer acknowledged before it was killed; byte by byte where each begins.
fn killed_writer(place: &Place, batches: u32) -> usize {
    place.run(&["topics", "create", "t"]).exits(0);
    let mut append = place.start(&["append", "t"]);
    for n in 0..batches {
        append.write(&format!("{n:03} {}\n", "x".repeat(100)));
        append.line();
    }
    append.kill_9();
    let bytes = fs::read(place.store().join("t-0").join(segment(0))).unwrap();
    12 + u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize
}

/// In the boot that wrote them, valid batches behind damage are no crash's doing: every command says that they are
/// there and cannot be read, and the open says where they are then and how they come back.
#[test]
fn what_damage_hides_above_the_recovery_point_is_told_and_comes_back() {
    let place = Place::new();
    let size = killed_writer(&place, 20);
    let log = format!("t-0/{}", segment(0));
    place.flip(&log, 5 * size - 10);
    let cut = format!("t-0/{:020}-{}-0.cut", 0, 4 * size);
    let told = format!("{log} at {}: offsets 4 to 19 lost: ", 4 * size);
    let back = format!("15 valid records are in them, offsets 5 to 19; after it, `edgelog repair --salvage {cut}`");
    let fsck = place.run(&["fsck"]).exits(2);
    assert!(fsck.stdout.contains(&told) && fsck.stdout.contains(&back), "{}", fsck.stdout);
    let read = tail(&place).exits(2);
    assert_eq!(offsets(&read), [0, 1, 2, 3]);
    let json = place.run(&["export", "t", "--to", "-", "--format", "json"]).exits(2);
    let to = place.path("broker");
    let broker = place.run(&["export", "t", "--to", to.to_str().unwrap(), "--for-broker"]).exits(2);
    for done in [&read, &json, &broker] {
        assert!(done.stderr.contains(&told) && done.stderr.contains(&back), "{}", done.stderr);
    }
    // As far as a reader was asked to go, nothing is hidden.
    place.run(&["tail", "t", "--from-beginning", "--no-follow", "-n", "3"]).exits(0);
    place.run(&["export", "t", "--to", "-", "--format", "json", "--until", "4"]).exits(0);

    let append = place.run_with(&["append", "t", "--quiet"], b"later\n").exits(0);
    let aside = format!("kept in {cut}: valid batches are in them, offsets 5 to 19; `edgelog repair --salvage {cut}`");
    assert!(append.stderr.contains("15 VALID OFFSETS") && append.stderr.contains(&aside), "{}", append.stderr);
    assert!(!append.stderr.contains("unfinished"), "{}", append.stderr);
    let fsck = place.run(&["fsck"]).exits(0);
    assert!(fsck.stdout.contains(&format!("offsets 5 to 19; `edgelog repair --salvage {cut}`")), "{}", fsck.stdout);
    place.run(&["repair", "--salvage", &cut]).exits(0);
    assert_eq!(offsets(&tail(&place).exits(0)), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_torn_append_of_a_killed_writer_is_no_loss() {
    let place = Place::new();
    let size = killed_writer(&place, 3);
    let log = format!("t-0/{}", segment(0));
    // The last batch did not come through in full.
    let path = place.store().join(&log);
    let mut bytes = fs::read(&path).unwrap();
    bytes[3 * size - 20..3 * size].fill(0);
    fs::write(&path, bytes).unwrap();
    place.run(&["fsck"]).exits(1);
    assert_eq!(offsets(&tail(&place).exits(0)), [0, 1]);
    let append = place.run_with(&["append", "t", "--quiet"], b"later\n").exits(0);
    assert!(append.stderr.contains("of unfinished appends") && !append.stderr.contains("VALID"), "{}", append.stderr);
}

#[test]
fn a_swap_file_of_kafkas_cleaner_is_named_and_a_rename_makes_use_of_it() {
    let place = Place::new();
    let swap = format!("{}.swap", segment(2));
    put(&place, "t-0", &segment(0), &batch(0, &["a", "b"]));
    let only_copy = batch(2, &["c", "d"]);
    put(&place, "t-0", &swap, &only_copy);
    put(&place, "t-0", &segment(4), &batch(4, &["e"]));
    let told = format!("t-0/{swap}: left by Kafka's log cleaner; it holds offsets 2 to 3, which no segment has");
    for command in [&["fsck"][..], &["repair", "--dry-run"]] {
        let done = place.run(command).exits(2);
        assert!(done.stdout.contains(&told) && done.stdout.contains("rename it to t-0/"), "{}", done.stdout);
    }
    let stat = place.run(&["stat"]).exits(0);
    assert!(stat.stdout.contains(&swap), "{}", stat.stdout);
    let append = place.run_with(&["append", "t", "--quiet"], b"f\n").exits(0);
    assert!(append.stderr.contains(&format!("t-0/{swap} was left by Kafka's log cleaner")), "{}", append.stderr);
    let repair = place.run(&["repair"]).exits(2);
    assert!(repair.stdout.contains(&told), "{}", repair.stdout);
    assert_eq!(fs::read(place.store().join("t-0").join(&swap)).unwrap(), only_copy);
    let dir = place.store().join("t-0");
    fs::rename(dir.join(&swap), dir.join(segment(2))).unwrap();
    assert_eq!(offsets(&tail(&place).exits(0)), [0, 1, 2, 3, 4, 5]);

    // A copy of what a segment holds is a leftover. (Repair writes the indexes of the segment.)
    place.run(&["repair"]).exits(0);
    put(&place, "t-0", &swap, &batch(2, &["c"]));
    let fsck = place.run(&["fsck"]).exits(0);
    assert!(fsck.stdout.contains("the segments hold all of its offsets"), "{}", fsck.stdout);
}

#[test]
fn fsck_says_of_a_directory_what_the_open_does_with_it() {
    let place = Place::new();
    place.run_with(&["append", "t"], b"one\n").exits(0);
    let others = ["old-delete", "t-1.0123456789abcdef-stray", "t-0.0123456789abcdef-future", "t-2147483647", "t-10000"];
    for dir in others {
        put(&place, dir, "notes.txt", b"x");
    }
    let fsck = place.run(&["fsck"]).exits(0);
    for dir in others {
        let line = fsck.lines().into_iter().find(|line| line.contains(&format!("{dir}:")));
        assert!(line.is_some_and(|line| line.contains("no log of this store")), "{dir}: {}", fsck.stdout);
    }
    assert!(!fsck.stdout.contains("the next open"), "{}", fsck.stdout);
    place.run_with(&["append", "t"], b"two\n").exits(0);
    for dir in others {
        assert_eq!(fs::read(place.store().join(dir).join("notes.txt")).unwrap(), b"x", "{dir}");
        assert_eq!(fs::read_dir(place.store().join(dir)).unwrap().count(), 1, "{dir}");
    }
}
