#![no_main]
//! Compressed payloads, in every codec. Any bytes, with any length that they claim, are decompressed within the limit
//! or refused (the stage runs with a limit on single allocations). What other encoders made of records is read back.

use std::cell::RefCell;
use std::io::Write as _;

use edgelog::edgelog_core::{CRC_START, HEADER_LEN, RecordBatchBuilder, TimestampMs, crc32c};
use edgelog::storage::MemoryStorage;
use edgelog::{Durability, NewTopic, OffsetSpec, Store};
use edgelog_fuzz::options;
use libfuzzer_sys::{arbitrary, fuzz_target};

#[derive(Debug, arbitrary::Arbitrary)]
enum Input<'a> {
    /// The payload as it stands in the batch.
    Payload { codec: u8, records: u8, payload: &'a [u8] },
    /// Records, and how they are compressed.
    Records { encoder: u8, level: i8, pieces: u8, repeat: u8, value_len: u8, values: &'a [u8] },
}

/// A store is used for so many batches that were taken, so that memory does not grow.
const TAKEN_MAX: i64 = 500;

thread_local! {
    static STORE: RefCell<Option<Store>> = const { RefCell::new(None) };
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Payload { codec, records, payload } => {
        let records = i32::from(records % 8) + 1;
        let mut header = empty_header();
        header[23..27].copy_from_slice(&(records - 1).to_be_bytes());
        header[57..61].copy_from_slice(&records.to_be_bytes());
        let batch = compressed(&header, codec % 5, payload);
        if let Some(read) = append_and_read(&batch) {
            assert_eq!(read.len(), records as usize, "it was taken for whole");
        }
    }
    Input::Records { encoder, level, pieces, repeat, value_len, values } => {
        let mut builder = RecordBatchBuilder::new(vec![0; 1 << 18]);
        let mut taken: Vec<Vec<u8>> = Vec::new();
        for value in values.chunks(usize::from(value_len) + 1).take(64) {
            let value = value.repeat(1 + usize::from(repeat % 16));
            if builder.append(TimestampMs(1000), None, Some(&value), &[]).is_ok() {
                taken.push(value);
            }
        }
        if taken.is_empty() {
            return;
        }
        let payload = builder.payload().to_vec();
        let whole = builder.finish();
        let codec = encoder % 4 + 1;
        let packed = compress(codec, level, usize::from(pieces), &payload);
        let batch = compressed(&whole[..HEADER_LEN], codec, &packed);
        // However much they shrank: the limit is an absolute one, far above these.
        let read = append_and_read(&batch);
        assert_eq!(read.as_ref(), Some(&taken), "codec {codec}: {} bytes of {}", packed.len(), payload.len());
    }
});

fn empty_header() -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(vec![0; 256]);
    builder.append(TimestampMs(1000), None, Some(b"v"), &[]).expect("it fits");
    builder.finish()[..HEADER_LEN].to_vec()
}

/// A batch of this header, codec and payload, with the length and the checksum that belong to them.
fn compressed(header: &[u8], codec: u8, payload: &[u8]) -> Vec<u8> {
    let mut batch = [header, payload].concat();
    batch[21..23].copy_from_slice(&u16::from(codec).to_be_bytes());
    let length = (batch.len() - 12) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn compress(codec: u8, level: i8, pieces: usize, payload: &[u8]) -> Vec<u8> {
    // A stream is flushed between pieces: frames of several blocks, stored ones among them.
    let pieces: Vec<&[u8]> = payload.chunks(payload.len() / (1 + pieces % 8) + 1).collect();
    match codec {
        1 => {
            let level = flate2::Compression::new(u32::from(level.unsigned_abs() % 10));
            let mut out = flate2::write::GzEncoder::new(Vec::new(), level);
            for piece in pieces {
                out.write_all(piece).and_then(|()| out.flush()).expect("memory");
            }
            out.finish().expect("memory")
        }
        2 if level % 2 == 0 => snap::raw::Encoder::new().compress_vec(payload).expect("it is short"),
        2 => {
            // As Java's clients frame it: a header, and blocks with their lengths.
            let mut out = [&b"\x82SNAPPY\0"[..], &1u32.to_be_bytes(), &1u32.to_be_bytes()].concat();
            for piece in pieces {
                let block = snap::raw::Encoder::new().compress_vec(piece).expect("it is short");
                out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                out.extend_from_slice(&block);
            }
            out
        }
        3 => {
            let mut info = lz4_flex::frame::FrameInfo::new().block_checksums(level % 2 == 0);
            info = info.content_checksum(level % 3 == 0).block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut out = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            for piece in pieces {
                out.write_all(piece).and_then(|()| out.flush()).expect("memory");
            }
            out.finish().expect("memory")
        }
        _ => {
            let mut out = zstd::stream::Encoder::new(Vec::new(), i32::from(level % 20)).expect("a level");
            out.include_checksum(level % 2 == 0).expect("a flag");
            for piece in pieces {
                out.write_all(piece).and_then(|()| out.flush()).expect("memory");
            }
            out.finish().expect("memory")
        }
    }
}

/// The values of the batch's records once it stands in a log; `None` where it was refused.
fn append_and_read(batch: &[u8]) -> Option<Vec<Vec<u8>>> {
    STORE.with_borrow_mut(|kept| {
        let store = kept.get_or_insert_with(|| {
            let store = options().open_on(MemoryStorage::new()).expect("an empty disk");
            store.create_topic(&NewTopic::new("t")).expect("a new topic");
            store
        });
        let log = store.log("t", 0).expect("just created");
        let info = log.append_encoded(batch, Durability::Os).ok()?;
        let mut reader = log.reader(OffsetSpec::Offset(info.base_offset)).expect("it was appended");
        let read = reader.next_batch().expect("a disk without faults").expect("it was appended");
        let records = read.records().expect("it was looked at before it was taken");
        let values = records.map(|record| record.expect("as above").value.unwrap_or_default().to_vec()).collect();
        drop(reader);
        if info.last_offset > TAKEN_MAX {
            *kept = None;
        }
        Some(values)
    })
}
