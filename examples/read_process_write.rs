//! Reads one topic, writes another, and has each input there once, though it is killed at random while it does.
//!
//! `cargo run --example read_process_write [DIRECTORY]`
//!
//! The program starts itself again and again as a worker, and kills it (SIGKILL) after some milliseconds. Each worker
//! goes on where the output ends: the producer has a name, and the offset of the input is the record's number in the
//! output. Some inputs are left out on purpose. At the end, the output is held against the input.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use edgelog::clients::{Producer, ProducerRecord};
use edgelog::{NewRecord, NewTopic, Offset, OffsetSpec, ReadUpTo, ReaderOptions, Store};

const INPUTS: i64 = 40_000;
const KILLS: u64 = 25;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or_else(|| "./edgelog-data".to_owned());
    let dir = Path::new(&dir);
    if arguments.next().as_deref() == Some("worker") {
        return work(dir);
    }
    fill(dir)?;
    let mut killed = 0;
    for round in 0.. {
        let mut worker = Command::new(std::env::current_exe()?).arg(dir).arg("worker").spawn()?;
        if round < KILLS {
            // Anywhere: while it opens, reads, appends or flushes.
            std::thread::sleep(Duration::from_millis(5 + (round * 7919) % 45));
            worker.kill()?;
        }
        let status = worker.wait()?;
        if status.success() {
            break;
        }
        if round >= KILLS {
            return Err(format!("a worker that was not killed ended with {status}").into());
        }
        killed += 1;
    }
    check(dir)?;
    println!("{killed} workers were killed, and each of {INPUTS} inputs is there once, or was left out");
    Ok(())
}

/// The inputs, where there are none yet.
fn fill(dir: &Path) -> Result<(), Box<dyn Error>> {
    let store = Store::open(dir)?;
    if !store.create_topic_if_absent(&NewTopic::new("readings"))? {
        return Ok(());
    }
    let log = store.log("readings", 0)?;
    let mut batch = log.batch();
    for reading in 0..INPUTS {
        batch.push(NewRecord::value(reading.to_string().as_bytes()))?;
        if batch.len() == 100 {
            log.append_batch(&mut batch)?;
        }
    }
    log.append_batch(&mut batch)?;
    store.close()?;
    Ok(())
}

/// What comes of an input: nothing of every seventh.
fn process(reading: i64) -> Option<String> {
    (reading % 7 != 0).then(|| format!("{reading} squared is {}", reading * reading))
}

fn work(dir: &Path) -> Result<(), Box<dyn Error>> {
    let store = Arc::new(Store::open(dir)?);
    store.create_topic_if_absent(&NewTopic::new("squares").config("segment.bytes", "262144"))?;
    let producer = Producer::builder(&store).set("edgelog.producer.name", "squares")?.set("linger.ms", "1")?.open()?;
    // Behind the last input that came to something: those before it are done, or were left out.
    let done = producer.last_sequence("squares", 0)?;
    let from = done.map_or(OffsetSpec::Earliest, |done| OffsetSpec::Offset(Offset(done + 1)));
    // What is durable: an offset that a power cut frees would be another input's.
    let durable = ReaderOptions::default().up_to(ReadUpTo::Durable);
    let mut reader = store.log("readings", 0)?.reader_with(from, durable)?;
    let mut last = None;
    while let Some(batch) = reader.next_batch()? {
        for record in batch.records()? {
            let record = record?;
            // A batch that was begun has records before the position.
            if done.is_some_and(|done| record.offset <= Offset(done)) {
                continue;
            }
            let reading = std::str::from_utf8(record.value.unwrap_or_default())?.parse()?;
            if let Some(square) = process(reading) {
                let output = ProducerRecord::new("squares", square.as_bytes()).with_partition(0);
                last = Some(producer.send(output.with_source_offset(record.offset))?);
            }
        }
    }
    // Records of one partition are appended in order: the last one's answer is that of all.
    last.map_or(Ok(()), |delivery| delivery.wait().map(drop))?;
    producer.close()?;
    drop(producer);
    Ok(())
}

fn check(dir: &Path) -> Result<(), Box<dyn Error>> {
    let store = Store::open(dir)?;
    let mut reader = store.log("squares", 0)?.reader(OffsetSpec::Earliest)?;
    let mut expected = (0..INPUTS).filter_map(process);
    while let Some(batch) = reader.next_batch()? {
        for record in batch.records()? {
            let (record, expected) = (record?, expected.next());
            let found = String::from_utf8_lossy(record.value.unwrap_or_default());
            if expected.as_deref() != Some(&*found) {
                return Err(format!("at offset {} is {found:?}, and {expected:?} is due", record.offset).into());
            }
        }
    }
    match expected.next() {
        Some(missing) => Err(format!("{missing:?} is missing").into()),
        None => Ok(()),
    }
}
