//! Appending from Rust: what `append.c` does from C, step by step, so that the two can be compared
//! (`ffi/benches/run`). Prints nanoseconds per record, the best and the middle of rounds.
//!
//!     append DIRECTORY ROUNDS [FIGURE]

use std::time::Instant;

use edgelog::{BatchBuilder, Durability, Log, NewRecord, NewTopic, Result, Store};

const RECORDS: usize = 20_000;
const BATCH: usize = 100;

/// From C no length is known to the compiler; nor is it to Rust's where a record comes from somewhere.
fn record_of(value: &[u8]) -> NewRecord<'_> {
    NewRecord::value(value).with_key(std::hint::black_box(b"boiler/flow".as_slice()))
}

fn single(log: &Log, value: &[u8], durability: Durability, records: usize) -> Result<()> {
    for _ in 0..records {
        std::hint::black_box(log.append_with(record_of(value), durability)?);
    }
    Ok(())
}

fn batches(log: &Log, builder: &mut BatchBuilder, value: &[u8]) -> Result<()> {
    for _ in 0..RECORDS / BATCH {
        for _ in 0..BATCH {
            builder.push(record_of(value))?;
        }
        std::hint::black_box(log.append_batch_with(builder, Durability::Os)?);
    }
    Ok(())
}

fn measure(store: &Store, rounds: usize, name: &str, len: usize) -> Result<()> {
    let value = vec![b'v'; len];
    let records = match (name, len) {
        ("sync", _) => 100,
        ("os", 16_384) => RECORDS / 10,
        _ => RECORDS,
    };
    let mut times = Vec::new();
    for _ in 0..rounds {
        let compression = if name.contains("snappy") { "snappy" } else { "none" };
        let topic = NewTopic::new("bench").config("segment.bytes", "134217728");
        store.create_topic(&topic.config("compression.type", compression))?;
        let log = store.log("bench", 0)?;
        let mut builder = log.batch();
        single(&log, &value, Durability::Os, 1000)?; // Room, maps, caches.
        let begun = Instant::now();
        match name {
            "sync" => single(&log, &value, Durability::Sync, records)?,
            "os" | "os_snappy" => single(&log, &value, Durability::Os, records)?,
            _ => batches(&log, &mut builder, &value)?,
        }
        times.push(begun.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(records).expect("few")));
        drop((builder, log));
        store.delete_topic("bench")?;
    }
    times.sort_by(f64::total_cmp);
    println!("{name}/{len}B {:.1} {:.1}", times[0], times[rounds / 2]);
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo test --benches` and `cargo bench` alone pass no directory: ffi/benches/run does.
    let [_, directory, rounds, only @ ..] = arguments.as_slice() else {
        println!("usage: append DIRECTORY ROUNDS [FIGURE]; ffi/benches/run compares C and Rust");
        return Ok(());
    };
    let rounds = rounds.parse().unwrap_or(1);
    let store = Store::open(directory)?;
    // From Rust "at once" is the same as one by one; the C program pushes a batch's records by one call.
    let batches = ["os_batch", "os_batch_at_once"].into_iter().flat_map(|name| [16, 100, 1024].map(|len| (name, len)));
    let singles = [16, 100, 1024, 16_384].map(|len| ("os", len));
    let others = [("os_snappy", 1024), ("os_batch_at_once_snappy", 100), ("sync", 100)];
    for (name, len) in singles.into_iter().chain(batches).chain(others) {
        if only.first().is_none_or(|only| *only == format!("{name}/{len}B")) {
            measure(&store, rounds, name, len)?;
        }
    }
    Ok(())
}
