//! Telemetry of several sensors through one producer: batches of 20 ms, compressed, one flush for each, and a count of
//! what became durable.
//!
//! `cargo run --example telemetry [DIRECTORY]`

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use edgelog::clients::{Producer, ProducerRecord};
use edgelog::{NewTopic, Store};

const SENSORS: [&str; 4] = ["boiler", "flow", "return", "outside"];
const READINGS: u32 = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "./edgelog-data".to_owned());
    let store = Arc::new(Store::open(dir)?);
    store.create_topic_if_absent(&NewTopic::new("telemetry").partitions(2))?;
    let mut builder = Producer::builder(&store).set("linger.ms", "20")?;
    if cfg!(feature = "snappy") {
        builder = builder.set("compression.type", "snappy")?;
    }
    let producer = builder.open()?;

    let (durable, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    thread::scope(|scope| {
        for sensor in SENSORS {
            let (producer, durable, failed) = (producer.clone(), Arc::clone(&durable), Arc::clone(&failed));
            scope.spawn(move || {
                for reading in 0..READINGS {
                    let value = format!("{{\"sensor\":\"{sensor}\",\"celsius\":{}.5}}", 20 + reading % 60);
                    // The same sensor's readings go to the same partition, in their order.
                    let record = ProducerRecord::new("telemetry", value.as_bytes()).with_key(sensor.as_bytes());
                    let (durable, failed) = (Arc::clone(&durable), Arc::clone(&failed));
                    let taken = producer.send_with(record, move |outcome| {
                        let count = if outcome.is_ok() { durable } else { failed };
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                    if let Err(error) = taken {
                        eprintln!("{sensor}: not taken: {error}");
                    }
                }
            });
        }
    });
    producer.close()?; // every callback has been called
    let metrics = producer.metrics();
    println!(
        "{} records durable, {} failed, in {} batches of {:.0} records; {:.1} ms for a flush",
        durable.load(Ordering::Relaxed),
        failed.load(Ordering::Relaxed),
        metrics.batch_send_total,
        metrics.records_per_request_avg,
        metrics.request_latency_avg,
    );
    store.close()?;
    Ok(())
}
