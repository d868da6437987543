//! Random polls, commits, seeks and reopenings, against a model of two numbers a partition.

use std::collections::BTreeMap;

use super::*;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What is to be expected of one partition: its records are their own offsets.
#[derive(Debug, Clone, Copy, Default)]
struct Expected {
    end: i64,
    position: i64,
    committed: Option<i64>,
    is_paused: bool,
}

const PARTITIONS: u32 = 3;

struct World {
    storage: MemoryStorage,
    store: Arc<Store>,
    consumer: Consumer,
    expected: BTreeMap<u32, Expected>,
    random: Random,
}

impl World {
    fn new(seed: u64) -> World {
        let (storage, store) = store_with(&[("t", PARTITIONS)]);
        let consumer = World::consumer(&store, 1 + seed % 40);
        let expected = (0..PARTITIONS).map(|partition| (partition, Expected::default())).collect();
        World { storage, store, consumer, expected, random: Random(seed + 1) }
    }

    fn consumer(store: &Arc<Store>, max: u64) -> Consumer {
        let options = options("g").set("max.poll.records", &max.to_string()).unwrap();
        let mut consumer = options.open(store).unwrap();
        consumer.assign(&(0..PARTITIONS).map(|partition| tp("t", partition)).collect::<Vec<_>>()).unwrap();
        consumer
    }

    fn step(&mut self) {
        let partition = self.random.below(u64::from(PARTITIONS)) as u32;
        let name = tp("t", partition);
        let one = self.expected.get_mut(&partition).unwrap();
        match self.random.below(20) {
            0..5 => {
                let count = 1 + self.random.below(60) as i64;
                append(&self.store, "t", partition, one.end as u32..(one.end + count) as u32);
                one.end += count;
            }
            5..12 => self.poll(),
            12 | 13 => {
                self.consumer.commit_sync().unwrap();
                self.expected.values_mut().for_each(|one| one.committed = Some(one.position));
            }
            14 => {
                let offset = self.random.below(one.end as u64 + 1) as i64;
                self.consumer.commit_offsets(&[(name, OffsetAndMetadata::new(Offset(offset)))]).unwrap();
                one.committed = Some(offset);
            }
            15 | 16 => {
                let offset = self.random.below(one.end as u64 + 1) as i64;
                self.consumer.seek(&name, OffsetSpec::Offset(Offset(offset))).unwrap();
                one.position = offset;
            }
            17 => {
                one.is_paused = !one.is_paused;
                if one.is_paused { self.consumer.pause(&[name]) } else { self.consumer.resume(&[name]) }.unwrap();
            }
            _ => self.reopen(),
        }
    }

    fn poll(&mut self) {
        let records = self.consumer.poll(Duration::ZERO).unwrap();
        let read = self.random.below(4);
        for (n, record) in records.iter().enumerate() {
            // Sometimes not all of it is read.
            if read == 0 && n == 2 {
                break;
            }
            let record = record.unwrap();
            assert_eq!(record.value, Some(record.offset.0.to_string().as_bytes()));
        }
        let mut by_partition: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
        for record in &records {
            let record = record.unwrap();
            by_partition.entry(record.partition()).or_default().push(record.offset.0);
        }
        for (partition, offsets) in by_partition {
            let one = self.expected.get_mut(&partition).unwrap();
            let until = one.position + offsets.len() as i64;
            assert_eq!(offsets, (one.position..until).collect::<Vec<_>>(), "partition {partition}");
            assert!(!one.is_paused && until <= one.end);
            one.position = until;
        }
        if records.is_empty() {
            assert!(self.expected.values().all(|one| one.is_paused || one.position == one.end));
        }
    }

    fn reopen(&mut self) {
        let max = 1 + self.random.below(40);
        if self.random.below(2) == 0 {
            let nothing = Consumer::options().open(&self.store).unwrap();
            drop(std::mem::replace(&mut self.consumer, nothing));
            drop(std::mem::replace(&mut self.store, open(&MemoryStorage::new())));
            // The last handle of the store went with the consumer that had none of a group.
            self.consumer = Consumer::options().open(&self.store).unwrap();
            self.store = open(&self.storage);
        }
        let nothing = Consumer::options().open(&self.store).unwrap();
        drop(std::mem::replace(&mut self.consumer, nothing));
        self.consumer = World::consumer(&self.store, max);
        for one in self.expected.values_mut() {
            (one.position, one.is_paused) = (one.committed.unwrap_or(0), false);
        }
    }

    fn check(&self) {
        for (&partition, one) in &self.expected {
            let name = tp("t", partition);
            assert_eq!(self.consumer.position(&name).unwrap().offset, Offset(one.position));
            assert_eq!(self.consumer.committed(&name).unwrap().map(|at| at.offset.0), one.committed);
            assert_eq!(self.consumer.lag(&name).unwrap(), (one.end - one.position) as u64);
            let log = self.store.log("t", partition).unwrap();
            let held = log.held_from().unwrap().expect("it is read by a group");
            assert!(one.committed.is_none_or(|committed| held <= committed), "the hold is ahead");
        }
    }
}

#[test]
fn random_histories_are_those_of_the_model() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..80 {
            world.step();
            world.check();
        }
    }
}
