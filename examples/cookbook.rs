//! The recipes of docs/cookbook.md, one function or two for each, and a `main` that runs them all and looks at what
//! they did. A test holds the page to this file.
//!
//!     cargo run --example cookbook

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use edgelog::{Batch, Error, LeaderEpoch, Log, NewRecord, NewTopic, Offset, OffsetAndEpoch, OffsetSpec};
use edgelog::{ReadUpTo, Reader, ReaderOptions, Store};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Writes where a consumer stands: to another name, flushed, renamed. A crash leaves the old position or the new one.
fn keep_position(dir: &Path, at: OffsetAndEpoch) -> io::Result<()> {
    let part = dir.join("position.part");
    let mut file = File::create(&part)?;
    writeln!(file, "{} {}", at.offset, at.leader_epoch)?;
    file.sync_all()?;
    fs::rename(&part, dir.join("position"))?;
    File::open(dir)?.sync_all()
}

fn kept_position(dir: &Path) -> Option<OffsetAndEpoch> {
    let text = fs::read_to_string(dir.join("position")).ok()?;
    let (offset, epoch) = text.trim().split_once(' ')?;
    Some(OffsetAndEpoch { offset: Offset(offset.parse().ok()?), leader_epoch: LeaderEpoch(epoch.parse().ok()?) })
}

/// A reader that goes on at a kept position, or says in its log why it cannot.
fn resume(log: &Log, kept: Option<OffsetAndEpoch>) -> edgelog::Result<Reader> {
    let Some(at) = kept else { return log.reader(OffsetSpec::Earliest) };
    match log.reader(OffsetSpec::Position(at)) {
        Err(Error::FencedLeaderEpoch { offset, end_offset, .. }) => {
            eprintln!("records {end_offset} to {offset} were seen and truncated since: undo what they did");
            log.reader(OffsetSpec::Offset(end_offset))
        }
        Err(Error::OffsetOutOfRange { requested, log_start_offset, .. }) if requested < log_start_offset => {
            eprintln!("records {requested} to {log_start_offset} were deleted before they were read");
            log.reader(OffsetSpec::Earliest)
        }
        result => result,
    }
}

/// Gives what comes in any of these logs to `handle`, until nothing has come for a second.
fn follow_all(readers: &mut [Reader], handle: &mut dyn FnMut(&Batch)) -> edgelog::Result<()> {
    loop {
        let mut polled = Vec::new();
        for reader in readers.iter_mut() {
            reader.poll_descriptor()?; // before the reader comes to its end: from there on it shows what comes
            while let Some(batch) = reader.next_batch()? {
                handle(&batch);
            }
            polled.push(PollFd::from_borrowed_fd(reader.poll_descriptor()?, PollFlags::IN));
        }
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        if poll(&mut polled, Some(&second)).expect("descriptors that are open") == 0 {
            return Ok(());
        }
    }
}

/// What async code sends to the thread that appends: the value, and where the answer goes.
type Append = (Vec<u8>, mpsc::SyncSender<edgelog::Result<Offset>>);

/// A thread that appends what others send, in the order in which they sent it.
fn appender(log: Log) -> mpsc::Sender<Append> {
    let (sender, receiver) = mpsc::channel::<Append>();
    thread::spawn(move || {
        for (value, answer) in receiver {
            let appended = log.append(NewRecord::value(&value));
            let _ = answer.send(appended.map(|info| info.base_offset)); // who asked may have gone
        }
    });
    sender
}

/// How many records a consumer that stands at `position` has not read yet.
fn lag(log: &Log, position: Offset) -> i64 {
    let offsets = log.offsets();
    offsets.high_watermark - position.max(offsets.log_start_offset)
}

/// A topic that keeps records until its consumer has them, and at most 64 MiB of them.
fn keep_until_read() -> NewTopic {
    NewTopic::new("orders").config("retention.ms", "-1").config("retention.bytes", "67108864")
}

/// Called by the writer when its consumer has finished everything before `position`.
fn finished(log: &Log, position: Offset) -> edgelog::Result<Offset> {
    log.delete_records_before(position)
}

/// Another process's records, each durable before `handle` sees it, until `stop` says so.
fn read_durable(dir: &Path, handle: &mut dyn FnMut(&Batch), stop: &dyn Fn() -> bool) -> edgelog::Result<()> {
    let store = Store::attach(dir)?;
    let log = store.log("boiler", 0)?;
    let mut reader = log.reader_with(OffsetSpec::Earliest, ReaderOptions::default().up_to(ReadUpTo::Durable))?;
    while !stop() {
        log.flush_up_to(Offset::MAX)?; // flushes the writer's files, at most once for each call
        while let Some(batch) = reader.next_batch()? {
            handle(&batch);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Ten readings a second, one flush a second: what a power cut takes is a second, and the flash lives longer.
fn gentle_on_flash() -> NewTopic {
    NewTopic::new("readings").config("flush.messages", "1000").config("flush.ms", "1000")
}

/// Opens a store, and reports what a person should know.
fn open_watched(dir: &Path) -> edgelog::Result<Store> {
    let store = Store::open(dir)?;
    let report = store.recovery_report();
    if report.lost_offsets() > 0 || !report.unopened.is_empty() || report.not_writable.is_some() {
        eprintln!("ALARM {report}");
    } else if !report.clean {
        eprintln!("{} records after a crash; {report}", report.recovered_records());
    }
    Ok(store)
}

/// A topic for a device that does not know the time: nothing is deleted for its age.
fn without_a_clock() -> NewTopic {
    NewTopic::new("events").config("retention.ms", "-1").config("retention.bytes", "33554432")
}

/// After the first append of a boot: where this boot's records begin. Those before were stamped by another run of the
/// clock.
fn first_offset_of_this_boot(log: &Log) -> Option<Offset> {
    log.leader_epochs().last().map(|epoch| epoch.start_offset)
}

pub(crate) fn main() -> edgelog::Result<()> {
    let dir = std::env::temp_dir().join(format!("edgelog-cookbook-{}", std::process::id()));
    let store = Arc::new(open_watched(&dir)?);
    for topic in [NewTopic::new("boiler"), keep_until_read(), gentle_on_flash(), without_a_clock()] {
        store.create_topic(&topic)?;
    }
    let boiler = store.log("boiler", 0)?;
    for n in 0..10 {
        boiler.append(NewRecord::value(format!("{n}").as_bytes()))?;
    }

    // A position, and what becomes of it.
    let mut reader = resume(&boiler, kept_position(&dir))?;
    while reader.position().offset < 6 {
        reader.next_batch()?.expect("there are ten");
    }
    let at = reader.position();
    keep_position(&dir, at).expect("the directory is there");
    assert_eq!(kept_position(&dir), Some(at));
    assert_eq!((resume(&boiler, Some(at))?.position(), lag(&boiler, at.offset)), (at, 4));
    boiler.truncate_to(Offset(3))?;
    boiler.append(NewRecord::value(b"another 3"))?;
    assert_eq!(resume(&boiler, Some(at))?.position().offset, 3, "what was truncated is seen again");
    boiler.delete_records_before(Offset(2))?;
    let deleted = OffsetAndEpoch { offset: Offset(1), leader_epoch: LeaderEpoch(0) };
    assert_eq!(resume(&boiler, Some(deleted))?.position().offset, 2);

    // Several logs in one thread, filled by a thread that answers with offsets.
    let (orders, events) = (store.log("orders", 0)?, store.log("events", 0)?);
    let to_orders = appender(orders.clone());
    let (answer, answered) = mpsc::sync_channel(100);
    for n in 0..100 {
        to_orders.send((format!("order {n}").into_bytes(), answer.clone())).expect("the thread waits for more");
    }
    let given: Vec<i64> =
        (0..100).map(|_| answered.recv().expect("each is answered").map(i64::from)).collect::<Result<_, _>>()?;
    assert_eq!(given, (0..100).collect::<Vec<i64>>());
    events.append(NewRecord::value(b"started"))?;
    let mut seen = 0;
    let mut readers = [orders.reader(OffsetSpec::Earliest)?, events.reader(OffsetSpec::Earliest)?];
    follow_all(&mut readers, &mut |batch| seen += batch.last_offset() - batch.base_offset() + 1)?;
    assert_eq!(seen, 101);
    assert_eq!(finished(&orders, Offset(60))?, 60);
    assert_eq!(orders.offsets().log_start_offset, 60);

    // What is durable, from a store that is attached as another process would be.
    let mut durable = 0;
    let done = std::cell::Cell::new(false);
    read_durable(
        &dir,
        &mut |_| {
            durable += 1;
            done.set(durable == 2);
        },
        &|| done.get(),
    )?;
    assert_eq!(first_offset_of_this_boot(&boiler), Some(Offset(3)), "the truncation began an epoch, as a boot does");
    store.close()?;
    drop(open_watched(&dir)?);
    fs::remove_dir_all(&dir).expect("the example's own directory");
    println!("every recipe did what it says");
    Ok(())
}
