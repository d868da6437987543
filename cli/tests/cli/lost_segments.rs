//! Defends that records whose segment is gone, or cut short, are said to be lost by every command: a reader meets no
//! damage there, and the checkpoint, or the log's own contiguity, knows better.

use std::fs;

use crate::numbered;
use crate::support::{Done, Place};

/// Batches of ten records, two in each segment.
fn batches(count: u32) -> Place {
    let place = Place::new();
    let keys = ["--config", "segment.bytes=4096", "--config", "retention.ms=-1"];
    place.run(&[&["topics", "create", "t"], &keys[..]].concat()).exits(0);
    for batch in 0..count {
        let lines = numbered(10, |n| format!("{:02} {}", batch * 10 + n, "x".repeat(150)));
        place.run_with(&["append", "t", "--quiet"], lines.as_bytes()).exits(0);
    }
    assert_eq!(place.segments("t-0").len() as u32, count / 2);
    place
}

/// Cuts the last batch off a segment.
fn cut_last_batch(place: &Place, file: &str) {
    let path = place.store().join(file);
    let bytes = fs::read(&path).unwrap();
    let (mut at, mut last) = (0, 0);
    while let Some(length) = bytes.get(at + 8..at + 12) {
        last = at;
        at += 12 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
    }
    fs::write(&path, &bytes[..last]).unwrap();
}

fn remove(place: &Place, file: &str) {
    fs::remove_file(place.store().join(file)).unwrap();
}

fn tail(place: &Place) -> Done {
    place.run(&["tail", "t", "--from-beginning", "--no-follow", "--raw"])
}

fn numbers(done: &Done) -> Vec<u32> {
    done.lines().iter().map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect()
}

/// Every command names these offsets as lost and exits 2, and those that print records print all others.
#[track_caller]
fn all_say(place: &Place, lost: &str, left: &[u32]) {
    let json = place.run(&["export", "t", "--to", "-", "--format", "json"]).exits(2);
    assert_eq!(json.lines().len(), left.len());
    let read = tail(place).exits(2);
    assert_eq!(numbers(&read), left);
    let to = place.path("broker");
    let broker = place.run(&["export", "t", "--to", to.to_str().unwrap(), "--for-broker"]).exits(2);
    fs::remove_dir_all(to).unwrap();
    let stat = place.run(&["stat"]).exits(2);
    for done in [&read, &json, &broker, &stat] {
        assert!(done.stderr.contains(lost), "{lost}: {}", done.stderr);
    }
    let fsck = place.run(&["fsck"]).exits(2);
    assert!(fsck.stdout.contains(lost), "{lost}: {}", fsck.stdout);
}

#[test]
fn the_first_segment() {
    let place = batches(6);
    remove(&place, &place.segments("t-0")[0]);
    all_say(&place, "t-0: offsets 0 to 19 lost", &(20..60).collect::<Vec<_>>());
    // What was asked for is among it.
    let read = place.run(&["tail", "t", "--offset", "5", "-n", "2", "--no-follow", "--raw"]).exits(2);
    assert_eq!((numbers(&read), read.stderr.contains("offsets 0 to 19 lost")), (vec![20, 21], true));
    let export = ["export", "t", "--to", "-", "--format", "json", "--from", "30"];
    assert_eq!(place.run(&export).exits(0).lines().len(), 30);
}

#[test]
fn a_segment_between_others() {
    let place = batches(6);
    remove(&place, &place.segments("t-0")[1]);
    all_say(&place, "offsets 20 to 39 lost", &(0..20).chain(40..60).collect::<Vec<_>>());
}

#[test]
fn the_end_of_a_segment_between_others() {
    let place = batches(6);
    cut_last_batch(&place, &place.segments("t-0")[1]);
    all_say(&place, "offsets 30 to 39 lost", &(0..30).chain(40..60).collect::<Vec<_>>());
}

#[test]
fn the_last_segment_and_its_end() {
    let place = batches(6);
    let last = place.segments("t-0")[2].clone();
    for (until, harm) in [(50, cut_last_batch as fn(&Place, &str)), (40, remove)] {
        harm(&place, &last);
        all_say(&place, &format!("offsets {until} to 59 lost"), &(0..until).collect::<Vec<_>>());
        // The last records are the last ones that are there.
        let read = place.run(&["tail", "t", "--last", "2", "--no-follow", "--raw"]).exits(2);
        assert_eq!(numbers(&read), [until - 2, until - 1]);
    }
}

#[test]
fn all_files_of_a_log() {
    let place = batches(6);
    for entry in fs::read_dir(place.store().join("t-0")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    all_say(&place, "t-0", &[]);
    let export = place.run(&["export", "t", "--to", "-", "--format", "csv"]).exits(2);
    assert!(export.stderr.contains("t-0 cannot be read: its segment files are gone"), "{}", export.stderr);
}

#[test]
fn the_directory_of_a_partition() {
    let place = Place::new();
    place.run(&["topics", "create", "t", "--partitions", "2"]).exits(0);
    for partition in ["0", "1"] {
        place.run_with(&["append", "t", "-p", partition, "--quiet"], b"1 a\n").exits(0);
    }
    fs::remove_dir_all(place.store().join("t-1")).unwrap();
    all_say(&place, "t-1", &[1]);
}

/// A log that was written here has no holes: without a checkpoint that says so, too.
#[test]
fn a_hole_and_the_checkpoint() {
    let lose: [fn(&Place); 2] = [
        |place| remove(place, "edgelog.checkpoint"),
        |place| {
            let path = place.store().join("edgelog.checkpoint");
            let len = fs::metadata(&path).unwrap().len();
            fs::write(path, vec![0xff; len as usize]).unwrap();
        },
    ];
    for (at, lost) in [(1, 20), (2, 40)] {
        for lose in lose {
            let place = batches(8);
            remove(&place, &place.segments("t-0")[at]);
            lose(&place);
            let named = format!("offsets {lost} to {} lost", lost + 19);
            let left: Vec<u32> = (0..lost).chain(lost + 20..80).collect();
            all_say(&place, &named, &left);
            // An open keeps it visible, and what stands behind it readable.
            let open = place.run_with(&["append", "u", "--quiet"], b"x\n").exits(0);
            assert!(open.stderr.contains(&named), "{}", open.stderr);
            all_say(&place, &named, &left);
        }
    }
}
