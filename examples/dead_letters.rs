//! A consumer that goes on: what fails is tried again, and what goes on failing is set aside.
//!
//! `cargo run --example dead_letters` appends readings to `./edgelog-data`, of which one is no number, adds the others
//! up, and shows what was set aside.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use edgelog::clients::{Consumer, ConsumerRecord, DeadLetter, DeadLetterQueue, Processed};
use edgelog::{NewRecord, NewTopic, OffsetSpec, Store};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "./edgelog-data".to_owned());
    let store = Arc::new(Store::open(&dir)?);
    store.create_topic_if_absent(&NewTopic::new("readings"))?;
    for value in ["21.5", "warm", "22.0"] {
        store.log("readings", 0)?.append(NewRecord::value(value.as_bytes()))?;
    }
    let mut consumer =
        Consumer::options().set("group.id", "adder")?.set("auto.offset.reset", "earliest")?.open(&store)?;
    consumer.subscribe(&["readings"])?;
    let mut queue = DeadLetterQueue::options()
        .set("errors.deadletterqueue.topic.name", "dlq.readings")?
        .set("errors.retry.timeout", "1000")?
        .open(&consumer)?;
    let mut sum = 0.0;
    loop {
        let records = consumer.poll(Duration::from_millis(200))?;
        if records.is_empty() {
            break;
        }
        for record in &records {
            if let Processed::Done(number) = queue.process(&record?, number)? {
                sum += number;
            }
        }
        consumer.commit_sync()?;
    }
    println!("the sum is {sum}");
    show(&store)
}

/// What a reading says. That it is no number will not change by another try; a server that is down might be up again.
fn number(record: &ConsumerRecord<'_>) -> Outcome<f64> {
    Ok(std::str::from_utf8(record.value.unwrap_or_default())?.parse()?)
}

fn show(store: &Store) -> Outcome<()> {
    let mut reader = store.log("dlq.readings", 0)?.reader(OffsetSpec::Earliest)?;
    while let Some(batch) = reader.next_batch()? {
        for record in batch.records()? {
            let record = record?;
            let Some(DeadLetter { log, offset, reason, .. }) = DeadLetter::parse(&record) else { continue };
            let value = String::from_utf8_lossy(record.value.unwrap_or_default());
            println!("{log} at offset {offset}: \"{value}\" was set aside: {reason}");
        }
    }
    Ok(())
}
