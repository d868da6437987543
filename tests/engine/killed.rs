//! A writer that is killed with SIGKILL, some hundred times in the same store: all that it had acknowledged is there,
//! at the offsets it named, and nothing that it did not append.
//!
//! The writer is this test binary again, as a child with several threads. It reports each acknowledgement through a
//! pipe; the parent kills it after a number of them, and a turn of a loop, that the seed chooses: while it opens the
//! store, appends, rolls, flushes or reports. `EDGELOG_KILL_ROUNDS` (200 if it is not set) and `EDGELOG_KILL_SEED`
//! change the run. A kill leaves the page cache: what a power cut takes is `tests/crash/`'s to search for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use edgelog::{Durability, NewRecord, NewTopic, Offset, OffsetSpec, Store};
use edgelog_testkit::{Random, TempDir, run_again};

const TEST: &str = "killed::what_was_acknowledged_outlives_the_process";
const THREADS: u64 = 3;
const PARTITIONS: u32 = 2;
const RECORD_MAX: u64 = 900;

fn number(key: &str, default: u64) -> u64 {
    std::env::var(key).ok().map_or(default, |text| text.parse().unwrap())
}

/// One record of the run: the `seq`th that this thread appended to this partition in this round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    round: u64,
    thread: u64,
    seq: u64,
}

impl Stamp {
    fn value(self) -> Vec<u8> {
        let mut value = format!("{} {} {} ", self.round, self.thread, self.seq).into_bytes();
        let len = (self.round * 31 + self.thread * 17 + self.seq * 101) % RECORD_MAX;
        value.resize(value.len() + len as usize, b'.');
        value
    }

    fn of(value: &[u8]) -> Option<Stamp> {
        let text = std::str::from_utf8(value).ok()?;
        let mut words = text.split(' ').map_while(|word| word.parse().ok());
        let stamp = Stamp { round: words.next()?, thread: words.next()?, seq: words.next()? };
        (stamp.value() == value).then_some(stamp)
    }
}

fn open(dir: &Path, round: u64) -> Store {
    let mode = ["auto", "file", "map"][(round % 3) as usize];
    Store::options().set("edgelog.storage", mode).unwrap().open(dir).unwrap()
}

/// The child: appends from several threads until it is killed.
fn write(dir: &Path, round: u64) {
    let store = open(dir, round);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let logs: Vec<_> = (0..PARTITIONS).map(|partition| store.log("t", partition).unwrap()).collect();
            scope.spawn(move || {
                let mut random = Random(round << 8 | thread);
                let mut seqs = [0; PARTITIONS as usize];
                loop {
                    let partition = random.below(PARTITIONS as usize);
                    let durability = match random.below(8) {
                        0 => Durability::Sync,
                        1 => Durability::Interval,
                        _ => Durability::Os,
                    };
                    let stamp = Stamp { round, thread, seq: seqs[partition] };
                    seqs[partition] += 1;
                    let info = logs[partition].append_with(NewRecord::value(&stamp.value()), durability).unwrap();
                    let (offset, epoch) = (info.base_offset, info.leader_epoch);
                    // The last word shows that the line is whole, and not cut by the kill.
                    let line = format!("\nack {partition} {offset} {epoch} {thread} {} .\n", stamp.seq);
                    let mut out = std::io::stdout().lock();
                    if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
                        return; // the parent is gone
                    }
                }
            });
        }
    });
}

/// An acknowledgement as the child reported it.
#[derive(Debug)]
struct Ack {
    partition: usize,
    offset: i64,
    epoch: i32,
    stamp: Stamp,
}

fn ack(line: &str, round: u64) -> Option<Ack> {
    let mut words = line.strip_prefix("ack ")?.strip_suffix(" .")?.split(' ');
    let mut word = || words.next()?.parse::<u64>().ok();
    let (partition, offset, epoch) = (word()? as usize, word()? as i64, word()? as i32);
    Some(Ack { partition, offset, epoch, stamp: Stamp { round, thread: word()?, seq: word()? } })
}

/// What one partition holds: each offset's record and the epoch of its batch.
type Held = Vec<(Stamp, i32)>;

/// Reads `from` on: what comes is contiguous, and each record one that some round's writer made.
fn read(store: &Store, partition: usize, from: i64) -> Held {
    let log = store.log("t", partition as u32).unwrap();
    let mut reader = log.reader(OffsetSpec::Offset(Offset(from))).unwrap();
    let (mut held, mut next) = (Vec::new(), from);
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            assert_eq!(record.offset, next, "partition {partition}");
            let stamp = Stamp::of(record.value.unwrap_or_default());
            let stamp = stamp.unwrap_or_else(|| panic!("partition {partition} offset {next} holds foreign bytes"));
            held.push((stamp, batch.leader_epoch().0));
            next += 1;
        }
    }
    assert_eq!(next, log.offsets().log_end_offset.0, "partition {partition}");
    held
}

#[test]
fn what_was_acknowledged_outlives_the_process() {
    if let (Some(dir), Ok(round)) = (std::env::var_os("EDGELOG_TEST_DIR"), std::env::var("EDGELOG_TEST_ROUND")) {
        return write(Path::new(&dir), round.parse().unwrap());
    }
    let (rounds, seed) = (number("EDGELOG_KILL_ROUNDS", 200), number("EDGELOG_KILL_SEED", 1));
    println!("{rounds} kills, EDGELOG_KILL_SEED={seed}");
    let dir = TempDir::new();
    let store = open(dir.path(), 0);
    let topic = NewTopic::new("t").partitions(PARTITIONS).config("segment.bytes", "16384");
    let topic = topic.config("flush.messages", "1000000").config("flush.ms", "3").config("retention.ms", "-1");
    store.create_topic(&topic).unwrap();
    store.close().unwrap();

    let mut random = Random(seed);
    let mut held: [Held; PARTITIONS as usize] = Default::default();
    let (mut acks_seen, mut unclean) = (0, 0);
    for round in 1..=rounds {
        let place = format!("EDGELOG_KILL_SEED={seed}, round {round}");
        let number = round.to_string();
        let environment = [("EDGELOG_TEST_DIR", dir.path().as_os_str()), ("EDGELOG_TEST_ROUND", OsStr::new(&number))];
        let child = run_again(TEST, &environment);
        let mut lines = child.lines();
        let mut acks: Vec<Ack> = Vec::new();
        // Now and then while it still starts, opens and recovers.
        let wanted = if random.one_in(6) { 0 } else { 1 + random.below(80) };
        while acks.len() < wanted {
            let line = lines.next().unwrap_or_else(|| panic!("{place}: the writer ended by itself"));
            acks.extend(ack(&line, round));
        }
        for _ in 0..random.below(if wanted == 0 { 3_000_000 } else { 30_000 }) {
            std::hint::spin_loop();
        }
        child.kill();
        // What it reported before the kill counts, though it was not read yet.
        acks.extend(lines.filter_map(|line| ack(&line, round)));

        let store = open(dir.path(), round + 1);
        let report = store.recovery_report();
        assert!(acks.is_empty() || !report.clean, "{place}: {report}");
        unclean += u64::from(!report.clean);
        for (partition, held) in held.iter_mut().enumerate() {
            let known = held.len();
            // All of it now and then, and what is new each time.
            let from = if round % 20 == 0 || round == rounds { 0 } else { known };
            let mut now = read(&store, partition, from as i64);
            if from == 0 {
                assert!(now.len() >= known && now[..known] == held[..], "{place}: partition {partition} has changed");
                now.drain(..known);
            }
            // Each thread's records are its first ones, in order: it appended none before the one before had returned.
            let mut seqs: BTreeMap<u64, u64> = BTreeMap::new();
            for (stamp, _) in &now {
                let seq = seqs.entry(stamp.thread).or_default();
                assert_eq!((stamp.round, stamp.seq), (round, *seq), "{place}: partition {partition}, {stamp:?}");
                *seq += 1;
            }
            held.extend(now);
        }
        for ack in &acks {
            let found = held[ack.partition].get(ack.offset as usize);
            assert_eq!(found, Some(&(ack.stamp, ack.epoch)), "{place}: acknowledged and not there: {ack:?}");
        }
        acks_seen += acks.len();
        store.close().unwrap();
    }
    let records: usize = held.iter().map(Vec::len).sum();
    println!("{rounds} kills, {unclean} met the store in use, {acks_seen} acknowledgements, {records} records");
    assert!(acks_seen as u64 > rounds * 10 && unclean > rounds / 2, "the kills met a writer at work");
}
