//! What a transaction will carry, complete before it is opened: for each log one contiguous range of offsets, as
//! batches that a broker takes.
//!
//! A stored batch of decent size goes as it is, undecoded. Small ones are coalesced, records unchanged, into one with
//! the log's own compression; so are batches that a broker would not take as they are, and one that is larger than
//! the target allows becomes several. A range always ends where a stored batch ends.

use bytes::BytesMut;
use edgelog_core::{CompressionType, EncodeError, HEADER_LEN, Header, Offset, RecordBatchBuilder, TimestampMs};

use super::lane::Lane;
use super::position::BatchMark;
use super::stamp;
use crate::codec;
use crate::error::Error;
use crate::{Batch, Record};

/// A stored batch below this is coalesced with its neighbours.
const SMALL_BYTES: usize = 16 << 10;
/// Coalesced batches hold so many bytes before compression.
const COALESCED_BYTES: usize = 256 << 10;
/// So many small batches are held at once: each holds a piece of a map.
const SMALL_COUNT_MAX: usize = 4096;
/// What one log may add before it is another one's turn.
const TURN_BYTES: usize = 512 << 10;

/// A batch for one partition of the target, not yet stamped.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) lane: usize,
    pub(super) wire: BytesMut,
    pub(super) records: i32,
}

/// Where a log's range ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct RangeEnd {
    pub(super) lane: usize,
    pub(super) offset: Offset,
    pub(super) mark: BatchMark,
}

/// What one transaction carries.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// In the order of each log's offsets.
    pub(super) pieces: Vec<Piece>,
    pub(super) ends: Vec<RangeEnd>,
    pub(super) bytes: usize,
}

impl Collected {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Records in all.
    pub(super) fn records(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.records as u64).sum()
    }
}

/// Reads from all lanes in turn until there is no more, or `bytes_max` are reached (by at most one batch each).
/// What a lane cannot send is told in its `waits`; what it had before that is sent.
pub(super) fn collect(lanes: &mut [Lane], bytes_max: usize, now: TimestampMs) -> Collected {
    let mut collected = Collected::default();
    let mut more = true;
    while more && collected.bytes < bytes_max {
        more = false;
        for (n, lane) in lanes.iter_mut().enumerate() {
            if collected.bytes >= bytes_max {
                break;
            }
            let turn_max = (bytes_max - collected.bytes).min(TURN_BYTES);
            more |= take_turn(n, lane, turn_max, now, &mut collected);
        }
    }
    collected
}

/// One lane's turn; whether it had anything.
fn take_turn(n: usize, lane: &mut Lane, bytes_max: usize, now: TimestampMs, collected: &mut Collected) -> bool {
    if lane.waits.is_some() {
        return false;
    }
    let Some(mut reader) = lane.reader.take() else { return false };
    let mut turn = Turn { lane: n, log: lane, small: Vec::new(), small_bytes: 0, bytes: 0, end: None, collected };
    let mut waits = None;
    while turn.bytes + turn.small_bytes < bytes_max {
        let from = reader.position().offset;
        let batch = match reader.next_batch() {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(Error::OffsetOutOfRange { requested, log_start_offset, .. }) if requested < log_start_offset => {
                waits = Some(super::lane::deleted_unsent(requested, log_start_offset));
                break;
            }
            Err(error) => {
                waits = Some(error.to_string());
                break;
            }
        };
        if let Err(reason) = turn.add(batch, from, now) {
            waits = Some(reason);
            break;
        }
    }
    if let Err(reason) = turn.flush() {
        waits = Some(reason);
    }
    let (end, any) = (turn.end, turn.end.is_some());
    if let Some((offset, mark)) = end {
        let end = RangeEnd { lane: n, offset, mark };
        match collected.ends.iter_mut().find(|end| end.lane == n) {
            Some(before) => *before = end,
            None => collected.ends.push(end),
        }
    }
    lane.reader = Some(reader);
    lane.waits = waits;
    any
}

struct Turn<'a> {
    lane: usize,
    log: &'a Lane,
    /// Small batches that are to become one.
    small: Vec<Batch>,
    small_bytes: usize,
    /// Bytes of finished pieces.
    bytes: usize,
    /// Behind the last batch that is in a piece.
    end: Option<(Offset, BatchMark)>,
    collected: &'a mut Collected,
}

impl Turn<'_> {
    /// Adds a stored batch, of which records before `from` were not asked for.
    fn add(&mut self, batch: Batch, from: Offset, now: TimestampMs) -> Result<(), String> {
        let view = batch.view();
        let at = view.base_offset();
        if stamp::belongs_to_a_transaction(&view) {
            return Err(format!("the batch at offset {at} is part of another producer's transaction"));
        }
        if let Some(retention_ms) = self.log.retention_ms {
            if view.max_timestamp() >= 0 && view.max_timestamp() < now.saturating_sub(retention_ms) {
                return Err(format!(
                    "records at offset {at} are older than the target's retention.ms={retention_ms}, which would \
                     delete them on arrival; raise it there, or set edgelog.bridge.expired=send"
                ));
            }
        }
        let size = view.size();
        let passes = stamp::goes_as_it_is(&view) && at >= from && size <= self.log.batch_bytes_max;
        if passes && size >= SMALL_BYTES {
            self.flush()?;
            self.pass(&batch);
            return Ok(());
        }
        if size >= SMALL_BYTES {
            self.flush()?;
        }
        self.small_bytes += size;
        self.small.push(batch);
        if self.small_bytes >= COALESCED_BYTES || self.small.len() >= SMALL_COUNT_MAX || size >= SMALL_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// One stored batch as it is.
    fn pass(&mut self, batch: &Batch) {
        let view = batch.view();
        self.push(BytesMut::from(batch.bytes()), view.record_count());
        self.end = Some(mark_of(batch));
    }

    fn push(&mut self, wire: BytesMut, records: i32) {
        self.bytes += wire.len();
        self.collected.bytes += wire.len();
        self.collected.pieces.push(Piece { lane: self.lane, wire, records });
    }

    /// Makes pieces of the small batches.
    fn flush(&mut self) -> Result<(), String> {
        let small = std::mem::take(&mut self.small);
        self.small_bytes = 0;
        if let [batch] = &small[..] {
            let view = batch.view();
            // The first batch of a log may begin below where the log starts now.
            let whole = view.base_offset() >= self.log.position;
            if stamp::goes_as_it_is(&view) && whole && view.size() <= self.log.batch_bytes_max {
                self.pass(batch);
                return Ok(());
            }
        }
        let first_piece = self.collected.pieces.len();
        let coalesced = self.coalesce(&small);
        if coalesced.is_err() {
            // Half a batch is none: what was made of these goes again.
            let taken: usize = self.collected.pieces.drain(first_piece..).map(|piece| piece.wire.len()).sum();
            self.bytes -= taken;
            self.collected.bytes -= taken;
        }
        coalesced
    }

    fn coalesce(&mut self, small: &[Batch]) -> Result<(), String> {
        let Some(last) = small.last() else { return Ok(()) };
        let mut builder = RecordBatchBuilder::new(vec![0; COALESCED_BYTES.min(self.log.batch_bytes_max)]);
        for batch in small {
            let at = batch.base_offset();
            let unreadable = |error: Error| format!("the batch at offset {at} cannot be read: {error}");
            for record in batch.records().map_err(unreadable)? {
                self.append(&mut builder, &record.map_err(unreadable)?)?;
            }
        }
        self.finish(&mut builder);
        self.end = Some(mark_of(last));
        Ok(())
    }

    fn append(&mut self, builder: &mut RecordBatchBuilder<Vec<u8>>, record: &Record<'_>) -> Result<(), String> {
        let headers: Vec<Header<'_>> = record.headers().collect();
        loop {
            match builder.append(record.timestamp, record.key, record.value, &headers) {
                Ok(_) => return Ok(()),
                // Deltas from a batch's first timestamp have a range, as its bytes have.
                Err(EncodeError::BufferTooSmall { .. } | EncodeError::TimestampOutOfRange { .. })
                    if !builder.is_empty() =>
                {
                    self.finish(builder);
                }
                Err(EncodeError::BufferTooSmall { needed, .. }) if needed <= self.log.batch_bytes_max => {
                    builder.buffer_mut().resize(needed, 0);
                }
                Err(EncodeError::BufferTooSmall { needed, .. }) => {
                    return Err(format!(
                        "the record at offset {} needs a batch of {needed} bytes, and the target's \
                         max.message.bytes is {}",
                        record.offset, self.log.batch_bytes_max
                    ));
                }
                Err(error) => return Err(format!("the record at offset {} cannot be sent: {error}", record.offset)),
            }
        }
    }

    /// The builder's records as a piece, compressed as the log is where that makes it smaller.
    fn finish(&mut self, builder: &mut RecordBatchBuilder<Vec<u8>>) {
        let records = builder.record_count();
        if records == 0 {
            return;
        }
        let codec = self.log.log.config().compression_type;
        let mut compressed = vec![0; HEADER_LEN];
        let is_compressed = codec != CompressionType::None
            && codec::compress(codec, builder.payload(), &mut compressed).is_ok()
            && compressed.len() < builder.size();
        let wire = if is_compressed {
            let payload_len = compressed.len() - HEADER_LEN;
            builder.finish_compressed(codec, &mut compressed, payload_len).expect("it has records, and the room");
            BytesMut::from(&compressed[..])
        } else {
            BytesMut::from(&*builder.finish())
        };
        builder.clear();
        self.push(wire, records);
    }
}

fn mark_of(batch: &Batch) -> (Offset, BatchMark) {
    let mark = BatchMark { leader_epoch: batch.leader_epoch(), crc: batch.view().crc() };
    (batch.last_offset() + 1, mark)
}

#[cfg(test)]
mod tests {
    use super::super::cluster::Coordinated;
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::{NewRecord, NewTopic, Store, TopicPartition};
    use edgelog_core::RecordBatch;

    fn lane(config: &[(&str, &str)], batch_bytes_max: usize) -> (Store, Lane) {
        let store = Store::options().open_on(MemoryStorage::new()).unwrap();
        let mut topic = NewTopic::new("t");
        for (key, value) in config {
            topic = topic.config(key, value);
        }
        store.create_topic(&topic).unwrap();
        let (name, group) = (TopicPartition::new("t", 0), Coordinated::Group("g".to_owned()));
        let lane = Lane { batch_bytes_max, ..Lane::new(name, store.log("t", 0).unwrap(), group, "t".to_owned()) };
        (store, lane)
    }

    type Flat = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

    fn flat(record: &Record<'_>) -> Flat {
        let headers = record.headers().map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
        (record.timestamp, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers)
    }

    fn records_of(collected: &Collected) -> Vec<Flat> {
        let mut found = Vec::new();
        for piece in &collected.pieces {
            let batch = RecordBatch::parse(&piece.wire).unwrap();
            batch.verify_crc().unwrap();
            assert!(stamp::goes_as_it_is(&batch) && batch.record_count() == piece.records);
            let mut payload = Vec::new();
            codec::decompress(batch.compression(), batch.payload(), &mut payload, 1 << 24).unwrap();
            found.extend(batch.records_in(&payload).map(|record| flat(&record.unwrap())));
        }
        found
    }

    fn fill(lane: &Lane, count: i64, value_len: usize) -> Vec<Flat> {
        let mut sent = Vec::new();
        for n in 0..count {
            let value = vec![n as u8; value_len];
            let headers = [Header::new("n", b"x"), Header { key: b"null", value: None }];
            let mut record = NewRecord::value(&value).with_timestamp(1000 - n);
            if n % 2 == 0 {
                record = record.with_key(b"key").with_headers(&headers);
            }
            if n % 3 == 0 {
                record.value = None;
            }
            lane.log.append(record).unwrap();
            let headers = record.headers.iter().map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
            sent.push((1000 - n, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers));
        }
        sent
    }

    #[test]
    fn small_batches_become_one_and_no_record_changes() {
        for compression in ["none", "snappy"] {
            let (_store, mut lane) = lane(&[("compression.type", compression)], 1 << 20);
            if compression == "snappy" && !cfg!(feature = "snappy") {
                continue;
            }
            let sent = fill(&lane, 500, 50);
            lane.start_at_the_beginning().unwrap();
            let mut lanes = [lane];
            let collected = collect(&mut lanes, 4 << 20, 0);
            assert_eq!(lanes[0].waits, None);
            assert_eq!((collected.pieces.len(), collected.ends.len(), collected.ends[0].offset), (1, 1, 500));
            assert_eq!(records_of(&collected), sent);
            assert!(collect(&mut lanes, 4 << 20, 0).is_empty());
        }
    }

    #[test]
    fn a_large_batch_goes_as_it_is_and_one_beyond_the_target_s_limit_becomes_several() {
        let (_store, mut whole) = lane(&[], 1 << 20);
        let mut batch = whole.log.batch();
        for n in 0..100_u8 {
            batch.push(NewRecord::value(&[n; 1000]).with_timestamp(5)).unwrap();
        }
        whole.log.append_batch(&mut batch).unwrap();
        whole.start_at_the_beginning().unwrap();
        let stored = whole.log.reader(crate::OffsetSpec::Earliest).unwrap().next_batch().unwrap().unwrap();
        let mut lanes = [whole];
        let collected = collect(&mut lanes, 4 << 20, 0);
        assert_eq!(collected.pieces.len(), 1);
        assert_eq!(&collected.pieces[0].wire[..], stored.bytes());

        lanes[0].batch_bytes_max = 20_000;
        lanes[0].start_at_the_beginning().unwrap();
        let split = collect(&mut lanes, 4 << 20, 0);
        assert!(split.pieces.len() > 4 && split.pieces.iter().all(|piece| piece.wire.len() <= 20_000));
        assert_eq!(records_of(&split), records_of(&collected));
        assert_eq!(split.ends[0].offset, 100);

        // A single record that no batch of the target can hold: what lies before it goes, and the log waits.
        lanes[0].batch_bytes_max = 500;
        lanes[0].start_at_the_beginning().unwrap();
        assert!(collect(&mut lanes, 4 << 20, 0).is_empty());
        assert!(lanes[0].waits.as_ref().unwrap().contains("max.message.bytes"), "{:?}", lanes[0].waits);
    }

    #[test]
    fn records_below_the_log_start_are_not_sent() {
        let (_store, mut lane) = lane(&[], 1 << 20);
        let mut batch = lane.log.batch();
        for n in 0..10_u8 {
            batch.push(NewRecord::value(&[n; 3000]).with_timestamp(5)).unwrap();
        }
        lane.log.append_batch(&mut batch).unwrap();
        lane.log.delete_records_before(4).unwrap();
        lane.start_at_the_beginning().unwrap();
        let mut lanes = [lane];
        let collected = collect(&mut lanes, 4 << 20, 0);
        let values: Vec<_> = records_of(&collected).into_iter().map(|record| record.2.unwrap()[0]).collect();
        assert_eq!(values, [4, 5, 6, 7, 8, 9]);
        assert_eq!(collected.ends[0].offset, 10);
    }

    #[test]
    fn what_the_target_would_delete_on_arrival_is_not_sent() {
        let (_store, mut lane) = lane(&[], 1 << 20);
        for timestamp in [1_000, 2_000, 500] {
            lane.log.append(NewRecord::value(b"x").with_timestamp(timestamp)).unwrap();
        }
        lane.retention_ms = Some(3_000);
        lane.start_at_the_beginning().unwrap();
        let mut lanes = [lane];
        let collected = collect(&mut lanes, 4 << 20, 4_000);
        assert_eq!(collected.ends[0].offset, 2);
        assert!(lanes[0].waits.as_ref().unwrap().contains("retention.ms=3000"));
    }
}
