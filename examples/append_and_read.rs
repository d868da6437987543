//! Appends at each durability level, one by one and in batches, and reads by offset and by time.
//!
//!     cargo run --example append_and_read [DIR]

use std::path::PathBuf;

use edgelog::{Durability, Header, NewRecord, NewTopic, OffsetSpec, Store};

fn main() -> edgelog::Result<()> {
    let dir = std::env::args_os().nth(1).map_or_else(|| std::env::temp_dir().join("edgelog-example"), PathBuf::from);
    let store = Store::open(&dir)?;
    println!("{}: {}", dir.display(), store.recovery_report());
    store.create_topic_if_absent(&NewTopic::new("boiler").config("retention.bytes", "67108864"))?;
    let log = store.log("boiler", 0)?;
    println!("offsets at first: {:?}", log.offsets());

    // One record. The topic's own level is Sync: it is on the disk when this returns.
    let unit = [Header::new("unit", b"C")];
    let first = log.append(NewRecord::value(b"21.5").with_key(b"flow").with_headers(&unit))?;
    println!("one record at {}", first.position());

    // A weaker level, by name: in the page cache, which survives kill -9 and not a power cut.
    log.append_with(NewRecord::value(b"21.6").with_key(b"flow"), Durability::Os)?;

    // Many records in one batch: all of them are in the log or none, and one flush serves all. The builder is kept
    // and filled again without allocating.
    let mut batch = log.batch();
    for n in 0..100 {
        batch.push(NewRecord::value(format!("{n}").as_bytes()).with_key(b"counter"))?;
    }
    let info = log.append_batch(&mut batch)?;
    println!("a batch at {} to {}", info.base_offset, info.last_offset);

    // By offset. A batch borrows its bytes from the segment and keeps them alive; records borrow from the batch.
    let mut reader = log.reader(OffsetSpec::Position(first.position()))?;
    let mut count = 0;
    while let Some(batch) = reader.next_batch()? {
        for record in batch.records()? {
            let record = record?;
            if count < 3 {
                let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                println!("{} {:?} = {:?}", record.offset, text(record.key), text(record.value));
            }
            count += 1;
        }
    }
    println!("... {count} records in all");

    // By time: the first record at or after a timestamp.
    println!("the first of the batch by time: {:?}", log.offset_for_time(info.max_timestamp)?);
    println!("offsets at last: {:?}", log.offsets());
    store.close()
}
