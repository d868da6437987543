#![no_main]
//! One record batch. Any bytes parse or are refused; what parses keeps its promises, and its records, encoded again by
//! our own builder, decode to the same.

use edgelog::edgelog_core::{
    CRC_START, CompressionType, HEADER_LEN, Header, LeaderEpoch, Offset, RecordBatch, RecordBatchBuilder, TimestampMs,
    crc32c, encode_one, stamp_base,
};
use libfuzzer_sys::{arbitrary, fuzz_target};

#[derive(Debug, arbitrary::Arbitrary)]
enum Input<'a> {
    /// Bytes as they are.
    Raw(&'a [u8]),
    /// Bytes whose length field and checksum are put right, so that what lies behind them is reached.
    Sealed(Vec<u8>),
    /// Records: what is encoded decodes to the same.
    Records(Vec<Given<'a>>),
}

#[derive(Debug, arbitrary::Arbitrary)]
struct Given<'a> {
    timestamp: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Raw(bytes) => look_at(bytes),
    Input::Sealed(mut bytes) => {
        if bytes.len() >= HEADER_LEN {
            let length = (bytes.len() - 12) as u32;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[16] = 2;
            let crc = crc32c(&bytes[CRC_START..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        look_at(&bytes);
    }
    Input::Records(records) => round_trip(&records),
});

fn look_at(bytes: &[u8]) {
    let _ = RecordBatch::peek_size(bytes);
    let Ok(batch) = RecordBatch::parse(bytes) else { return };
    assert!(batch.size() <= bytes.len() && batch.size() >= HEADER_LEN);
    assert_eq!(batch.bytes(), &bytes[..batch.size()]);
    assert!(batch.base_offset() >= 0 && batch.next_offset() > batch.last_offset());
    assert!(batch.last_offset() >= batch.base_offset());
    assert_eq!(batch.verify_crc().is_ok(), batch.compute_crc() == batch.crc());
    // Neither base offset nor epoch is under the checksum.
    let mut moved = batch.bytes().to_vec();
    stamp_base(&mut moved, Offset(7), LeaderEpoch(3));
    if let Ok(moved) = RecordBatch::parse(&moved) {
        assert_eq!((moved.base_offset(), moved.partition_leader_epoch()), (Offset(7), LeaderEpoch(3)));
        assert_eq!(moved.verify_crc().is_ok(), batch.verify_crc().is_ok());
    }
    if batch.compression() != CompressionType::None {
        // A batch without records has none, in any codec.
        assert_eq!(batch.records().is_err(), batch.record_count() != 0, "compressed records are not read as they are");
        return;
    }
    let Ok(records) = batch.records() else { return };
    let most = batch.record_count();
    let mut count = 0;
    for record in records {
        count += 1;
        let Ok(record) = record else { break };
        assert!(count <= most);
        for header in record.headers() {
            let _ = (header.key_str(), header.value);
        }
    }
}

fn round_trip(given: &[Given<'_>]) {
    let mut builder = RecordBatchBuilder::new(vec![0; 1 << 16]);
    let mut taken = Vec::new();
    for one in given {
        let headers: Vec<Header<'_>> =
            one.headers.iter().map(|(key, value)| Header { value: *value, ..Header::new(key, b"") }).collect();
        // What does not fit, or lies too far from the first in time, is refused and leaves the batch as it was.
        if builder.append(TimestampMs(one.timestamp), one.key, one.value, &headers).is_ok() {
            taken.push(one);
        }
        let mut alone = vec![0; 1 << 16];
        if let Ok(size) = encode_one(&mut alone, TimestampMs(one.timestamp), one.key, one.value, &headers) {
            let batch = RecordBatch::parse(&alone[..size]).expect("what was encoded parses");
            assert_eq!((batch.verify_crc(), batch.record_count()), (Ok(()), 1));
        }
    }
    if taken.is_empty() {
        return;
    }
    let bytes = builder.finish();
    stamp_base(bytes, Offset(100), LeaderEpoch(1));
    let batch = RecordBatch::parse(bytes).expect("what was encoded parses");
    assert_eq!(batch.verify_crc(), Ok(()));
    assert_eq!(batch.record_count() as usize, taken.len());
    let records = batch.records().expect("not compressed");
    for (n, (record, one)) in records.zip(&taken).enumerate() {
        let record = record.expect("what was encoded decodes");
        assert_eq!((record.offset, record.timestamp), (Offset(100 + n as i64), TimestampMs(one.timestamp)));
        assert_eq!((record.key, record.value), (one.key, one.value));
        let headers: Vec<_> = record.headers().map(|header| (header.key_str(), header.value)).collect();
        let expected: Vec<_> = one.headers.iter().map(|(key, value)| (Some(*key), *value)).collect();
        assert_eq!(headers, expected);
    }
}
