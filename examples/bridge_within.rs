//! A program that appends readings, a thousand a second, and sends them to a cluster from a thread of its own. At the
//! end it sees to it that the cluster has all of them, and says what an append took. Without KEY=VALUE it sends
//! nothing: what an append takes alone.
//!
//!     cargo run --release --features bridge --example bridge_within DIR RECORDS [KEY=VALUE...]
//!
//! KEYs are the bridge's, such as bootstrap.servers=HOST:PORT edgelog.device.id=NAME edgelog.bridge.topics=readings.

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use edgelog::bridge::{Bridge, BridgeConfig};
use edgelog::{Durability, Log, NewRecord, NewTopic, Store};

const USAGE: &str = "usage: bridge_within DIR RECORDS [KEY=VALUE...]";
const PACE: Duration = Duration::from_millis(1);

/// Appends the readings one by one and returns what each append took, in nanoseconds, the quickest first.
fn append(log: &Log, records: usize) -> edgelog::Result<Vec<u128>> {
    let mut took = Vec::with_capacity(records);
    for n in 0..records {
        let reading = format!("reading {n}");
        let begun = Instant::now();
        // Durable within `flush.ms`, by the store's own thread: what the bridge waits for, and the program does not.
        log.append_with(NewRecord::value(reading.as_bytes()), Durability::Interval)?;
        took.push(begun.elapsed().as_nanos());
        thread::sleep(PACE);
    }
    took.sort_unstable();
    Ok(took)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (dir, records) = (arguments.next().ok_or(USAGE)?, arguments.next().ok_or(USAGE)?.parse()?);
    let settings: Vec<String> = arguments.collect();
    let mut config = BridgeConfig::default();
    config.set_lines(&settings.join("\n"))?;
    let store = Arc::new(Store::open(&dir)?);
    store.create_topic_if_absent(&NewTopic::new("readings").config("flush.ms", "200"))?;
    let log = store.log("readings", 0)?;

    let sender = if settings.is_empty() {
        None
    } else {
        let mut bridge =
            Bridge::within(&dir, Arc::clone(&store), config.clone())?.observe(|event| println!("{event:?}"));
        Some((bridge.stop_handle(), thread::spawn(move || bridge.run())))
    };
    let took = append(&log, records)?;
    log.flush()?;
    if let Some((stop, thread)) = sender {
        stop.stop();
        thread.join().map_err(|_| "the bridge panicked")??;
        let mut bridge = Bridge::within(&dir, Arc::clone(&store), config)?.observe(|event| println!("{event:?}"));
        let mut positions = bridge.run_until_caught_up()?;
        positions.retain(|log| !log.is_delivered());
        if !positions.is_empty() {
            return Err(format!("of these logs not all is sent: {positions:?}").into());
        }
    }
    let at = |of_1000: usize| took.get(took.len() * of_1000 / 1000).or(took.last()).copied().unwrap_or_default();
    println!("appended {records}; ns: p50 {} p99 {} p99.9 {} max {}", at(500), at(990), at(999), at(1000));
    Ok(())
}
