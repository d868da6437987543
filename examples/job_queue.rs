//! A queue of jobs: four threads take them out of one partition, and try again what fails.
//!
//! `cargo run --example job_queue` makes 20 jobs in `./edgelog-data`, of which every fifth fails once, and does them.

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use edgelog::clients::{AckType, ShareConsumer};
use edgelog::{NewRecord, NewTopic, Store};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "./edgelog-data".to_owned());
    let store = Arc::new(Store::open(&dir)?);
    store.create_topic_if_absent(&NewTopic::new("jobs"))?;
    let log = store.log("jobs", 0)?;
    for n in 0..20_u32 {
        log.append(NewRecord::value(format!("job {n}").as_bytes()))?;
    }
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let store = Arc::clone(&store);
            thread::spawn(move || work(worker, &store))
        })
        .collect();
    let mut done = 0;
    for worker in workers {
        done += worker.join().map_err(|_| "a worker panicked")??;
    }
    println!("{done} jobs are done");
    Ok(())
}

/// Works until there was nothing to do for two seconds.
fn work(worker: u32, store: &Arc<Store>) -> Outcome<usize> {
    let mut queue = ShareConsumer::options()
        .set("group.id", "workers")?
        .set("share.acknowledgement.mode", "explicit")?
        .set("max.poll.records", "1")?
        .set("edgelog.share.retry.backoff.ms", "200")?
        .open(store)?;
    queue.subscribe(&["jobs"])?;
    let mut done = 0;
    loop {
        let records = queue.poll(Duration::from_secs(2))?;
        if records.is_empty() {
            queue.close()?;
            return Ok(done);
        }
        for record in records.iter() {
            let record = record?;
            let job = String::from_utf8_lossy(record.value.unwrap_or_default());
            let fails = record.offset.0 % 5 == 0 && record.delivery_count() == 1;
            let outcome = if fails { "fails" } else { "is done" };
            println!("worker {worker}: {job}, delivery {}, {outcome}", record.delivery_count());
            queue.acknowledge(&record, if fails { AckType::Release } else { AckType::Accept })?;
            done += usize::from(!fails);
        }
        queue.commit_sync()?;
    }
}
