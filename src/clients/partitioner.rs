//! Which partition a record without one goes to.
//!
//! A record with a key goes where its key's hash says, as every client of Kafka computes it. Records without a key stay
//! with one partition until about `batch.size` bytes went there, and then move to another one by chance (KIP-794): so
//! they fill batches. Kafka's adaptive choice, away from slow brokers, has nothing to choose between here.

use std::hash::{BuildHasher, RandomState};

use edgelog_core::partition_for_key;

use crate::sync::{AtomicU64, Ordering};

/// How the hash of a key is computed: `partitioner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioner {
    /// `MurmurHash2`, as Java's client and librdkafka's `murmur2_random`. An empty key is a key.
    Murmur2,
    /// CRC-32, as librdkafka's default. An empty key is none.
    ConsistentRandom,
}

impl Partitioner {
    /// The partition of `partitions` that a record with this key goes to; `None` where the key does not say.
    pub fn partition(self, key: &[u8], partitions: u32) -> Option<u32> {
        match self {
            Partitioner::Murmur2 => Some(partition_for_key(key, partitions)),
            Partitioner::ConsistentRandom if key.is_empty() => None,
            Partitioner::ConsistentRandom => Some(crc32fast::hash(key) % partitions.max(1)),
        }
    }
}

/// Where the records of one topic go that have no key.
#[derive(Debug)]
pub(super) struct Sticky {
    /// Which of the partitions that are there, in the upper half; bytes that went there since, in the lower.
    current: AtomicU64,
    /// What the next choice is made of.
    seed: AtomicU64,
}

impl Sticky {
    pub(super) fn new(choices: usize) -> Sticky {
        let seed = if cfg!(loom) { 1 } else { RandomState::new().hash_one(0) };
        let sticky = Sticky { current: AtomicU64::new(0), seed: AtomicU64::new(seed | 1) };
        let first = sticky.random() % choices.max(1) as u64;
        sticky.current.store(first << 32, Ordering::Relaxed);
        sticky
    }

    /// Which of the choices is the current one.
    #[inline]
    pub(super) fn current(&self) -> usize {
        (self.current.load(Ordering::Relaxed) >> 32) as usize
    }

    /// So many bytes went to `choice` of so many; with `batch_size` of them it is another one's turn.
    #[inline]
    pub(super) fn sent(&self, choice: usize, choices: usize, bytes: usize, batch_size: usize) {
        if choices <= 1 {
            return;
        }
        let now = self.current.load(Ordering::Relaxed);
        if (now >> 32) as usize != choice {
            return; // another thread has moved on
        }
        let sum = (now & u64::from(u32::MAX)) + bytes as u64;
        let next = if sum < batch_size as u64 {
            now + bytes as u64
        } else {
            // Another one than now, each with the same chance.
            let step = 1 + self.random() % (choices as u64 - 1);
            ((choice as u64 + step) % choices as u64) << 32
        };
        // What a second thread counted meanwhile is lost: about so many bytes, says the promise.
        let _ = self.current.compare_exchange(now, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Xorshift: good enough to spread batches.
    fn random(&self) -> u64 {
        let mut seed = self.seed.load(Ordering::Relaxed);
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        self.seed.store(seed, Ordering::Relaxed);
        seed >> 11
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From librdkafka's own test of its partitioners: a key, its CRC-32, and its `MurmurHash2` without the sign.
    const GOLDEN: [(&str, u32, u32); 3] = [
        ("23456", 0xb1b4_51d7, 0x058d_780f),
        ("this is another string with more length to it perhaps", 0xb015_0df7, 0x4f77_03da),
        ("hejsan", 0xd077_037e, 0x5ec1_9395),
    ];

    #[test]
    fn keys_go_where_other_clients_send_them() {
        for partitions in [1, 7, 17, 10_000] {
            for (key, crc, murmur) in GOLDEN {
                let key = key.as_bytes();
                let both = [Partitioner::ConsistentRandom, Partitioner::Murmur2].map(|p| p.partition(key, partitions));
                assert_eq!(both, [Some(crc % partitions), Some(murmur % partitions)], "{key:?} of {partitions}");
            }
            assert_eq!(Partitioner::Murmur2.partition(b"", partitions), Some(0x106e_08d9 % partitions));
            assert_eq!(Partitioner::ConsistentRandom.partition(b"", partitions), None);
        }
    }

    #[test]
    fn records_without_a_key_stay_for_a_batch_and_reach_every_partition() {
        let sticky = Sticky::new(5);
        let mut seen = [0; 5];
        for _ in 0..200 {
            let choice = sticky.current();
            seen[choice] += 1;
            for _ in 0..9 {
                sticky.sent(choice, 5, 100, 1000);
                assert_eq!(sticky.current(), choice, "before the batch is full");
            }
            sticky.sent(choice, 5, 100, 1000);
            assert_ne!(sticky.current(), choice, "after it");
        }
        assert!(seen.iter().all(|times| *times >= 10), "{seen:?}");
        let alone = Sticky::new(1);
        alone.sent(0, 1, 5000, 1000);
        assert_eq!(alone.current(), 0);
    }
}
