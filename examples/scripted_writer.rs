//! A writer that carries out the orders that it reads from standard input, and prints the result of each.
//!
//!     cargo run --example scripted_writer DIR
//!
//! Each line is one of these, answered by a line that begins with `ok` (and the record's offset, where there is one) or
//! `error`:
//!
//! ```text
//! create TOPIC          where it is absent
//! os TOPIC VALUE        appends, into the page cache
//! sync TOPIC VALUE      appends; durable when it is answered
//! flush TOPIC
//! open                  closes the store and opens it again, also if the closing fails
//! ```
//!
//! It stays after an error, as a program does whose log has become read-only while its others go on. The tests of the
//! bridge next to a writer (`tests/bridge/eio.py`) look at what other processes see of it then.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use edgelog::{Durability, NewRecord, NewTopic, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: scripted_writer DIR")?);
    let mut store = Store::open(&dir)?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut out = std::io::stdout().lock();
        match obey(&mut store, &dir, &line) {
            Ok(answer) => writeln!(out, "ok{answer}")?,
            Err(error) => writeln!(out, "error {error}")?,
        }
        out.flush()?;
    }
    store.close()?;
    Ok(())
}

fn obey(store: &mut Store, dir: &Path, line: &str) -> Result<String, Box<dyn Error>> {
    let mut words = line.splitn(3, ' ');
    let (what, topic, value) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let durability = match what {
        Some("create") => {
            store.create_topic_if_absent(&NewTopic::new(topic))?;
            return Ok(String::new());
        }
        Some("open") => {
            let _ = store.close();
            *store = Store::open(dir)?;
            return Ok(String::new());
        }
        Some("flush") => {
            store.log(topic, 0)?.flush()?;
            return Ok(String::new());
        }
        Some("os") => Durability::Os,
        Some("sync") => Durability::Sync,
        _ => return Err(format!("no such order: {line}").into()),
    };
    let info = store.log(topic, 0)?.append_with(NewRecord::value(value.as_bytes()), durability)?;
    Ok(format!(" {}", info.base_offset))
}
