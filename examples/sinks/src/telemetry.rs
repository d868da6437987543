//! Telemetry to fill a database with: readings of some devices, numbered, with a malformed record now and then.
//!
//! Started again, it goes on behind the last record that the log has: the producer has a name, and each record its
//! number. So each of them is in the log once, however often the program is killed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use edgelog::clients::{Producer, ProducerRecord};
use edgelog::{NewTopic, Store};

use crate::TOPIC;
use crate::sink::Outcome;

const PARTITIONS: u32 = 2;
const DEVICES: [&str; 4] = ["boiler", "flow", "return", "outside"];
/// 2023-11-14T22:13:20Z, in milliseconds.
const TIME_BEGIN: i64 = 1_700_000_000_000;
/// Of so many records one is malformed, and it is the one with this number.
const MALFORMED: (i64, i64) = (50, 25);
/// In turn: no JSON, cut off, not UTF-8, empty, a field too few, one of another type, a number beyond its range, and
/// what is JSON and no database takes.
const MALFORMED_VALUES: [&[u8]; 9] = [
    b"21.5 C",
    br#"{"device": "boiler", "seq": 7, "at"#,
    b"{\"device\": \"\xff\", \"seq\": 7, \"at\": 1, \"temperature\": 21.5}",
    b"",
    br#"{"device": "boiler", "seq": 7, "temperature": 21.5}"#,
    br#"{"device": "boiler", "seq": "7", "at": 1, "temperature": 21.5}"#,
    br#"{"device": "boiler", "seq": 7, "at": 1, "temperature": 1e999}"#,
    br#"{"device": "boi\u0000ler", "seq": 7, "at": 1, "temperature": 21.5}"#,
    br#"{"device": "", "seq": 7, "at": 1, "temperature": 21.5}"#,
];
/// It says of every so many records that they are acknowledged.
const SAY_EVERY: i64 = 10;

/// Appends records up to this number to each partition; `per_second` in all, or as many as it can.
pub fn produce(dir: &Path, records: i64, per_second: Option<u32>, stop: &AtomicBool) -> Outcome<()> {
    let store = Arc::new(Store::open(dir)?);
    store.create_topic_if_absent(&NewTopic::new(TOPIC).partitions(PARTITIONS))?;
    let producer = Producer::builder(&store).set("edgelog.producer.name", TOPIC)?.set("linger.ms", "5")?.open()?;
    let mut next = Vec::new();
    for partition in 0..PARTITIONS {
        let last = producer.last_sequence(TOPIC, partition)?;
        next.push(last.map_or(0, |last| last + 1));
        println!("{TOPIC}-{partition} goes on at {}", next.last().unwrap_or(&0));
    }
    let failed = Arc::new(AtomicBool::new(false));
    let (began, mut sent) = (Instant::now(), 0);
    while next.iter().any(|number| *number < records) && ![stop, &*failed].iter().any(|x| x.load(Ordering::Relaxed)) {
        for (partition, number) in (0..).zip(&mut next).filter(|(_, number)| **number < records) {
            let value = value(partition, *number);
            let record = ProducerRecord::new(TOPIC, &value).with_partition(partition).with_sequence(*number);
            let (number_sent, failed) = (*number, Arc::clone(&failed));
            producer.send_with(record, move |outcome| match outcome {
                Ok(_) if (number_sent + 1) % SAY_EVERY == 0 || number_sent + 1 == records => {
                    println!("{TOPIC}-{partition} acknowledged {number_sent}");
                }
                Ok(_) => {}
                Err(error) => {
                    eprintln!("{TOPIC}-{partition}: {number_sent} is not acknowledged: {error}");
                    failed.store(true, Ordering::Relaxed);
                }
            })?;
            *number += 1;
            sent += 1;
        }
        if let Some(per_second) = per_second {
            let due = began + Duration::from_secs(1) * sent / per_second;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    producer.close()?; // every callback has been called
    store.close()?;
    if failed.load(Ordering::Relaxed) { Err("not every record was acknowledged".into()) } else { Ok(()) }
}

/// The value of a record, which its number says.
fn value(partition: u32, number: i64) -> Vec<u8> {
    let (every, one) = MALFORMED;
    if number % every == one {
        return MALFORMED_VALUES[(number / every) as usize % MALFORMED_VALUES.len()].to_vec();
    }
    let device = DEVICES[number as usize % DEVICES.len()];
    let (at, tenths) = (TIME_BEGIN + number * 1000, number % 100);
    let temperature = format!("{}.{}", 20 + tenths / 10, tenths % 10);
    format!(r#"{{"device": "{device}-{partition}", "seq": {number}, "at": {at}, "temperature": {temperature}}}"#).into()
}
