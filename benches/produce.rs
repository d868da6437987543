//! Sending: `send` of a producer, at `acks=1` and `acks=all`, next to `append_batch` of the same records in the same
//! run.
//!
//! One iteration is 100 records; the last flush is part of the figure. `append_batch` is at `Os` next to `acks=1`, and
//! at `Sync` next to `acks=all`, which flushes once for all batches that came during the flush before.

#![allow(clippy::cast_precision_loss)] // Figures of `common`: their 53rd bit does not matter.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use edgelog::clients::{Producer, ProducerRecord};
use edgelog::{Durability, NewTopic, Store};

use common::{BATCH, Dir, ROOMY, STORE_BYTES_MAX, TOPIC, Values, batch_size, fill, on_fresh_stores, options};

const SENT_SIZES: [(usize, &str); 2] = [(100, "100B"), (1 << 10, "1KiB")];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("produce");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(400)).measurement_time(Duration::from_millis(1800));
    group.throughput(Throughput::Elements(BATCH as u64));
    for (acks, durability) in [("1", Durability::Os), ("all", Durability::Sync)] {
        for (len, name) in SENT_SIZES {
            let mut values = Values::new(len);
            group.bench_function(format!("append_batch/acks={acks}/{name}"), |bencher| {
                bencher.iter_custom(|count| {
                    on_fresh_stores(ROOMY, count, batch_size(len), |log, now| {
                        let begun = Instant::now();
                        let mut batch = log.batch();
                        for _ in 0..now {
                            fill(&mut batch, &mut values);
                            log.append_batch_with(&mut batch, durability).expect("appends");
                        }
                        begun.elapsed()
                    })
                });
            });
            group.bench_function(format!("send/acks={acks}/{name}"), |bencher| {
                bencher.iter_custom(|count| sends(acks, len, &mut values, count));
            });
        }
    }
    group.finish();
    criterion.final_summary();
}

/// Sends `count` hundreds of records, each part of them to a store of its own.
fn sends(acks: &str, len: usize, values: &mut Values, count: u64) -> Duration {
    let (mut left, mut total) = (count, Duration::ZERO);
    while left > 0 {
        let now = left.min(STORE_BYTES_MAX / batch_size(len));
        let dir = Dir::new();
        let store: Arc<Store> = Arc::new(options(ROOMY).open(dir.path()).expect("a new store"));
        store.create_topic(&NewTopic::new(TOPIC)).expect("a new topic");
        let producer = Producer::builder(&store).set("acks", acks).expect("a key").open().expect("a producer");
        let begun = Instant::now();
        for _ in 0..now * BATCH as u64 {
            drop(producer.send(ProducerRecord::new(TOPIC, values.next())).expect("is taken"));
        }
        producer.flush().expect("flushes");
        total += begun.elapsed();
        producer.close().expect("closes");
        left -= now;
    }
    total
}
