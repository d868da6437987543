//! One process writes; a thread of it and a second process follow what it writes.
//!
//!     cargo run --example follow
//!
//! The second process is this program again, with the data directory as its argument. It attaches read-only: the
//! writer does not know of it. (`edgelog tail` does the same.)

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::Duration;

use edgelog::{Log, NewRecord, NewTopic, OffsetSpec, Store};

const RECORDS: u32 = 20;

fn main() -> edgelog::Result<()> {
    match std::env::args_os().nth(1) {
        Some(dir) => attach(Path::new(&dir)),
        None => write(),
    }
}

fn write() -> edgelog::Result<()> {
    let dir = std::env::temp_dir().join(format!("edgelog-follow-{}", std::process::id()));
    let store = Store::open(&dir)?;
    store.create_topic_if_absent(&NewTopic::new("ticks"))?;
    let log = store.log("ticks", 0)?;

    let follower = {
        let log = log.clone();
        // Woken by the appender: nothing polls.
        thread::spawn(move || print(&log, "thread"))
    };
    let other = {
        let dir = dir.clone();
        thread::spawn(move || run_again(&dir))
    };
    for n in 1..=RECORDS {
        log.append(NewRecord::value(format!("tick {n}").as_bytes()))?;
        thread::sleep(Duration::from_millis(50));
    }
    follower.join().expect("the follower ends by itself")?;
    println!("the other process ended: {}", other.join().expect("the thread only waits"));
    store.close()?;
    std::fs::remove_dir_all(&dir).expect("the example's own directory");
    Ok(())
}

fn run_again(dir: &Path) -> ExitStatus {
    let program = std::env::current_exe().expect("a program knows its own path");
    Command::new(program).arg(dir).status().expect("it runs already, so it runs again")
}

fn attach(dir: &Path) -> edgelog::Result<()> {
    let store = Store::attach(dir)?;
    // It looks for new batches every 1 to 50 ms, and sees them when they reach the page cache.
    print(&store.log("ticks", 0)?, "process")
}

/// Prints records as they come, until the last one.
fn print(log: &Log, who: &str) -> edgelog::Result<()> {
    let mut reader = log.reader(OffsetSpec::Earliest)?;
    // `reader.follow()` is the same without a timeout, as an iterator.
    while let Some(batch) = reader.next_batch_timeout(Duration::from_secs(10))? {
        for record in batch.records()? {
            let record = record?;
            println!("{who:>7} {} {}", record.offset, String::from_utf8_lossy(record.value.unwrap_or_default()));
        }
        if batch.last_offset() + 1 >= i64::from(RECORDS) {
            break;
        }
    }
    Ok(())
}
