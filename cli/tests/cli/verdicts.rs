//! Defends that the commands agree: what one of them says of a log (ranges, words, exit code) the others say too.
//! Segments are made by hand, as a broker or damage would leave them.

use std::fs;

use edgelog::core::{RecordBatchBuilder, crc32c, stamp_base};

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
        builder.append(timestamp, None, Some(value.as_bytes()), &[]).unwrap();
    }
    let bytes = builder.finish();
    stamp_base(bytes, base_offset, 0);
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
        let lost = format!("offsets 0 to {last} lost: the CRC holds, and the records cannot be read: ");
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
