//! `edgelog.bridge.partition=key`: each record goes to the partition that its key chooses, and nothing else changes.

use std::collections::BTreeMap;

use edgelog_core::partition_for_key;

use super::super::super::config::PartitionRule;
use super::*;
use crate::clients::Partitioner;

const PARTITIONS: u32 = 6;

fn by_key(partitions: u32) -> Option<ByKey> {
    ByKey::of(PartitionRule::Key(Partitioner::Murmur2), partitions as usize)
}

/// A log of records with one of 40 keys each, or without: one by one, and in batches that are large or small.
fn mixed(config: &[(&str, &str)], batch_bytes_max: usize) -> (Store, PartitionSender, Vec<Flat>) {
    let (store, mut sender) = sender(config, batch_bytes_max);
    let mut appended = Vec::new();
    for (count, len) in [(1, 30), (1, 30), (500, 40), (3, 100), (400, 1000), (1, 30_000), (7, 10), (60, 300)] {
        let mut batch = sender.log().batch();
        for _ in 0..count {
            let n = appended.len();
            let (key, value) = (format!("key-{}", n * 7919 % 40), vec![n as u8; len]);
            let record = NewRecord::value(&value).with_timestamp(TimestampMs(9000 - n as i64));
            let record = if n % 5 == 0 { record } else { record.with_key(key.as_bytes()) };
            batch.push(record).unwrap();
            appended.push((9000 - n as i64, record.key.map(<[u8]>::to_vec), Some(value), Vec::new()));
        }
        sender.log().append_batch(&mut batch).unwrap();
    }
    sender.spread(by_key(PARTITIONS));
    sender.start_at_the_beginning(None).unwrap();
    (store, sender, appended)
}

/// What arrives: the records of each partition, in order.
type Arrived = BTreeMap<i32, Vec<Flat>>;

/// Holds what arrived to what was appended: each record once, each key in the one partition that it chooses, in order.
fn hold(arrived: &Arrived, appended: &[Flat]) {
    let key_of = |record: &Flat| record.1.clone();
    for (partition, records) in arrived {
        for key in records.iter().filter_map(key_of) {
            assert_eq!(*partition, partition_for_key(&key, PARTITIONS) as i32, "{key:?}");
        }
    }
    let mut keys: Vec<_> = appended.iter().map(key_of).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let of_key = |records: &[Flat]| records.iter().filter(|record| record.1 == key).cloned().collect::<Vec<_>>();
        let mut found: Vec<Flat> = arrived.values().flat_map(|records| of_key(records)).collect();
        let mut expected = of_key(appended);
        if key.is_none() {
            // Those of one partition are in order, which times that fall show; of several, none is said.
            for records in arrived.values() {
                assert!(of_key(records).is_sorted_by(|a, b| a.0 > b.0));
            }
            found.sort();
            expected.sort();
        }
        assert!(found == expected, "{key:?}: {} of {} records", found.len(), expected.len());
    }
}

/// Collects and commits until there is no more. A transaction with a record that `refuses` names is aborted, and the
/// broker names the batch alone. Returns what arrived, the offsets of dead letters, and how many were aborted.
fn deliver(
    sender: &mut PartitionSender,
    config: &BridgeConfig,
    bytes_max: usize,
    refuses: impl Fn(&Flat) -> bool,
) -> (Arrived, Vec<Offset>, u32) {
    let (mut arrived, mut dead_letters, mut aborted) = (Arrived::new(), Vec::new(), 0);
    loop {
        let plan = collect_with(std::slice::from_mut(sender), config, bytes_max, TimestampMs(0));
        assert_eq!(sender.paused(), None);
        if plan.is_empty() {
            return (arrived, dead_letters, aborted);
        }
        let records = |piece: &ProducerBatch| {
            let batch = RecordBatch::parse(&piece.wire).unwrap();
            batch.verify_crc().unwrap();
            assert!(goes_as_it_is(&batch));
            let mut payload = Vec::new();
            codec::decompress(batch.compression(), batch.payload(), &mut payload, 1 << 24).unwrap();
            batch.records_in(&payload).map(|record| flat(&record.unwrap())).collect::<Vec<_>>()
        };
        let is_bad = |piece: &&ProducerBatch| piece.kind == Kind::Records && records(piece).iter().any(&refuses);
        if let Some(piece) = plan.pieces.iter().find(is_bad) {
            let offset = piece.runs.offset_of(0).unwrap();
            let refusal = Refusal { offset, code: Code(87), reason: "no".to_owned() };
            let count = piece.records.unsigned_abs();
            let batch = Refused { offsets: piece.offsets, records: count, bytes: piece.wire.len(), refusal };
            sender.apply(SenderChange::Refused { named: Vec::new(), batch });
            sender.rewind().unwrap();
            aborted += 1;
            continue;
        }
        for piece in &plan.pieces {
            match &piece.kind {
                Kind::Records => {
                    assert!(piece.wire.len() <= sender.route().rules().max_message_bytes);
                    assert_eq!(piece.to.0, "t");
                    arrived.entry(piece.to.1).or_default().extend(records(piece));
                }
                Kind::DeadLetter(refusal) => dead_letters.push(refusal.offset),
                Kind::Loss(lost) => panic!("{lost}"),
            }
        }
        commit(std::slice::from_mut(sender), &plan);
        // The position is one of the local log, whichever partitions its records went to.
        let position = sender.acknowledged().unwrap();
        assert_eq!(check_ownership(sender.log(), &position).unwrap(), Ownership::Ours);
        sender.start_at(&position).unwrap();
    }
}

#[test]
fn every_record_goes_once_to_the_partition_of_its_key_and_in_the_order_of_the_log() {
    for compression in ["none", "snappy"] {
        if compression == "snappy" && !cfg!(feature = "snappy") {
            continue;
        }
        for (bytes_max, batch_bytes_max) in [(4 << 20, 1 << 20), (20_000, 1 << 20), (4 << 20, 31_000), (3000, 1 << 20)]
        {
            let (_store, mut sender, appended) = mixed(&[("compression.type", compression)], batch_bytes_max);
            let (arrived, dead_letters, aborted) = deliver(&mut sender, &BridgeConfig::default(), bytes_max, |_| false);
            hold(&arrived, &appended);
            assert_eq!((arrived.len(), dead_letters.len(), aborted), (6, 0, 0), "keys and those without fill all");
            assert_eq!(sender.position().unwrap(), appended.len() as i64);
        }
    }
}

/// Many transactions for one stored batch, each of which may end between records of any partition.
#[test]
fn a_transaction_that_ends_within_a_batch_leaves_no_record_behind_its_position() {
    let (_store, mut sender, appended) = mixed(&[], 1 << 20);
    let plan = collect_with(std::slice::from_mut(&mut sender), &BridgeConfig::default(), 3000, TimestampMs(0));
    let end = plan.logs[0].to.offset;
    assert!(end > 0 && end < appended.len() as i64);
    assert_eq!(
        plan.pieces.iter().map(|piece| i64::from(piece.records)).sum::<i64>(),
        end.0,
        "all below it, and no more"
    );
    for piece in &plan.pieces {
        let (first, next) = piece.offsets;
        assert_eq!(piece.runs.offset_of(0), Some(first));
        assert!(next <= end && piece.runs.offset_of(piece.records.unsigned_abs() - 1) == Some(next - 1));
    }
}

#[test]
fn what_a_target_refuses_is_found_among_the_batches_of_all_partitions() {
    let (_store, mut sender, mut appended) = mixed(&[], 1 << 20);
    let bad: Vec<i64> = vec![9000 - 3, 9000 - 77, 9000 - 78, 9000 - 600];
    let (arrived, mut dead_letters, aborted) =
        deliver(&mut sender, &BridgeConfig::default(), 4 << 20, |record| bad.contains(&record.0));
    appended.retain(|record| !bad.contains(&record.0));
    hold(&arrived, &appended);
    dead_letters.sort();
    assert_eq!(dead_letters, [3, 77, 78, 600].map(Offset));
    assert!(aborted <= 16 * bad.len() as u32, "{aborted} aborted");
    assert!(!sender.is_searching());
}

#[test]
#[cfg(feature = "gzip")]
fn batches_by_key_are_compressed_as_is_asked_for() {
    use edgelog_core::CompressionType;

    let config = BridgeConfig { compression: WireCompression::Codec(CompressionType::Gzip), ..BridgeConfig::default() };
    let (_store, mut sender, appended) = mixed(&[], 1 << 20);
    let plan = collect_with(std::slice::from_mut(&mut sender), &config, 4 << 20, TimestampMs(0));
    let codec_of = |piece: &ProducerBatch| RecordBatch::parse(&piece.wire).unwrap().compression();
    assert!(plan.pieces.iter().any(|piece| codec_of(piece) == CompressionType::Gzip));
    sender.rewind().unwrap();
    hold(&deliver(&mut sender, &config, 4 << 20, |_| false).0, &appended);
}

#[test]
fn records_without_a_key_stay_together_for_a_batch_and_then_go_on() {
    let (_store, mut sender) = sender(&[], 20_000);
    for n in 0..200_u8 {
        sender.log().append(NewRecord::value(&[n; 1000]).with_timestamp(TimestampMs(5))).unwrap();
    }
    sender.spread(by_key(4));
    sender.start_at_the_beginning(None).unwrap();
    let plan = collect_all(std::slice::from_mut(&mut sender));
    let to: Vec<i32> = plan.pieces.iter().map(|piece| piece.to.1).collect();
    assert_eq!(to[..5], [0, 1, 2, 3, 0]);
    assert!(plan.pieces[..to.len() - 1].iter().all(|piece| piece.records > 15));
}

/// A target of one partition gets stored batches as they are.
#[test]
fn where_there_is_one_partition_nothing_is_made_again() {
    let (_store, mut sender) = sender(&[], 1 << 20);
    fill_batches(&sender, 1);
    sender.spread(by_key(1));
    sender.start_at_the_beginning(None).unwrap();
    let plan = collect_all(std::slice::from_mut(&mut sender));
    let stored = sender.log().reader(OffsetSpec::Earliest).unwrap().next_batch().unwrap().unwrap();
    assert_eq!(&plan.pieces[0].wire[..], stored.bytes());
}
