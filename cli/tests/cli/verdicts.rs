//! Defends that the commands agree: what one of them says of a log (ranges, words, exit code) the others say too.
//! Segments are made by hand, as a broker or damage would leave them.

use std::fs;

use edgelog::edgelog_core::{LeaderEpoch, Offset, RecordBatchBuilder, TimestampMs, crc32c, stamp_base};

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

/// A batch that is not decompressed is no damage; records that are asked for and not shown are never exit code 0.
#[test]
fn a_batch_beyond_the_bound_is_reported_alike_by_all_and_read_with_a_greater_one() {
    let place = Place::new();
    place.run(&["topics", "create", "t", "--config", "compression.type=snappy"]).exits(0);
    place.run_with(&["append", "t"], format!("{}\n", "a".repeat(2000)).as_bytes()).exits(0);
    let log = place.store().join("t-0").join(segment(0)).display().to_string();
    let commands: [&[&str]; 5] = [
        &["tail", "t", "--from-beginning", "--no-follow", "--json"],
        &["export", "t", "--to", "-", "--format", "json"],
        &["fsck"],
        &["fsck", "--json"],
        &["dump", "--deep-iteration", &log],
    ];
    for command in commands {
        place.run(command).exits(0);
        let bounded = place.run(&[command, &["--decompressed-bytes-max", "1000"]].concat()).exits(2);
        let said = format!("{}{}", bounded.stdout, bounded.stderr);
        assert!(said.contains("edgelog.decompressed.bytes.max=1000") && said.contains("not looked at"), "{said}");
        assert!(!said.contains("LOST"), "{said}");
        place.run(&[command, &["--decompressed-bytes-max", "3000"]].concat()).exits(0);
    }
    // Without records nothing is left out.
    place.run(&["dump", &log, "--decompressed-bytes-max", "1000"]).exits(0);
}

#[test]
fn offsets_are_not_counted_as_records() {
    let place = Place::new();
    // As compaction leaves them: one record instead of a hundred.
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
            let printed = done.stderr.split(&lost).nth(1).unwrap().lines().next().unwrap();
            assert!(printed.ends_with(cause), "{printed}\n{cause}");
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
fn what_damage_hides_above_the_recovery_point_is_reported_and_comes_back() {
    let place = Place::new();
    let size = killed_writer(&place, 20);
    let log = format!("t-0/{}", segment(0));
    place.flip(&log, 5 * size - 10);
    let cut = format!("t-0/{:020}-{}-0.cut", 0, 4 * size);
    let expected = format!("{log} at {}: offsets 4 to 19 lost: ", 4 * size);
    let back = format!("15 valid records are in them, offsets 5 to 19; after it, `edgelog repair --salvage {cut}`");
    let fsck = place.run(&["fsck"]).exits(2);
    assert!(fsck.stdout.contains(&expected) && fsck.stdout.contains(&back), "{}", fsck.stdout);
    let read = tail(&place).exits(2);
    assert_eq!(offsets(&read), [0, 1, 2, 3]);
    let json = place.run(&["export", "t", "--to", "-", "--format", "json"]).exits(2);
    let to = place.path("broker");
    let broker = place.run(&["export", "t", "--to", to.to_str().unwrap(), "--for-broker"]).exits(2);
    for done in [&read, &json, &broker] {
        assert!(done.stderr.contains(&expected) && done.stderr.contains(&back), "{}", done.stderr);
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

/// A kill leaves no batch whose last byte is there and another one is not: what was changed later is a loss.
#[test]
fn a_damaged_last_batch_of_a_killed_writer_is_a_loss_to_all() {
    let place = Place::new();
    let size = killed_writer(&place, 3);
    let log = format!("t-0/{}", segment(0));
    place.flip(&log, 3 * size - 10);
    let said = format!("{log} at {}: offset 2 lost: ", 2 * size);
    let fsck = place.run(&["fsck"]).exits(2);
    assert!(fsck.stdout.contains(&said) && fsck.stdout.contains("written whole"), "{}", fsck.stdout);
    let read = tail(&place).exits(2);
    assert_eq!(offsets(&read), [0, 1]);
    let json = place.run(&["export", "t", "--to", "-", "--format", "json"]).exits(2);
    for done in [&read, &json] {
        assert!(done.stderr.contains(&said) && done.stderr.contains("written whole"), "{}", done.stderr);
    }
    let append = place.run_with(&["append", "t", "--quiet"], b"later\n").exits(0);
    let lost = format!("{log} at {}: offset 2 lost", 2 * size);
    assert!(append.stderr.contains(&lost) && append.stderr.contains("LOST to damage"), "{}", append.stderr);
    assert!(!append.stderr.contains("unfinished") && append.stderr.contains("kept in t-0/"), "{}", append.stderr);
}

/// One that fits between the segments of a copied log: missing to every command until the first open puts it in place.
#[test]
fn a_swap_file_of_kafkas_cleaner_that_fits_is_put_in_place() {
    for how in [&["append", "t", "--quiet"][..], &["repair"]] {
        let place = Place::new();
        let swap = format!("{}.swap", segment(2));
        put(&place, "t-0", &segment(0), &batch(0, &["a", "b"]));
        put(&place, "t-0", &swap, &batch(2, &["c", "d"]));
        put(&place, "t-0", &segment(4), &batch(4, &["e"]));
        assert_eq!(offsets(&tail(&place).exits(2)), [0, 1, 4]);
        for command in [&["fsck"][..], &["stat"], &["export", "t", "--to", "-", "--format", "json"]] {
            place.run(command).exits(2);
        }
        let opened = place.run_with(how, b"").exits(0);
        let said = format!("{}{}", opened.stdout, opened.stderr);
        assert!(said.contains(&swap) && said.contains(&format!("t-0/{} now", segment(2))), "{said}");
        assert_eq!(offsets(&tail(&place).exits(0)), [0, 1, 2, 3, 4]);
        for command in [&["fsck"][..], &["stat"], &["export", "t", "--to", "-", "--format", "json"]] {
            place.run(command).exits(0);
        }
    }
}

/// Alone in a directory that no store has opened, it was lost to `fsck` and sound to `repair`.
#[test]
fn a_swap_file_alone_is_no_sound_store() {
    let place = Place::new();
    let swap = format!("{}.swap", segment(0));
    put(&place, "t-0", &swap, &batch(0, &["a", "b"]));
    let finding = |done: &Done| {
        let lines = done.stdout.lines().chain(done.stderr.lines());
        lines.filter(|line| line.contains(&swap)).map(str::to_owned).collect::<Vec<_>>()
    };
    let checked = finding(&place.run(&["fsck"]).exits(2));
    assert_eq!(checked.len(), 1, "{checked:?}");
    for command in [&["repair", "--dry-run"][..], &["repair"], &["repair"]] {
        let done = place.run(command).exits(2);
        assert_eq!(finding(&done), checked, "{command:?}: {}", done.stdout);
        assert!(!done.stdout.contains("nothing to repair"), "{command:?}: {}", done.stdout);
    }
    assert_eq!(place.run(&["repair", "--json"]).exits(2).json()[0]["sound"], false);
    // But for the lock, nothing was created.
    let mut names: Vec<_> = fs::read_dir(place.store()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| name != ".lock");
    assert_eq!(names, ["t-0"]);
    assert_eq!(fs::read_dir(place.store().join("t-0")).unwrap().count(), 1);
}

#[test]
fn a_swap_file_of_kafkas_cleaner_is_named_and_a_rename_makes_use_of_it() {
    let place = Place::new();
    let swap = format!("{}.swap", segment(2));
    put(&place, "t-0", &segment(0), &batch(0, &["a", "b"]));
    // It overlaps the segment behind: what it was to replace is not known.
    let only_copy = [batch(2, &["c", "d"]), batch(4, &["e", "x"])].concat();
    put(&place, "t-0", &swap, &only_copy);
    put(&place, "t-0", &segment(4), &batch(4, &["e"]));
    let expected = format!("t-0/{swap}: left by Kafka's log cleaner; it holds offsets 2 to 3, which no segment has");
    for command in [&["fsck"][..], &["repair", "--dry-run"]] {
        let done = place.run(command).exits(2);
        assert!(done.stdout.contains(&expected) && done.stdout.contains("rename it to t-0/"), "{}", done.stdout);
    }
    let stat = place.run(&["stat"]).exits(2);
    assert!(stat.stdout.contains(&swap), "{}", stat.stdout);
    assert_eq!(offsets(&tail(&place).exits(2)), [0, 1, 4]);
    let append = place.run_with(&["append", "t", "--quiet"], b"f\n").exits(0);
    assert!(append.stderr.contains(&format!("t-0/{swap} was left by Kafka's log cleaner")), "{}", append.stderr);
    let repair = place.run(&["repair"]).exits(2);
    assert!(repair.stdout.contains(&expected), "{}", repair.stdout);
    assert_eq!(fs::read(place.store().join("t-0").join(&swap)).unwrap(), only_copy);
    let dir = place.store().join("t-0");
    fs::rename(dir.join(&swap), dir.join(segment(2))).unwrap();
    assert_eq!(offsets(&tail(&place).exits(0)), [0, 1, 2, 3, 4, 5, 6]);

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

/// A batch of our own log that says another number of records than it has offsets is damage in every command, and not
/// one whose base offset is wrong: repair takes it out, once.
#[test]
fn a_batch_with_a_wrong_count_is_no_displaced_one() {
    let place = Place::new();
    for lines in [&b"a\n"[..], b"b\nc\n", b"d\ne\nf\n", b"g\nh\n"] {
        place.run_with(&["append", "t", "--quiet"], lines).exits(0);
    }
    let path = place.store().join("t-0").join(segment(0));
    let bytes = fs::read(&path).unwrap();
    let size = |at: usize| 12 + u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    let third = size(0) + size(size(0));
    let behind = third + size(third);
    let fault = with(bytes[third..behind].to_vec(), 57, &2_i32.to_be_bytes());
    fs::write(&path, [&bytes[..third], &fault, &bytes[behind..]].concat()).unwrap();
    let fsck = place.run(&["fsck"]).exits(2);
    assert!(fsck.stdout.contains("offsets 3 to 5 lost") && !fsck.stdout.contains("base offset"), "{}", fsck.stdout);
    assert_eq!(offsets(&tail(&place).exits(2)), [0, 1, 2, 6, 7]);
    let dry = place.run(&["repair", "--dry-run"]).exits(0);
    assert!(dry.stdout.contains("without its damage (3 offsets"), "{}", dry.stdout);
    place.run(&["repair"]).exits(0);
    assert_eq!(offsets(&tail(&place).exits(0)), [0, 1, 2, 6, 7]);
    let again = place.run(&["repair"]).exits(0);
    assert!(again.stdout.contains("there is nothing to repair"), "{}", again.stdout);
}

/// If something that is no regular file stands in place of a segment, no command changes it, and the log comes back
/// whole.
#[test]
fn something_else_in_place_of_a_segment_is_left_as_it_is() {
    for kind in ["directory", "link"] {
        for (at, exists) in [(0, true), (3, false)] {
            let place = Place::new();
            place.run_with(&["append", "t", "--quiet"], b"a\nb\nc\n").exits(0);
            let path = place.store().join("t-0").join(segment(at));
            if exists {
                fs::rename(&path, place.path("away")).unwrap();
            }
            if kind == "directory" {
                fs::create_dir(&path).unwrap();
            } else {
                std::os::unix::fs::symlink("elsewhere", &path).unwrap();
            }
            let what = format!("a {kind} at {at}");
            let fsck = place.run(&["fsck"]).exits(2);
            assert!(fsck.stdout.contains("cannot be opened"), "{what}: {}", fsck.stdout);
            tail(&place).exits(2);
            place.run(&["export", "t", "--to", "-", "--format", "json"]).exits(2);
            place.run(&["stat"]).exits(2);
            place.run(&["repair", "--dry-run"]).exits(2);
            let append = place.run_with(&["append", "t", "--quiet"], b"z\n");
            assert!(append.code != Some(0) && append.stderr.contains("could not be opened"), "{}", append.stderr);
            place.run(&["repair"]).exits(2);
            let removed = if kind == "directory" { fs::remove_dir(&path) } else { fs::remove_file(&path) };
            removed.unwrap();
            if exists {
                fs::rename(place.path("away"), &path).unwrap();
            }
            assert_eq!(offsets(&tail(&place).exits(0)), [0, 1, 2], "{what}");
        }
    }
}

/// The offsets of the only copy of records are given to no others, and it fits in when it gets its name.
#[test]
fn the_offsets_of_a_swap_file_are_not_given_out() {
    let place = Place::new();
    // It overlaps the segment before: an open leaves it as it is.
    let swap = format!("{}.swap", segment(1));
    put(&place, "t-0", &segment(0), &batch(0, &["a", "b"]));
    put(&place, "t-0", &swap, &[batch(1, &["b"]), batch(2, &["c", "d"]), batch(4, &["e", "f"])].concat());
    for (line, offset) in [(b"g\n", 6), (b"h\n", 7)] {
        place.run_with(&["append", "t", "--quiet"], line).exits(0);
        let read = tail(&place).exits(2);
        assert_eq!(offsets(&read).last(), Some(&offset));
        assert!(read.stderr.contains(&swap) && read.stderr.contains("offsets 2 to 5"), "{}", read.stderr);
    }
    let dir = place.store().join("t-0");
    fs::rename(dir.join(&swap), dir.join(segment(1))).unwrap();
    assert_eq!(offsets(&tail(&place).exits(0)), (0..8).collect::<Vec<_>>());
}

#[test]
fn what_is_said_of_a_swap_file_is_true() {
    let advice = format!("rename it to t-0/{}", segment(2));
    let mut damaged = batch(2, &["c", "d"]);
    *damaged.last_mut().unwrap() ^= 1;
    let cases: [(i64, Vec<u8>, &str); 3] = [
        (2, [batch(2, &["c", "d"]), batch(4, &["e"])].concat(), &advice),
        (2, damaged, "damaged where offset 2 was due, which no segment has"),
        (
            0,
            [batch(0, &["a", "b"]), batch(2, &["c", "d"])].concat(),
            "it holds offsets 2 to 3, which no segment has: put",
        ),
    ];
    for (base, bytes, said) in cases {
        let place = Place::new();
        put(&place, "t-0", &segment(0), &batch(0, &["a", "b"]));
        put(&place, "t-0", &segment(4), &batch(4, &["e"]));
        put(&place, "t-0", &format!("{}.swap", segment(base)), &bytes);
        for done in [place.run(&["fsck"]).exits(2), place.run(&["repair", "--dry-run"]).exits(2)] {
            assert!(done.stdout.contains(said) && !done.stdout.contains("hold all"), "{said}: {}", done.stdout);
        }
    }
    // One that fits is the next open's to put in its place, and a repair opens the store.
    let place = Place::new();
    put(&place, "t-0", &segment(0), &batch(0, &["a", "b"]));
    put(&place, "t-0", &format!("{}.swap", segment(2)), &batch(2, &["c", "d"]));
    for done in [place.run(&["fsck"]).exits(2), place.run(&["repair", "--dry-run"]).exits(0)] {
        let said = format!("the next open for writing renames it to t-0/{}", segment(2));
        assert!(done.stdout.contains(&said), "{}", done.stdout);
    }
    let place = Place::new();
    place.run_with(&["append", "u", "--quiet"], b"x\n").exits(0);
    let swap = format!("{}.swap", segment(0));
    put(&place, "t-0", &swap, &batch(0, &["a"]));
    assert!(place.run(&["fsck"]).exits(2).stdout.contains(&swap));
    for arguments in [&["append", "t"][..], &["tail", "t", "--no-follow"]] {
        let done = place.run_with(arguments, b"y\n").exits(1);
        assert!(done.stderr.contains(&swap) && done.stderr.to_lowercase().contains("rename it"), "{}", done.stderr);
    }
}

/// Damage in one of two segments that overlap takes nothing that the other one holds.
#[test]
fn what_another_segment_holds_is_not_lost() {
    let place = Place::new();
    let singles = |from: i64, to: i64| (from..to).flat_map(|base| batch(base, &["v"])).collect::<Vec<u8>>();
    put(&place, "t-0", &segment(0), &singles(0, 10));
    let mut second = singles(5, 11);
    let size = batch(5, &["v"]).len();
    second[2 * size - 1] ^= 0xff;
    put(&place, "t-0", &segment(5), &second);
    let (all, with_new): (Vec<i64>, Vec<i64>) = ((0..11).collect(), (0..12).collect());
    assert_eq!(offsets(&tail(&place).exits(0)), all);
    let fsck = place.run(&["fsck"]).exits(1);
    assert!(fsck.stdout.contains("another segment holds these offsets"), "{}", fsck.stdout);
    let to = place.path("broker");
    place.run(&["export", "t", "--to", to.to_str().unwrap(), "--for-broker"]).exits(0);
    let append = place.run_with(&["append", "t", "--quiet"], b"new\n").exits(0);
    assert!(!append.stderr.contains("LOST"), "{}", append.stderr);
    assert_eq!(offsets(&tail(&place).exits(0)), with_new);
    place.run(&["repair"]).exits(0);
    assert_eq!(offsets(&tail(&place).exits(0)), with_new);
}

/// Zeros where the first batch of a segment was are damage to `fsck` as to a reader, also once another one follows.
#[test]
fn zeros_in_front_of_a_hole_are_no_reserved_room() {
    let place = Place::new();
    put(&place, "t-0", &segment(0), &batch(0, &["a", "b"]));
    put(&place, "t-0", &segment(32), &batch(32, &["c", "d"]));
    place.run_with(&["append", "u", "--quiet"], b"x\n").exits(0);
    fs::write(place.store().join("t-0").join(segment(32)), [0; 5]).unwrap();
    place.run_with(&["append", "t", "--quiet"], b"new\n").exits(0);
    let to = place.path("broker");
    let broker = place.run(&["export", "t", "--to", to.to_str().unwrap(), "--for-broker"]).exits(2);
    let read = tail(&place).exits(2);
    assert_eq!(offsets(&read), [0, 1, 34]);
    let fsck = place.run(&["fsck"]).exits(2);
    for text in [&broker.stderr, &read.stderr, &fsck.stdout] {
        assert!(text.contains("offsets 32 to 33 lost"), "{text}");
    }
    place.run(&["repair"]).exits(0);
    assert_eq!(offsets(&tail(&place).exits(0)), [0, 1, 34]);
}

/// A log at the greatest offsets, which a checkpoint cannot say, costs the store no clean close.
#[test]
fn a_log_at_the_greatest_offsets_closes_cleanly() {
    for base in [i64::MAX - 1, i64::MAX - (1 << 32), i64::MAX - (1 << 31)] {
        let place = Place::new();
        put(&place, "far-0", &segment(base), &batch(base, &["v"]));
        place.run_with(&["append", "t", "--quiet"], b"x\n").exits(0);
        let open = place.run_with(&["append", "t", "--quiet"], b"y\n").exits(0);
        assert!(open.stderr.contains("closed cleanly") && !open.stderr.contains("not closed"), "{}", open.stderr);
        place.run(&["fsck"]).exits(0);
        place.run(&["repair"]).exits(0);
        let read = place.run(&["tail", "far", "--from-beginning", "--no-follow", "--json"]).exits(0);
        assert_eq!(offsets(&read), [base]);
        let full = place.run_with(&["append", "far"], b"z\n").exits(1);
        assert!(full.stderr.contains("greatest offset"), "{}", full.stderr);
    }
}

/// In the greatest epoch that a checkpoint says, the writer goes on as long as nothing of its history can be gone.
#[test]
fn the_greatest_leader_epoch_is_not_passed() {
    let place = Place::new();
    let mut bytes = [batch(0, &["a"]), batch(1, &["b"]), batch(2, &["c"])].concat();
    let size = bytes.len() / 3;
    for at in [0, size, 2 * size] {
        bytes[at + 12..at + 16].copy_from_slice(&(i32::MAX / 2).to_be_bytes());
    }
    put(&place, "t-0", &segment(0), &bytes);
    for _ in 0..2 {
        let mut append = place.start(&["append", "t"]);
        append.write("x\n");
        append.line();
        append.kill_9();
        place.run_with(&["append", "t", "--quiet"], b"y\n").exits(0);
        place.run(&["fsck"]).exits(0);
    }
    // Something is cut: what would come now could not be distinguished from it.
    let mut append = place.start(&["append", "t"]);
    append.write("x\n");
    append.line();
    append.kill_9();
    let path = place.store().join("t-0").join(segment(0));
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.iter().rposition(|&byte| byte == b'x').unwrap();
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let append = place.run_with(&["append", "t", "--quiet"], b"z\n");
    assert!(append.code != Some(0) && append.stderr.contains("leader epoch"), "{}", append.stderr);
    assert_eq!(offsets(&tail(&place).exits(0)), (0..7).collect::<Vec<_>>());
}

/// Reserved room is no part of what is cut, and a last byte that is zero is.
#[test]
fn the_bytes_that_are_cut_are_counted_alike() {
    let place = Place::new();
    let size = killed_writer(&place, 3);
    place.flip(&format!("t-0/{}", segment(0)), 2 * size + 70);
    let fsck = place.run(&["fsck"]).exits(2);
    assert!(fsck.stdout.contains(&format!("keeps the {size} bytes behind aside")), "{}", fsck.stdout);
    let append = place.run_with(&["append", "t", "--quiet"], b"later\n").exits(0);
    assert!(append.stderr.contains(&format!("t-0: {size} bytes behind offset 2")), "{}", append.stderr);
    let cut = place.store().join("t-0").join(format!("{:020}-{}-0.cut", 0, 2 * size));
    assert_eq!(fs::metadata(cut).unwrap().len(), size as u64);
}

#[test]
fn markers_of_transactions_are_not_counted_as_records() {
    let place = Place::new();
    // Attribute bits 4 and 5: a control batch of a transaction.
    let marker = with(batch(2, &["marker"]), 21, &0x30_i16.to_be_bytes());
    put(&place, "t-0", &segment(0), &[batch(0, &["a", "b"]), marker, batch(3, &["c"])].concat());
    let seen = tail(&place).exits(0).lines().len();
    let fsck = place.run(&["fsck", "--json"]).exits(1);
    assert_eq!((seen, fsck.json()[0]["logs"][0]["records"].as_u64()), (3, Some(3)));
    let to = place.path("broker");
    let broker = place.run(&["export", "t", "--to", to.to_str().unwrap(), "--for-broker"]).exits(0);
    assert!(broker.stderr.contains("3 records"), "{}", broker.stderr);
}
