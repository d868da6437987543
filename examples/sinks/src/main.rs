//! Telemetry from edgelog into a database: a consumer that upserts in bulk and commits afterwards. README.md says how
//! to run it, `docs/clients.md` why it is as it is.

mod postgresql;
mod reading;
mod sink;
mod sqlite;
mod telemetry;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use edgelog::clients::{Consumer, ConsumerError, ConsumerRecords, DeadLetterQueue, Processed, RebalanceListener};
use edgelog::{OffsetSpec, Store, TopicPartition};

use reading::{Batch, Reading};
use sink::{Advance, Outcome, Sink};

const TOPIC: &str = "telemetry";
const DEAD_LETTERS: &str = "dlq.telemetry";
const USAGE: &str = "\
Telemetry from edgelog into a database.

    edgelog-sinks telemetry DIRECTORY [--records N] [--per-second N]
        appends readings to the store in DIRECTORY, N to each of two partitions (10000), a malformed one now and then
    edgelog-sinks sqlite DIRECTORY FILE [OPTIONS]
        writes the readings of the store into a SQLite database
    edgelog-sinks postgresql DIRECTORY CONNECTION [OPTIONS]
        ... into PostgreSQL, as in \"host=/run/postgresql user=me dbname=plant\"

Options:
    --positions group   the group's positions are committed behind the database's transaction: at least once (default)
    --positions sink    they are in the database, in the same transaction: exactly once
    --until-caught-up   end where there is nothing more to read; otherwise it ends at Ctrl-C or SIGTERM
";

/// Where the positions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Positions {
    Group,
    Sink,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("edgelog-sinks: {error}");
            let mut because = error.source();
            while let Some(reason) = because {
                eprint!(": {reason}");
                because = reason.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Outcome<()> {
    let (mut names, mut positions, mut until_caught_up) = (Vec::new(), Positions::Group, false);
    let (mut records, mut per_second) = (10_000, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().map(String::as_str).ok_or(format!("{word} needs a value; --help says which"));
        match word.as_str() {
            "--positions" => {
                positions = match value()? {
                    "group" => Positions::Group,
                    "sink" => Positions::Sink,
                    other => return Err(format!("--positions {other}: group or sink is allowed").into()),
                }
            }
            "--until-caught-up" => until_caught_up = true,
            "--records" => records = number(word, value()?)?.into(),
            "--per-second" => per_second = Some(number(word, value()?)?),
            option if option.starts_with("--") => return Err(format!("unknown option {option}; see --help").into()),
            name => names.push(name),
        }
    }
    match names[..] {
        ["telemetry", dir] => {
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = Arc::clone(&stop);
            ctrlc::set_handler(move || stopped.store(true, Ordering::Relaxed))?;
            telemetry::produce(Path::new(dir), records, per_second, &stop)
        }
        ["sqlite", dir, file] => {
            let store = attach(dir)?;
            consume(&store, sqlite::Sqlite::open(Path::new(file))?, positions, until_caught_up)
        }
        ["postgresql", dir, connection] => {
            let store = attach(dir)?;
            consume(&store, postgresql::Postgresql::open(connection)?, positions, until_caught_up)
        }
        _ => Err(format!("telemetry, sqlite or postgresql, and what it needs, is expected\n\n{USAGE}").into()),
    }
}

fn number(option: &str, value: &str) -> Outcome<u32> {
    let number = value.parse().ok().filter(|number| *number > 0);
    Ok(number.ok_or_else(|| format!("{option} {value}: a number from 1 to {} is allowed", u32::MAX))?)
}

/// Another process writes the store, at the same time or at another one.
fn attach(dir: &str) -> Outcome<Arc<Store>> {
    Ok(Arc::new(Store::attach(dir)?))
}

/// Reads the topic into the sink until it is asked to end.
fn consume(store: &Arc<Store>, sink: impl Sink + 'static, positions: Positions, until_caught_up: bool) -> Outcome<()> {
    let mut consumer = Consumer::options()
        .set("group.id", "database")?
        .set("auto.offset.reset", "earliest")? // where there is no position, nothing is left out
        .set("max.poll.records", "1000")? // one transaction for all that a poll returns
        .open(store)?;
    let mut dead_letters = DeadLetterQueue::options()
        .set("errors.deadletterqueue.topic.name", DEAD_LETTERS)?
        .set("errors.retry.timeout", "0")? // what cannot be parsed cannot be parsed at another try
        .open(&consumer)?;

    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, waker) = (Arc::clone(&stop), consumer.waker());
    ctrlc::set_handler(move || {
        stopped.store(true, Ordering::Relaxed);
        waker.wakeup();
    })?;

    let sink = Arc::new(Mutex::new(sink));
    let (failed, failures) = mpsc::channel();
    match positions {
        Positions::Group => consumer.subscribe(&[TOPIC])?,
        Positions::Sink => consumer.subscribe_with(&[TOPIC], FromSink { sink: Arc::clone(&sink), failed })?,
    }
    while !stop.load(Ordering::Relaxed) {
        let records = match consumer.poll(Duration::from_millis(500)) {
            Err(ConsumerError::Wakeup) => break,
            polled => polled?,
        };
        if let Ok(failure) = failures.try_recv() {
            return Err(failure);
        }
        if records.is_empty() {
            if until_caught_up && is_caught_up(&consumer)? {
                break;
            }
            continue;
        }
        let advances = advances(&consumer, &records)?;
        if !wait_until_durable(store, &advances, &stop)? {
            break;
        }
        let mut batch = Batch::default();
        for record in &records {
            if let Processed::Done(reading) = dead_letters.process(&record?, Reading::parse)? {
                batch.push(reading);
            }
        }
        let written_with_it = if positions == Positions::Sink { &advances[..] } else { &[] };
        if !lock(&sink).write(&batch, written_with_it)? {
            let partitions: Vec<_> = advances.into_iter().map(|advance| advance.partition).collect();
            seek_to_sink(&mut consumer, &mut *lock(&sink), &partitions)?;
            continue;
        }
        // Behind the database's transaction, and never before it. Where the positions are in the sink, this one is for
        // `edgelog groups`, and for retention: what the sink does not have yet is kept.
        consumer.commit_sync()?;
    }
    consumer.close()?;
    Ok(())
}

/// How far these records go, partition by partition.
fn advances(consumer: &Consumer, records: &ConsumerRecords) -> Outcome<Vec<Advance>> {
    let mut partitions: Vec<TopicPartition> = records.partitions().cloned().collect();
    partitions.sort_unstable();
    partitions.dedup();
    let mut advances = Vec::new();
    for partition in partitions {
        let Some(first) = records.records(&partition).next().transpose()? else { continue };
        let (from, to) = (first.offset.0, consumer.position(&partition)?);
        advances.push(Advance { partition, from, to });
    }
    Ok(advances)
}

/// Waits until no power cut can take the records: their offsets would be other records' then, which the dead letters
/// and the positions in the sink would take for these. `false` where it is asked to end meanwhile.
///
/// Another process writes the store here. Where it was killed, this goes on when it is started again.
fn wait_until_durable(store: &Store, advances: &[Advance], stop: &AtomicBool) -> Outcome<bool> {
    for Advance { partition, to, .. } in advances {
        let log = store.log(&partition.topic, partition.partition)?;
        let mut is_waiting = false;
        while log.flush_up_to(to.offset)? < to.offset {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if !is_waiting {
                eprintln!(
                    "{partition}: waiting for a process that writes the store: offset {} is not durable",
                    to.offset
                );
                is_waiting = true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(true)
}

fn is_caught_up(consumer: &Consumer) -> Outcome<bool> {
    let partitions = consumer.assignment();
    for partition in &partitions {
        if consumer.lag(partition)? > 0 {
            return Ok(false);
        }
    }
    Ok(!partitions.is_empty())
}

/// Lets the consumer begin where the sink says, whenever it gets partitions.
struct FromSink<S> {
    sink: Arc<Mutex<S>>,
    failed: mpsc::Sender<Box<dyn std::error::Error + Send + Sync>>,
}

impl<S: Sink> RebalanceListener for FromSink<S> {
    fn on_partitions_assigned(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        if let Err(error) = seek_to_sink(consumer, &mut *lock(&self.sink), partitions) {
            let _ = self.failed.send(error); // the loop that would receive it has ended with an error of its own
        }
    }
}

/// A partition that the sink has no position of begins at its first record: the group's position says nothing here.
fn seek_to_sink(consumer: &mut Consumer, sink: &mut impl Sink, partitions: &[TopicPartition]) -> Outcome<()> {
    for partition in partitions {
        let position = sink.position(partition)?;
        consumer.seek(partition, position.map_or(OffsetSpec::Earliest, OffsetSpec::Position))?;
    }
    Ok(())
}

fn lock<S>(sink: &Mutex<S>) -> MutexGuard<'_, S> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}
