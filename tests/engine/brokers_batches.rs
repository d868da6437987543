//! Batches that a broker's files may hold and this engine never writes: payloads that pack beyond any ratio or do not
//! decode, batches without records, and transactions.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "zstd")]
use edgelog::CodecError;
#[cfg(any(feature = "snappy", feature = "zstd"))]
use edgelog::NewTopic;
use edgelog::edgelog_core::{CRC_START, DecodeError, Offset, RecordBatchBuilder, TimestampMs, crc32c};
use edgelog::inspect::{self, CheckReport, ExportRange, Selection};
#[cfg(feature = "zstd")]
use edgelog::inspect::{DumpItem, DumpOptions, Severity};
use edgelog::storage::{Access, MemoryStorage, Storage};
use edgelog::{DamageKind, Durability, Error, IsolationLevel, Log, NewRecord, OffsetSpec, Reader, Store, StoreOptions};

const LOG: &str = "t-0/00000000000000000000.log";
const TRANSACTIONAL: u16 = 0x10;
const CONTROL: u16 = 0x20;
#[cfg(feature = "zstd")]
const ZSTD: u16 = 4;

/// A batch with the values at `base_offset` and on, of no producer.
fn plain(base_offset: i64, values: &[&str]) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(vec![0; 4096]);
    for value in values {
        builder.append(TimestampMs(1000 + base_offset), None, Some(value.as_bytes()), &[]).unwrap();
    }
    let mut batch = builder.finish().to_vec();
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&0_i32.to_be_bytes());
    batch
}

/// The same batch after `change`, with the length and the CRC that belong to it.
fn changed(mut batch: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut batch);
    let length = (batch.len() - 12) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn set_attributes(batch: &mut [u8], attributes: u16) {
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
}

/// A batch of the transaction that the producer is in.
fn of(producer_id: i64, batch: Vec<u8>) -> Vec<u8> {
    changed(batch, |batch| {
        set_attributes(batch, TRANSACTIONAL);
        batch[43..51].copy_from_slice(&producer_id.to_be_bytes());
        batch[51..53].copy_from_slice(&0_u16.to_be_bytes());
        batch[53..57].copy_from_slice(&0_u32.to_be_bytes());
    })
}

/// A control batch: 0 aborts the producer's transaction, 1 commits it.
fn marker(base_offset: i64, producer_id: i64, kind: u16) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(vec![0; 256]);
    let key = [[0, 0], kind.to_be_bytes()].concat();
    builder.append(TimestampMs(1000), Some(&key), Some(&[0; 6]), &[]).unwrap();
    let mut batch = builder.finish().to_vec();
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&0_i32.to_be_bytes());
    changed(batch, |batch| {
        set_attributes(batch, TRANSACTIONAL | CONTROL);
        batch[43..51].copy_from_slice(&producer_id.to_be_bytes());
        batch[51..53].copy_from_slice(&0_u16.to_be_bytes());
    })
}

/// A batch of one record, which is `len` times the letter x: under zstd, four bytes for each 128 KiB.
#[cfg(feature = "zstd")]
fn one_letter(base_offset: i64, len: usize) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(vec![0; len + 256]);
    builder.append(TimestampMs(1000 + base_offset), None, Some(&vec![b'x'; len]), &[]).unwrap();
    let payload = builder.payload().to_vec();
    let batch = plain(base_offset, &["x"]);
    let head = payload.len() - len - 1;
    let block = |last: bool, kind: usize, len: usize| ((len << 3 | kind << 1 | usize::from(last)) as u32).to_le_bytes();
    let mut frame = b"\x28\xB5\x2F\xFD\xA0".to_vec();
    frame.extend((payload.len() as u32).to_le_bytes());
    frame.extend(&block(false, 0, head)[..3]);
    frame.extend(&payload[..head]);
    let mut left = len;
    while left > 0 {
        let piece = left.min(128 << 10);
        frame.extend(&block(false, 1, piece)[..3]);
        frame.push(b'x');
        left -= piece;
    }
    frame.extend(&block(true, 0, 1)[..3]);
    frame.push(0);
    compressed(batch, ZSTD, &frame)
}

/// The header of `batch` with another payload.
#[cfg(feature = "zstd")]
fn compressed(batch: Vec<u8>, codec: u16, payload: &[u8]) -> Vec<u8> {
    changed(batch, |batch| {
        set_attributes(batch, codec);
        batch.truncate(61);
        batch.extend_from_slice(payload);
    })
}

/// A partition that was copied from a broker.
fn copied(batches: &[Vec<u8>]) -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.create_dir("t-0").unwrap();
    let file = storage.open(LOG, Access::CreateNew).unwrap();
    file.write_at(&batches.concat(), 0).unwrap();
    storage
}

fn options() -> StoreOptions {
    Store::options().set("edgelog.housekeeping", "tick").unwrap()
}

fn open(storage: &MemoryStorage) -> (Store, Log) {
    let store = options().open_on(storage.clone()).unwrap();
    let log = store.log("t", 0).unwrap();
    (store, log)
}

fn committed(log: &Log, from: OffsetSpec) -> Reader {
    log.reader_with(from, log.reader_options().isolation(IsolationLevel::ReadCommitted)).unwrap()
}

/// The values that the reader gives until it has no more.
fn values(reader: &mut Reader) -> Vec<String> {
    let mut values = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records().unwrap() {
            values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

fn all(log: &Log, isolation: IsolationLevel) -> Vec<String> {
    let options = log.reader_options().isolation(isolation);
    values(&mut log.reader_with(OffsetSpec::Earliest, options).unwrap())
}

fn shared(storage: &MemoryStorage) -> Arc<dyn Storage> {
    Arc::new(storage.clone())
}

fn check(storage: &MemoryStorage) -> CheckReport {
    inspect::check(&shared(storage), &Selection::all(), &mut |_| ControlFlow::Continue(())).unwrap()
}

// Transactions.

#[test]
fn read_committed_leaves_out_records_of_aborted_transactions() {
    let storage = copied(&[
        plain(0, &["before"]),
        of(7, plain(1, &["a1", "a2"])),
        of(8, plain(3, &["c1"])),
        plain(4, &["between"]),
        of(7, plain(5, &["a3"])),
        marker(6, 7, 0),
        of(8, plain(7, &["c2"])),
        marker(8, 8, 1),
        of(7, plain(9, &["c3"])),
        marker(10, 7, 1),
        plain(11, &["after"]),
    ]);
    let (_store, log) = open(&storage);
    let everything = ["before", "a1", "a2", "c1", "between", "a3", "c2", "c3", "after"];
    assert_eq!(all(&log, IsolationLevel::ReadUncommitted), everything);
    let stable = ["before", "c1", "between", "c2", "c3", "after"];
    assert_eq!(all(&log, IsolationLevel::ReadCommitted), stable);
    for (offset, from) in [(1, 1), (2, 1), (5, 3), (6, 3), (9, 4), (11, 5), (12, 6)] {
        assert_eq!(values(&mut committed(&log, OffsetSpec::Offset(Offset(offset)))), stable[from..], "from {offset}");
    }
    assert_eq!(log.offset_for_time(TimestampMs(1005)).unwrap().unwrap().offset, 5);
}

#[test]
fn the_key_isolation_level_is_the_default_of_readers() {
    let storage = copied(&[of(7, plain(0, &["aborted"])), marker(1, 7, 0), plain(2, &["plain"])]);
    let options = options().set("isolation.level", "read_committed").unwrap();
    let store = options.open_on(storage).unwrap();
    let log = store.log("t", 0).unwrap();
    assert_eq!(values(&mut log.reader(OffsetSpec::Earliest).unwrap()), ["plain"]);
    assert!(Store::options().set("isolation.level", "committed").is_err());
}

#[test]
fn read_committed_stops_where_an_open_transaction_begins() {
    let storage = copied(&[plain(0, &["before"]), of(7, plain(1, &["open"])), plain(2, &["behind"])]);
    let (_store, log) = open(&storage);
    let mut reader = committed(&log, OffsetSpec::Earliest);
    assert_eq!(values(&mut reader), ["before"]);
    assert_eq!((reader.position().offset, reader.lag()), (Offset(1), 0));
    log.append_with(NewRecord::value(b"own"), Durability::Os).unwrap();
    assert_eq!(values(&mut reader), [""; 0]);
    // It waits for news, and does not take what lies behind the open transaction for some.
    assert!(reader.next_batch_timeout(Duration::from_millis(1)).unwrap().is_none());
    assert_eq!(committed(&log, OffsetSpec::Latest).position().offset, 1);
    assert_eq!(values(&mut committed(&log, OffsetSpec::Last(1))), ["before"]);
    assert_eq!(all(&log, IsolationLevel::ReadUncommitted), ["before", "open", "behind", "own"]);
}

#[test]
fn a_follower_goes_on_when_the_transaction_ends() {
    let storage = copied(&[plain(0, &["before"]), of(7, plain(1, &["open"]))]);
    let store = options().attach_on(storage.clone()).unwrap();
    let log = store.log("t", 0).unwrap();
    let mut reader = committed(&log, OffsetSpec::Earliest);
    assert_eq!(values(&mut reader), ["before"]);
    let file = storage.open(LOG, Access::Write).unwrap();
    let append = |batch: Vec<u8>| file.write_at(&batch, file.len().unwrap()).unwrap();
    append(of(8, plain(2, &["other"])));
    assert_eq!(values(&mut reader), [""; 0]);
    append(marker(3, 7, 1));
    assert_eq!(values(&mut reader), ["open"]);
    append(marker(4, 8, 0));
    append(plain(5, &["last"]));
    assert_eq!(values(&mut reader), ["last"]);
}

#[test]
fn an_open_transaction_behind_a_hole_is_not_reached() {
    let storage = copied(&[plain(0, &["before"]), of(7, plain(10, &["open"])), plain(20, &["behind"])]);
    let (_store, log) = open(&storage);
    assert_eq!(all(&log, IsolationLevel::ReadCommitted), ["before"]);
    assert_eq!(values(&mut committed(&log, OffsetSpec::Offset(Offset(5)))), [""; 0]);
    assert_eq!(all(&log, IsolationLevel::ReadUncommitted), ["before", "open", "behind"]);
}

#[test]
fn markers_of_other_kinds_and_batches_that_compaction_emptied_end_and_begin_nothing() {
    let emptied = changed(of(9, plain(3, &["gone"])), |batch| {
        batch.truncate(61);
        batch[57..61].copy_from_slice(&0_u32.to_be_bytes());
    });
    let storage = copied(&[
        of(7, plain(0, &["aborted"])),
        marker(1, 7, 2),
        of(7, plain(2, &["aborted too"])),
        emptied,
        marker(4, 7, 0),
        plain(5, &["plain"]),
    ]);
    let (_store, log) = open(&storage);
    assert_eq!(all(&log, IsolationLevel::ReadCommitted), ["plain"]);
}

/// Offsets of the committed records from `from` on, and the ranges that are reported instead of others.
fn committed_and_reported(log: &Log, from: OffsetSpec) -> (Vec<i64>, Vec<(i64, i64)>) {
    let mut reader = committed(log, from);
    let (mut seen, mut reported) = (Vec::new(), Vec::new());
    loop {
        match reader.next_batch() {
            Ok(Some(batch)) => seen.extend(batch.records().unwrap().map(|record| record.unwrap().offset.0)),
            Ok(None) => return (seen, reported),
            Err(error) => {
                assert!(error.is_corrupt(), "{error}");
                // The reader stays until it is sent on.
                assert_eq!(reader.next_batch().unwrap_err().to_string(), error.to_string());
                let range = reader.skip_damage().unwrap();
                reported.push((range.first_offset.0, range.next_offset.0));
            }
        }
    }
}

#[test]
fn a_marker_that_damage_took_leaves_its_records_in_doubt_and_hides_nothing_behind() {
    let before = [plain(0, &["before"]), of(7, plain(1, &["in doubt"]))].concat();
    let storage = copied(&[before.clone(), marker(2, 7, 1), plain(3, &["behind"])]);
    open(&storage).0.close().unwrap();
    let file = storage.open(LOG, Access::Write).unwrap();
    file.write_at(b"?", before.len() as u64 + 70).unwrap();
    let (_store, log) = open(&storage);
    assert_eq!(committed_and_reported(&log, OffsetSpec::Earliest), (vec![0, 3], vec![(1, 2), (2, 3)]));
    assert_eq!(committed_and_reported(&log, OffsetSpec::Offset(Offset(2))), (vec![3], vec![(2, 3)]));
}

/// For every batch that its producer may write behind a damaged marker, and for every change of the header by damage.
#[test]
fn the_records_before_a_damaged_marker_are_never_committed_ones() {
    let behind = |producer| {
        let other = [of(producer, plain(2, &["b"])), marker(3, producer, 1)].concat();
        [other, plain(4, &["c"])].concat()
    };
    for place in [16, 21, 22, 23, 43, 50, 57, 66, 70] {
        for (producer, expected) in [(7, [2, 4]), (8, [2, 4])] {
            let mut damaged = marker(1, 7, 0);
            damaged[place] ^= 1;
            let storage = copied(&[of(7, plain(0, &["a"])), damaged, behind(producer)]);
            let (_store, log) = open(&storage);
            let (seen, reported) = committed_and_reported(&log, OffsetSpec::Earliest);
            assert_eq!(seen, expected, "byte {place}, producer {producer}");
            assert_eq!(reported, [(0, 1), (1, 2)], "byte {place}, producer {producer}");
        }
    }
}

/// A marker that does not say what it is concerns its producer's transaction alone.
#[test]
fn a_marker_without_a_type_leaves_the_records_of_its_transaction_in_doubt() {
    let short = changed(marker(2, 7, 0), |batch| {
        batch.truncate(61);
        // Length, attributes, time delta, offset delta, a key of one byte, no value, no headers.
        batch.extend([14, 0, 0, 0, 2, 0, 1, 0]);
    });
    let of_others = [of(8, plain(1, &["b"])), short, marker(3, 8, 1), plain(4, &["c"])].concat();
    let storage = copied(&[of(7, plain(0, &["a"])), of_others]);
    let (_store, log) = open(&storage);
    assert_eq!(committed_and_reported(&log, OffsetSpec::Earliest), (vec![1, 4], vec![(0, 1)]));
}

/// Kafka compresses no marker; its clients read one that is compressed.
#[test]
#[cfg(feature = "zstd")]
fn a_compressed_marker_ends_its_transaction() {
    for (kind, expected) in [(0, vec![2]), (1, vec![0, 2])] {
        let plain_marker = marker(1, 7, kind);
        let records = plain_marker[61..].to_vec();
        let mut frame = b"\x28\xB5\x2F\xFD\x20".to_vec();
        frame.push(records.len() as u8);
        frame.extend(&((records.len() << 3 | 1) as u32).to_le_bytes()[..3]);
        frame.extend(&records);
        let packed = changed(plain_marker, |batch| {
            set_attributes(batch, TRANSACTIONAL | CONTROL | ZSTD);
            batch.truncate(61);
            batch.extend_from_slice(&frame);
        });
        let storage = copied(&[of(7, plain(0, &["a"])), packed, plain(2, &["b"])]);
        let (_store, log) = open(&storage);
        assert_eq!(committed_and_reported(&log, OffsetSpec::Earliest), (expected, vec![]), "{kind}");
    }
}

#[test]
fn the_last_committed_records_are_counted_without_the_others() {
    let aborted = of(7, plain(3, &["x", "y", "z"]));
    let open_one = of(8, plain(8, &["later"]));
    let storage = copied(&[plain(0, &["a", "b", "c"]), aborted, marker(6, 7, 0), plain(7, &["d"]), open_one]);
    let (_store, log) = open(&storage);
    for (count, expected) in [(0, vec![]), (1, vec![7]), (2, vec![2, 7]), (4, vec![0, 1, 2, 7]), (9, vec![0, 1, 2, 7])]
    {
        assert_eq!(committed_and_reported(&log, OffsetSpec::Last(count)).0, expected, "{count}");
    }
}

#[test]
fn an_export_of_records_can_leave_aborted_ones_out() {
    let storage = copied(&[plain(0, &["a"]), of(7, plain(1, &["b"])), marker(2, 7, 0), plain(3, &["c"])]);
    let export = |isolation| {
        let range = ExportRange::default().isolation(isolation);
        let mut seen = Vec::new();
        let name = "t-0".parse().unwrap();
        inspect::export_records(
            &shared(&storage),
            &name,
            range,
            &mut |record, _| {
                seen.push(record.offset);
                Ok(())
            },
            &mut |_| ControlFlow::Continue(()),
        )
        .unwrap();
        seen
    };
    assert_eq!(export(IsolationLevel::ReadUncommitted), [0, 1, 3]);
    assert_eq!(export(IsolationLevel::ReadCommitted), [0, 3]);
}

// Payloads.

/// A batch whose records do not decode, between two good ones.
fn with_bad_records() -> MemoryStorage {
    let bad = changed(plain(1, &["x", "y", "z"]), |batch| {
        batch[57..61].copy_from_slice(&2_u32.to_be_bytes());
        batch[23..27].copy_from_slice(&1_u32.to_be_bytes());
    });
    copied(&[plain(0, &["before"]), bad, plain(3, &["behind"])])
}

#[test]
fn records_that_do_not_decode_are_damage_with_its_place_and_its_offsets() {
    let storage = with_bad_records();
    let (_store, log) = open(&storage);
    let mut reader = log.reader(OffsetSpec::Offset(Offset(1))).unwrap();
    let batch = reader.next_batch().unwrap().unwrap();
    let read: Vec<_> = batch.records().unwrap().collect();
    assert_eq!(read[..2].iter().map(|record| record.as_ref().unwrap().offset).collect::<Vec<_>>(), [1, 2]);
    let error = read[2].as_ref().unwrap_err();
    assert!(
        matches!(error, Error::CorruptBatch { file, position, base_offset: Offset(1), last_offset: Offset(2), source }
            if file == LOG && position.0 as usize == plain(0, &["before"]).len()
                && matches!(source, DamageKind::Batch(DecodeError::RecordsRemaining { .. }))),
        "{error:?}"
    );
    assert!(error.is_corrupt() && !error.is_retriable());
    assert_eq!(error.kafka_code(), Some(2));
    assert!(!error.to_string().contains("append"), "{error}");
    assert_eq!(values(&mut reader), ["behind"]);
    // A search by time gives the batch, and does not fail for the whole log.
    assert_eq!(log.offset_for_time(TimestampMs(1001)).unwrap().unwrap().offset, 1);
    assert_eq!(log.offset_for_time(TimestampMs(1003)).unwrap().unwrap().offset, 3);
}

#[test]
fn batches_without_records_are_read_with_any_payload() {
    let emptied = |base_offset, codec, payload: &[u8]| {
        changed(plain(base_offset, &["gone"]), |batch| {
            batch[57..61].copy_from_slice(&0_u32.to_be_bytes());
            set_attributes(batch, codec);
            batch.truncate(61);
            batch.extend_from_slice(payload);
        })
    };
    let mut batches: Vec<Vec<u8>> = (0..5).map(|codec| emptied(i64::from(codec), codec, b"")).collect();
    batches.extend((0..5).map(|codec| emptied(5 + i64::from(codec), codec, b"any bytes")));
    batches.push(plain(10, &["behind"]));
    let storage = copied(&batches);
    let (store, log) = open(&storage);
    assert_eq!(values(&mut log.reader(OffsetSpec::Earliest).unwrap()), ["behind"]);
    store.close().unwrap();
    assert!(check(&storage).is_sound(), "{:?}", check(&storage).findings);
}

#[test]
#[cfg(feature = "zstd")]
fn a_batch_of_one_letter_is_sound_however_much_it_shrank() {
    for len in [30_000, 1 << 20, 20 << 20] {
        let batch = one_letter(0, len);
        assert!(batch.len() < len / 200, "{len} became {}", batch.len());
        let storage = copied(&[batch.clone(), plain(1, &["behind"])]);
        let (store, log) = open(&storage);
        let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
        let read = reader.next_batch().unwrap().unwrap();
        assert_eq!(read.records().unwrap().next().unwrap().unwrap().value, Some(&vec![b'x'; len][..]));
        assert_eq!(log.offset_for_time(TimestampMs(1000)).unwrap().unwrap().offset, 0);
        store.close().unwrap();
        let report = check(&storage);
        assert!(report.findings.iter().all(|found| found.severity == Severity::Note), "{:?}", report.findings);
        let repair =
            || inspect::repair(&shared(&storage), &Selection::all(), false, &mut |_| ControlFlow::Continue(()));
        assert_eq!(repair().unwrap().actions, []);
        // Other writers' batches are appended as well.
        let store = options().open_on(MemoryStorage::new()).unwrap();
        store.create_topic(&NewTopic::new("t")).unwrap();
        let log = store.log("t", 0).unwrap();
        log.append_encoded(&batch, Durability::Os).unwrap();
    }
}

#[test]
#[cfg(feature = "zstd")]
fn a_batch_beyond_the_key_is_no_damage_and_says_what_would_read_it() {
    const LEN: usize = 100_000;
    let storage = copied(&[plain(0, &["before"]), one_letter(1, LEN), plain(2, &["behind"])]);
    let limit = |bytes: &str| options().set("edgelog.decompressed.bytes.max", bytes).unwrap();
    let store = limit("50000").open_on(storage.clone()).unwrap();
    let log = store.log("t", 0).unwrap();
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    reader.next_batch().unwrap().unwrap();
    let batch = reader.next_batch().unwrap().unwrap();
    let error = batch.records().unwrap_err();
    assert!(
        matches!(&error, Error::NotDecompressed { file, base_offset: Offset(1), last_offset: Offset(1), source, .. }
            if file == LOG && matches!(source, CodecError::TooLarge { limit: 50_000, .. })),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains("edgelog.decompressed.bytes.max=50000") && text.contains("1000"), "{text}");
    assert!(!error.is_corrupt());
    assert_eq!(error.kafka_code(), Some(10));
    assert_eq!(values(&mut reader), ["behind"]);
    assert_eq!(log.offset_for_time(TimestampMs(1001)).unwrap().unwrap().offset, 1);
    assert_eq!(log.offset_for_time(TimestampMs(1002)).unwrap().unwrap().offset, 2);
    // An append of it is refused for the same reason.
    let refused = log.append_encoded(&one_letter(0, LEN), Durability::Os).unwrap_err();
    assert!(matches!(refused, Error::Compression(CodecError::TooLarge { limit: 50_000, .. })), "{refused}");
    assert_eq!(refused.kafka_code(), Some(10));
    store.close().unwrap();
    // With room enough it is read.
    let store = limit("200000").open_on(storage).unwrap();
    let log = store.log("t", 0).unwrap();
    let mut reader = log.reader(OffsetSpec::Offset(Offset(1))).unwrap();
    assert_eq!(reader.next_batch().unwrap().unwrap().records().unwrap().count(), 1);
}

#[test]
#[cfg(feature = "zstd")]
fn no_command_takes_a_batch_beyond_the_default_for_damage() {
    // The frame says its size, so nothing is taken before it is refused.
    let huge = one_letter(1, 200 << 20);
    let storage = copied(&[plain(0, &["before"]), huge.clone(), plain(2, &["behind"])]);
    open(&storage).0.close().unwrap();
    let report = check(&storage);
    assert!(report.is_sound(), "{:?}", report.findings);
    let finding = report.findings.iter().find(|found| found.text.contains("edgelog.decompressed.bytes.max=134217728"));
    assert!(finding.is_some_and(|found| found.text.contains("offset 1:") && found.lost.is_none()), "{report:?}");
    let go_on = &mut |_| ControlFlow::Continue(());
    for _ in 0..2 {
        assert_eq!(inspect::repair(&shared(&storage), &Selection::all(), false, go_on).unwrap().actions, []);
    }
    let name = "t-0".parse().unwrap();
    let mut seen = Vec::new();
    let mut collect = |record: &edgelog::Record<'_>, _| {
        seen.push(record.offset);
        Ok(())
    };
    let records =
        inspect::export_records(&shared(&storage), &name, ExportRange::default(), &mut collect, go_on).unwrap();
    assert_eq!(seen, [0, 2]);
    assert_eq!(records.lost.len(), 1);
    assert!(records.lost[0].severity == Severity::Note && records.lost[0].text.contains("bytes.max"), "{records:?}");
    let target = MemoryStorage::new();
    let range = ExportRange::default();
    let files = inspect::export_partition(&shared(&storage), &name, &shared(&target), range, None, go_on).unwrap();
    assert_eq!((files.batches, files.lost.len()), (3, 0));
    let mut not_decompressed = 0;
    let deep = DumpOptions::default().deep(true);
    let dumped = inspect::dump(&storage, LOG, deep, &mut |item| {
        match item {
            DumpItem::Batch { is_valid, .. } => assert!(is_valid),
            DumpItem::NotDecompressed { reason, .. } => {
                assert!(reason.contains("bytes.max"), "{reason}");
                not_decompressed += 1;
            }
            DumpItem::Invalid { reason, .. } => panic!("{reason}"),
            _ => {}
        }
        Ok(())
    });
    assert!(!dumped.unwrap().damaged);
    assert_eq!(not_decompressed, 1);
}

#[test]
#[cfg(feature = "snappy")]
fn an_append_is_not_compressed_beyond_what_a_reader_may_decompress() {
    let options = options().set("edgelog.decompressed.bytes.max", "2000").unwrap();
    let store = options.open_on(MemoryStorage::new()).unwrap();
    store.create_topic(&NewTopic::new("t").config("compression.type", "snappy")).unwrap();
    let log = store.log("t", 0).unwrap();
    let value = [b'x'; 1500];
    log.append(NewRecord::value(&value)).unwrap();
    log.append(NewRecord::value(&value.repeat(2))).unwrap();
    let mut batch = log.batch();
    for _ in 0..2 {
        batch.push(NewRecord::value(&value)).unwrap();
    }
    log.append_batch(&mut batch).unwrap();
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    let (mut sizes, mut records) = (Vec::new(), 0);
    while let Some(batch) = reader.next_batch().unwrap() {
        sizes.push(batch.bytes().len());
        records += batch.records().unwrap().map(Result::unwrap).count();
    }
    assert_eq!(records, 4);
    assert!(sizes[0] < 500 && sizes[1] > 3000 && sizes[2] > 3000, "{sizes:?}");
}
