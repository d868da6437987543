//! `compression.type`: batches are compressed again on their way, and no record, time, offset or limit changes by it.

use edgelog_core::CompressionType::{self, None as Plain};

use super::*;
use crate::codec::feature_missing_to_write;

fn with_codec(codec: CompressionType) -> BridgeConfig {
    BridgeConfig { compression: WireCompression::Codec(codec), ..BridgeConfig::default() }
}

/// The codecs that this build writes.
fn codecs() -> impl Iterator<Item = CompressionType> {
    CompressionType::ALL.into_iter().filter(|codec| feature_missing_to_write(*codec).is_none())
}

/// What JSON of a sensor compresses like.
fn text(n: usize, len: usize) -> Vec<u8> {
    let line = format!("{{\"sensor\":\"press-{}\",\"value\":{},\"ok\":true}}", n % 7, n * n % 1000);
    line.bytes().cycle().take(len).collect()
}

/// Bytes that no codec makes smaller.
fn noise(seed: usize, len: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(byte).take(len).collect()
}

/// A batch of these values as a producer with this codec makes it, and its records.
fn stored(codec: CompressionType, values: &[Vec<u8>]) -> (Vec<u8>, Vec<Flat>) {
    let total = values.iter().map(|value| value.len() + 100).sum::<usize>();
    let mut builder = RecordBatchBuilder::new(vec![0; total + HEADER_LEN]);
    let mut records = Vec::new();
    for (n, value) in values.iter().enumerate() {
        let timestamp = 5000 - n as i64;
        let headers = [Header::new("h", b"1"), Header { key: b"null", value: None }];
        let key = (n % 2 == 0).then_some(&b"key"[..]);
        builder.append(TimestampMs(timestamp), key, Some(value), &headers).unwrap();
        let headers = headers.map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec))).to_vec();
        records.push((timestamp, key.map(<[u8]>::to_vec), Some(value.clone()), headers));
    }
    if codec == Plain {
        return (builder.finish().to_vec(), records);
    }
    let mut batch = vec![0; HEADER_LEN];
    codec::compress(codec, builder.payload(), &mut batch).unwrap();
    let payload_len = batch.len() - HEADER_LEN;
    builder.finish_compressed(codec, &mut batch, payload_len).unwrap();
    (batch, records)
}

/// Collects and commits until there is no more; the transactions.
pub(super) fn transactions(
    sender: &mut PartitionSender,
    config: &BridgeConfig,
    bytes_max: usize,
) -> Vec<TransactionPlan> {
    let mut all = Vec::new();
    sender.start_at_the_beginning(None).unwrap();
    loop {
        let collected = collect_with(std::slice::from_mut(sender), config, bytes_max, TimestampMs(0));
        assert_eq!(sender.paused(), None);
        if collected.is_empty() {
            return all;
        }
        commit(std::slice::from_mut(sender), &collected);
        // What is committed is an offset of this log, also within a stored batch.
        let position = sender.acknowledged().unwrap();
        assert_eq!(check_ownership(sender.log(), &position).unwrap(), Ownership::Ours);
        all.push(collected);
    }
}

fn codec_of(piece: &ProducerBatch) -> CompressionType {
    RecordBatch::parse(&piece.wire).unwrap().compression()
}

#[test]
fn every_codec_sends_what_every_codec_has_stored_with_no_record_changed() {
    for (stored_as, sent_as) in codecs().flat_map(|stored_as| codecs().map(move |sent_as| (stored_as, sent_as))) {
        let (_store, mut sender) = sender(&[], 4 << 20);
        let (mut appended, mut len) = (Vec::new(), 0);
        for (count, bytes) in [(1, 20), (3, 300), (40, 1000), (1, 90_000), (100, 3000), (2, 10), (300, 1500)] {
            let values: Vec<_> = (0..count).map(|n| text(n, bytes)).collect();
            let (batch, records) = stored(stored_as, &values);
            sender.log().append_encoded(&batch, crate::Durability::Sync).unwrap();
            len += batch.len();
            appended.extend(records);
        }
        for bytes_max in [4 << 20, 100_000] {
            let sent = transactions(&mut sender, &with_codec(sent_as), bytes_max);
            let found: Vec<_> = sent.iter().flat_map(records_of).collect();
            assert!(found == appended, "{stored_as} as {sent_as}: the records are those that were appended");
            assert_eq!(sent.last().unwrap().logs[0].to.offset, appended.len() as i64);
            let pieces = sent.iter().flat_map(|plan| &plan.pieces);
            let is_used = pieces.clone().any(|piece| codec_of(piece) == sent_as);
            assert!(is_used || ![stored_as, sent_as].contains(&Plain), "{stored_as} as {sent_as}");
            // What a codec makes no smaller goes as it is stored.
            assert!(pieces.clone().all(|piece| [sent_as, stored_as, Plain].contains(&codec_of(piece))));
            let wire = pieces.map(|piece| piece.wire.len()).sum::<usize>();
            assert!(sent_as == Plain || wire < len + len / 50, "{stored_as} as {sent_as}: {wire} of {len} bytes");
            assert!(stored_as != Plain || sent_as == Plain || wire * 4 < len, "{sent_as}: {wire} of {len} bytes");
        }
    }
}

#[test]
fn what_becomes_no_smaller_goes_as_it_is_stored() {
    for stored_as in codecs() {
        let (_store, mut sender) = sender(&[], 1 << 20);
        let (batch, records) = stored(stored_as, &[noise(1, 40_000)]);
        sender.log().append_encoded(&batch, crate::Durability::Sync).unwrap();
        for sent_as in codecs() {
            let sent = transactions(&mut sender, &with_codec(sent_as), 4 << 20);
            assert_eq!(sent.iter().flat_map(records_of).collect::<Vec<_>>(), records);
            let piece = &sent[0].pieces[0];
            if sent_as == Plain {
                assert_eq!(codec_of(piece), Plain);
                continue;
            }
            // Some codecs say of less bytes than others that they leave them as they are.
            let is_stored = piece.wire[HEADER_LEN..] == batch[HEADER_LEN..];
            assert!(is_stored || stored_as != Plain && piece.wire.len() < batch.len(), "{stored_as} as {sent_as}");
        }
    }
}

/// The target's `max.message.bytes` and the request's bytes count what is sent: a batch that is larger in the store
/// goes whole where it is small enough compressed, and what grows without its codec is cut.
#[test]
#[cfg(feature = "gzip")]
fn limits_count_the_bytes_that_are_sent() {
    use CompressionType::Gzip;
    let values: Vec<_> = (0..300).map(|n| text(n, 1000)).collect();
    let (_store, mut log) = sender(&[], 40_000);
    log.log().append_encoded(&stored(Plain, &values).0, crate::Durability::Sync).unwrap();
    let sent = transactions(&mut log, &with_codec(Gzip), 4 << 20);
    assert_eq!(sent[0].pieces.iter().map(|piece| piece.records).collect::<Vec<_>>(), [300]);
    assert!(sent[0].pieces[0].wire.len() <= 40_000);

    let (_store, mut log) = sender(&[], 40_000);
    log.log().append_encoded(&stored(Gzip, &values).0, crate::Durability::Sync).unwrap();
    let sent = transactions(&mut log, &with_codec(Plain), 4 << 20);
    assert!(sent[0].pieces.len() >= 8 && sent[0].pieces.iter().all(|piece| piece.wire.len() <= 40_000));
    assert_eq!(sent.iter().flat_map(records_of).count(), 300);

    // A record that the target takes only compressed, and one that it does not take at all.
    let config = with_codec(Gzip);
    let (_store, mut log) = sender(&[], 40_000);
    for value in [text(0, 100_000), noise(0, 100_000), text(1, 10)] {
        log.log().append(NewRecord::value(&value).with_timestamp(TimestampMs(5))).unwrap();
    }
    let sent = transactions(&mut log, &config, 4 << 20);
    let kinds: Vec<bool> = sent[0].pieces.iter().map(|piece| piece.kind == Kind::Records).collect();
    assert_eq!(kinds, [true, false, true]);
    let Kind::DeadLetter(refusal) = &sent[0].pieces[1].kind else { unreachable!() };
    assert!(refusal.offset == 1 && refusal.reason.starts_with("10 MessageTooLarge"), "{refusal}");
    assert!(sent[0].pieces.iter().all(|piece| piece.kind != Kind::Records || piece.wire.len() <= 40_000));
}

/// Batches of a thousandth of their records' bytes: a transaction holds what it may, and no multiple.
#[test]
#[cfg(feature = "gzip")]
fn what_grows_without_its_codec_is_cut_where_the_transaction_is_full() {
    let (_store, mut log) = sender(&[], 1 << 20);
    let (mut appended, mut stored_bytes) = (0, 0);
    for n in 0..30_u8 {
        let (batch, records) = stored(CompressionType::Gzip, &vec![vec![n; 1000]; 500]);
        log.log().append_encoded(&batch, crate::Durability::Sync).unwrap();
        appended += records.len();
        stored_bytes += batch.len();
    }
    let bytes_max = 1 << 20;
    assert!(stored_bytes < bytes_max, "all of them would be one transaction: {stored_bytes}");
    for config in [with_codec(Plain), BridgeConfig::default()] {
        let sent = transactions(&mut log, &config, bytes_max);
        let most = sent.iter().map(|plan| plan.bytes).max().unwrap();
        assert!(most <= bytes_max + COALESCED_BYTES, "{most}");
        assert_eq!(sent.iter().flat_map(records_of).count(), appended);
    }
}

/// What `edgelog.decompressed.bytes.max` forbids to decompress is not compressed again.
#[test]
#[cfg(all(feature = "gzip", feature = "lz4"))]
fn a_batch_that_may_not_be_decompressed_goes_as_it_is_stored() {
    let storage = MemoryStorage::new();
    let (store, log) = sender_on(storage.clone(), &[], 1 << 20);
    let (batch, _) = stored(CompressionType::Gzip, &[text(0, 100_000)]);
    log.log().append_encoded(&batch, crate::Durability::Sync).unwrap();
    drop(log);
    store.close().unwrap();
    let store = Store::options().set("edgelog.decompressed.bytes.max", "5000").unwrap().open_on(storage).unwrap();
    for codec in [CompressionType::Lz4, Plain] {
        let (name, group) = (TopicPartition::new("t", 0), CoordinatorKey::Group("g".to_owned()));
        let mut log = PartitionSender::new(name, store.log("t", 0).unwrap(), group, "t".to_owned());
        log.set_rules(with_limit(1 << 20));
        log.aim_at(Target { partition: 0, topic_id: uuid::Uuid::nil() });
        let sent = transactions(&mut log, &with_codec(codec), 4 << 20);
        assert_eq!(sent[0].pieces[0].wire[HEADER_LEN..], batch[HEADER_LEN..]);
    }
}
