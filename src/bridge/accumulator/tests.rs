//! What is collected of a log, held to the obvious: its records, one by one.

use super::super::committed_offset::CommittedOffset;
use super::super::ownership::{Ownership, check_ownership};
use super::super::partition_sender::PartitionSender;
use super::super::refused_records::Refused;
use super::super::route::Target;
use super::super::target_rules::TargetRules;
use super::*;
use crate::kafka::CoordinatorKey;
use crate::storage::tests::flip_a_byte;
use crate::storage::{Access, MemoryStorage, Storage};
use crate::store::failed_flushes::{BRIDGE_FILE, FailedFlushes};
use crate::{NewRecord, NewTopic, Store, TopicPartition};
use edgelog_core::RecordBatch;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The rules of a target that takes batches of so many bytes.
fn with_limit(max_message_bytes: usize) -> TargetRules {
    TargetRules { max_message_bytes, ..TargetRules::default() }
}

/// The target has refused this record, by name.
fn refused_one(refusal: Refusal) -> SenderChange {
    let (offset, named) = (refusal.offset, vec![refusal.clone()]);
    SenderChange::Refused { named, batch: Refused { offsets: (offset, offset + 1), records: 1, bytes: 1, refusal } }
}

/// What is collected of these senders, in transactions of 4 MiB.
fn collect_all(senders: &mut [PartitionSender]) -> TransactionPlan {
    collect_with(senders, &BridgeConfig::default(), 4 << 20, TimestampMs(0))
}

fn collect_with(
    senders: &mut [PartitionSender],
    config: &BridgeConfig,
    bytes_max: usize,
    now: TimestampMs,
) -> TransactionPlan {
    let side = Ok(InternalTopic { partition: 3, batch_bytes_max: 1 << 20 });
    let sides = [&config.dead_letters, &config.losses].map(|name| (name.clone(), side.clone())).into();
    let only = senders.iter().position(PartitionSender::is_searching);
    let (request_bytes_max, senders_max) = (usize::MAX, usize::MAX);
    let terms =
        DrainLimits { config, internal: &sides, bytes_max, request_bytes_max, senders_max, first: 0, now, only };
    collect_of(senders, &terms)
}

/// What is collected of senders whose logs are lent for it, and who are stopped by what stopped that.
fn collect_of(senders: &mut [PartitionSender], terms: &DrainLimits<'_>) -> TransactionPlan {
    let mut failed = FailedFlushes::open(Arc::new(MemoryStorage::new()), BRIDGE_FILE).unwrap();
    let lend = |(n, sender)| PartitionSender::lend(sender, n, Duration::ZERO, &mut failed);
    let mut lent: Vec<LentLog<'_>> = senders.iter_mut().enumerate().filter_map(lend).collect();
    let plan = collect(&mut lent, terms);
    let stopped: Vec<_> = lent.into_iter().filter_map(|log| Some((log.sender, log.stopped?))).collect();
    for (n, change) in stopped {
        senders[n].apply(change);
    }
    plan
}

/// Two of five logs at a time: the next transaction goes on with those that had no turn.
#[test]
fn no_log_waits_for_ever_behind_others_that_fill_every_transaction() {
    let (_stores, mut senders): (Vec<Store>, Vec<PartitionSender>) = (0..5).map(|_| sender(&[], 1 << 20)).unzip();
    let config = BridgeConfig::default();
    let sides = HashMap::new();
    let (mut first, mut turns) = (0, Vec::new());
    for sender in &mut senders {
        fill(sender, 3, 10);
        sender.start_at_the_beginning(None).unwrap();
    }
    for round in 0..5 {
        let (bytes_max, request_bytes_max, now) = (4 << 20, usize::MAX, TimestampMs(0));
        let terms = DrainLimits {
            config: &config,
            internal: &sides,
            bytes_max,
            request_bytes_max,
            senders_max: 2,
            first,
            now,
            only: None,
        };
        let collected = collect_of(&mut senders, &terms);
        first = collected.next_sender;
        turns.extend(collected.logs.iter().map(|log| log.sender));
        commit(&mut senders, &collected);
        if round < 3 {
            // Those that had their turn have more.
            collected.logs.iter().for_each(|log| drop(fill(&senders[log.sender], 1, 10)));
        }
    }
    assert_eq!(turns, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
}

fn sender(config: &[(&str, &str)], batch_bytes_max: usize) -> (Store, PartitionSender) {
    sender_on(MemoryStorage::new(), config, batch_bytes_max)
}

fn sender_on(storage: MemoryStorage, config: &[(&str, &str)], batch_bytes_max: usize) -> (Store, PartitionSender) {
    let store = Store::options().open_on(storage).unwrap();
    let mut topic = NewTopic::new("t");
    for (key, value) in config {
        topic = topic.config(key, value);
    }
    store.create_topic(&topic).unwrap();
    let (name, group) = (TopicPartition::new("t", 0), CoordinatorKey::Group("g".to_owned()));
    let target = Target { partition: 0, topic_id: uuid::Uuid::nil() };
    let mut sender = PartitionSender::new(name, store.log("t", 0).unwrap(), group, "t".to_owned());
    sender.set_rules(with_limit(batch_bytes_max));
    sender.aim_at(target);
    (store, sender)
}

type Flat = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn flat(record: &Record<'_>) -> Flat {
    let headers = record.headers().map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
    (record.timestamp.0, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers)
}

fn records_of(collected: &TransactionPlan) -> Vec<Flat> {
    let mut found = Vec::new();
    for piece in &collected.pieces {
        let batch = RecordBatch::parse(&piece.wire).unwrap();
        batch.verify_crc().unwrap();
        assert!(goes_as_it_is(&batch) && batch.record_count() == piece.records);
        let mut payload = Vec::new();
        codec::decompress(batch.compression(), batch.payload(), &mut payload, 1 << 24).unwrap();
        found.extend(batch.records_in(&payload).map(|record| flat(&record.unwrap())));
    }
    found
}

fn fill(sender: &PartitionSender, count: i64, value_len: usize) -> Vec<Flat> {
    let mut sent = Vec::new();
    for n in 0..count {
        let value = vec![n as u8; value_len];
        let headers = [Header::new("n", b"x"), Header { key: b"null", value: None }];
        let mut record = NewRecord::value(&value).with_timestamp(TimestampMs(1000 - n));
        if n % 2 == 0 {
            record = record.with_key(b"key").with_headers(&headers);
        }
        if n % 3 == 0 {
            record.value = None;
        }
        sender.log().append(record).unwrap();
        let headers = record.headers.iter().map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
        sent.push((1000 - n, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers));
    }
    sent
}

#[test]
fn small_batches_become_one_and_no_record_changes() {
    for compression in ["none", "snappy"] {
        let (_store, mut sender) = sender(&[("compression.type", compression)], 1 << 20);
        if compression == "snappy" && !cfg!(feature = "snappy") {
            continue;
        }
        let sent = fill(&sender, 500, 50);
        sender.start_at_the_beginning(None).unwrap();
        let mut senders = [sender];
        let collected = collect_all(&mut senders);
        assert_eq!(senders[0].paused(), None);
        assert_eq!((collected.pieces.len(), collected.logs.len(), collected.logs[0].to.offset), (1, 1, Offset(500)));
        assert_eq!(records_of(&collected), sent);
        commit(&mut senders, &collected);
        assert!(collect_all(&mut senders).is_empty());
    }
}

#[test]
fn a_large_batch_goes_as_it_is_and_one_beyond_the_target_s_limit_becomes_several() {
    let (_store, mut whole) = sender(&[], 1 << 20);
    let mut batch = whole.log().batch();
    for n in 0..100_u8 {
        batch.push(NewRecord::value(&[n; 1000]).with_timestamp(TimestampMs(5))).unwrap();
    }
    whole.log().append_batch(&mut batch).unwrap();
    whole.start_at_the_beginning(None).unwrap();
    let stored = whole.log().reader(crate::OffsetSpec::Earliest).unwrap().next_batch().unwrap().unwrap();
    let mut senders = [whole];
    let collected = collect_all(&mut senders);
    assert_eq!(collected.pieces.len(), 1);
    assert_eq!(&collected.pieces[0].wire[..], stored.bytes());

    senders[0].set_rules(with_limit(20_000));
    senders[0].start_at_the_beginning(None).unwrap();
    let split = collect_all(&mut senders);
    assert!(split.pieces.len() > 4 && split.pieces.iter().all(|piece| piece.wire.len() <= 20_000));
    assert_eq!(records_of(&split), records_of(&collected));
    assert_eq!(split.logs[0].to.offset, 100);

    // A single record that no batch of the target can hold: the log waits where that was chosen.
    let config = BridgeConfig { on_refused: RefusedRule::Stop, ..BridgeConfig::default() };
    senders[0].set_rules(with_limit(500));
    senders[0].start_at_the_beginning(None).unwrap();
    assert!(collect_with(&mut senders, &config, 4 << 20, TimestampMs(0)).is_empty());
    assert!(senders[0].paused().unwrap().to_string().contains("max.message.bytes"), "{:?}", senders[0].paused());
}

/// Appends batches of 20 records of 1000 bytes, which snappy makes no smaller.
fn fill_batches(sender: &PartitionSender, count: usize) {
    let mut seed = 1_u64;
    for _ in 0..count {
        let mut batch = sender.log().batch();
        for _ in 0..20 {
            let value: Vec<u8> = std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .take(1000)
            .collect();
            batch.push(NewRecord::value(&value).with_timestamp(TimestampMs(5))).unwrap();
        }
        sender.log().append_batch(&mut batch).unwrap();
    }
}

#[test]
fn batches_without_compression_are_joined_where_two_fit_into_one() {
    let (_store, mut sender) = sender(&[], 1 << 20);
    fill_batches(&sender, 26);
    sender.start_at_the_beginning(None).unwrap();
    let mut senders = [sender];
    let collected = collect_all(&mut senders);
    // Twelve of them in each: no piece is the rest of a batch.
    assert_eq!(collected.pieces.iter().map(|piece| piece.records).collect::<Vec<_>>(), [240, 240, 40]);
    assert!(collected.pieces.iter().all(|piece| piece.wire.len() <= COALESCED_BYTES));
    assert_eq!((collected.logs[0].to.offset, records_of(&collected).len()), (Offset(520), 520));
}

#[test]
#[cfg(feature = "snappy")]
fn batches_are_not_joined_where_they_would_have_to_be_compressed() {
    let (_store, mut sender) = sender(&[("compression.type", "snappy")], 1 << 20);
    fill_batches(&sender, 26);
    sender.start_at_the_beginning(None).unwrap();
    let mut reader = sender.log().reader(crate::OffsetSpec::Earliest).unwrap();
    for piece in &collect_all(&mut [sender]).pieces {
        assert_eq!(&piece.wire[..], reader.next_batch().unwrap().unwrap().bytes());
    }
    assert!(reader.next_batch().unwrap().is_none());
}

/// A turn ends with a whole batch, and not with what there is room for behind it.
#[test]
fn a_log_that_fills_a_transaction_has_no_small_batch_at_the_end_of_each_turn() {
    let (_store, mut sender) = sender(&[], 1 << 20);
    for n in 0..4000_u32 {
        sender.log().append(NewRecord::value(&[n as u8; 1000])).unwrap();
    }
    sender.start_at_the_beginning(None).unwrap();
    let plan = collect_all(&mut [sender]);
    let small = plan.pieces.iter().filter(|piece| piece.wire.len() < COALESCED_BYTES / 2).count();
    let records: Vec<_> = plan.pieces.iter().map(|piece| piece.records).collect();
    assert!(small <= 1 && plan.logs[0].to.offset == 4000, "{records:?}");
}

/// Records that were stored one by one take less together, also where a transaction is full before all of them are in
/// it: none goes as the batch of one record that it is in the store.
#[test]
#[cfg(feature = "snappy")]
fn a_full_transaction_ends_with_no_batches_of_one_record() {
    let (_store, mut sender) = sender(&[("compression.type", "snappy")], 1 << 20);
    for n in 0..3000_u32 {
        let value = format!("{{\"n\":{n},\"of\":\"press\",\"ok\":true}}").repeat(30);
        sender.log().append(NewRecord::value(value.as_bytes())).unwrap();
    }
    let stored = sender.log().reader(crate::OffsetSpec::Earliest).unwrap().next_batch().unwrap().unwrap();
    assert!(stored.bytes().len() < 500, "{} bytes", stored.bytes().len());
    let sent = wire::transactions(&mut sender, &BridgeConfig::default(), 200_000);
    assert!(sent.len() > 1, "one transaction: none is full");
    for plan in &sent {
        let records: Vec<_> = plan.pieces.iter().map(|piece| piece.records).collect();
        // What is left over at the very end may be little.
        assert!(records[..records.len() - 1].iter().all(|records| *records >= 50), "{records:?}");
        assert!(plan.bytes <= 200_000 + COALESCED_BYTES, "{} bytes", plan.bytes);
    }
    assert_eq!(sent.iter().map(|plan| records_of(plan).len()).sum::<usize>(), 3000);
}

/// Commits what was collected, as far as the senders are concerned.
fn commit(senders: &mut [PartitionSender], collected: &TransactionPlan) {
    collected.logs.iter().for_each(|log| senders[log.sender].apply(SenderChange::Committed(log.to)));
}

#[test]
fn a_batch_larger_than_a_transaction_is_cut_down_to_single_records() {
    for bytes_max in [1, 3000, 40_000] {
        let (_store, whole) = sender(&[], 1 << 20);
        let mut batch = whole.log().batch();
        for n in 0..100_u8 {
            batch.push(NewRecord::value(&[n; 1000]).with_timestamp(TimestampMs(5))).unwrap();
        }
        whole.log().append_batch(&mut batch).unwrap();
        fill(&whole, 10, 10);
        let mut senders = [whole];
        senders[0].start_at_the_beginning(None).unwrap();
        let whole = records_of(&collect_all(&mut senders));
        senders[0].start_at_the_beginning(None).unwrap();
        let (mut found, mut transactions) = (Vec::new(), 0);
        loop {
            let collected = collect_with(&mut senders, &BridgeConfig::default(), bytes_max, TimestampMs(0));
            if collected.is_empty() {
                break;
            }
            found.extend(records_of(&collected));
            commit(&mut senders, &collected);
            // What is committed can be gone on from, also within a batch.
            let position = senders[0].acknowledged().unwrap();
            assert_eq!(check_ownership(senders[0].log(), &position).unwrap(), Ownership::Ours);
            senders[0].start_at(&position).unwrap();
            transactions += 1;
        }
        assert_eq!(found, whole);
        assert!(
            transactions >= 110_000 / (bytes_max + 2100) && senders[0].position().unwrap() == 110,
            "{transactions}"
        );
    }
}

/// Collects and commits until there is no more; `refuses` says which records the target refuses. What arrived, in
/// order: records' first bytes, and negative offsets of dead letters. And how many transactions were aborted.
fn send_to(senders: &mut [PartitionSender], config: &BridgeConfig, refuses: impl Fn(u8) -> bool) -> (Vec<i64>, u32) {
    let (mut arrived, mut aborted) = (Vec::new(), 0);
    loop {
        let collected = collect_with(senders, config, 4 << 20, TimestampMs(0));
        if collected.is_empty() {
            return (arrived, aborted);
        }
        let bad = collected
            .pieces
            .iter()
            .find(|piece| piece.kind == Kind::Records && values_of(piece).iter().any(|value| refuses(*value)));
        if let Some(piece) = bad {
            let refusal = Refusal { offset: piece.offsets.0, code: Code(87), reason: "no".to_owned() };
            let records = piece.records.unsigned_abs();
            let refused = Refused { offsets: piece.offsets, records, bytes: piece.wire.len(), refusal };
            senders[piece.sender].apply(SenderChange::Refused { named: Vec::new(), batch: refused });
            senders[piece.sender].rewind().unwrap();
            aborted += 1;
            continue;
        }
        for piece in &collected.pieces {
            match &piece.kind {
                Kind::Records => arrived.extend(values_of(piece).into_iter().map(i64::from)),
                Kind::DeadLetter(refusal) => arrived.push(-refusal.offset.0),
                Kind::Loss(lost) => arrived.extend([-lost.first_offset.0, -lost.next_offset.0]),
            }
        }
        commit(senders, &collected);
    }
}

fn values_of(piece: &ProducerBatch) -> Vec<u8> {
    let batch = RecordBatch::parse(&piece.wire).unwrap();
    batch.records().unwrap().map(|record| record.unwrap().value.unwrap()[0]).collect()
}

#[test]
fn the_records_that_the_target_refuses_are_found_by_halves_and_become_dead_letters_in_their_places() {
    for (in_batches_of, refused) in [(100, vec![37]), (1, vec![37]), (100, vec![0, 1, 98, 99]), (7, vec![50, 52])] {
        let (_store, mut all) = sender(&[], 1 << 20);
        for first in (0..100_u8).step_by(in_batches_of) {
            let mut batch = all.log().batch();
            for n in first..100.min(first + in_batches_of as u8) {
                batch.push(NewRecord::value(&[n]).with_timestamp(TimestampMs(5))).unwrap();
            }
            all.log().append_batch(&mut batch).unwrap();
        }
        all.start_at_the_beginning(None).unwrap();
        let mut senders = [all];
        let (arrived, aborted) = send_to(&mut senders, &BridgeConfig::default(), |value| refused.contains(&value));
        let expected: Vec<i64> =
            (0..100_u8).map(|n| if refused.contains(&n) { -i64::from(n) } else { n.into() }).collect();
        assert_eq!(arrived, expected);
        assert!(aborted <= 16 * refused.len() as u32, "{aborted} aborted");
        assert!(!senders[0].is_searching() && senders[0].paused().is_none());

        // Where that was chosen, the log waits at the record instead, and goes on once it is taken.
        let stops = BridgeConfig { on_refused: RefusedRule::Stop, ..BridgeConfig::default() };
        senders[0].start_at_the_beginning(None).unwrap();
        let (arrived, _) = send_to(&mut senders, &stops, |value| refused.contains(&value));
        assert_eq!(arrived, (0..i64::from(refused[0])).collect::<Vec<_>>());
        assert!(senders[0].end_pause().unwrap().to_string().contains("is refused: no"));
        senders[0].rewind().unwrap();
        let (arrived, _) = send_to(&mut senders, &stops, |_| false);
        assert_eq!(arrived, (i64::from(refused[0])..100).collect::<Vec<_>>());
    }
}

/// A target that is compacted, or whose batches are small, is known to refuse some records before anything is sent.
#[test]
fn records_that_will_be_refused_are_dead_letters_without_a_transaction_that_is_aborted() {
    for (stored_in, is_compacted) in [(1, true), (10, true), (100, true), (10, false)] {
        let (_store, mut all) = sender(&[], 1 << 20);
        let is_bad = |n: u8| n % 9 == 4;
        for first in (0..100_u8).step_by(stored_in) {
            let mut batch = all.log().batch();
            for n in first..first + stored_in as u8 {
                let value = vec![n; if is_bad(n) && !is_compacted { 30_000 } else { 200 }];
                let record = NewRecord::value(&value).with_timestamp(TimestampMs(5));
                let record = if is_bad(n) && is_compacted { record } else { record.with_key(b"key") };
                batch.push(record).unwrap();
            }
            all.log().append_batch(&mut batch).unwrap();
        }
        all.set_rules(TargetRules { wants_keys: is_compacted, ..with_limit(20_000) });
        all.start_at_the_beginning(None).unwrap();
        let mut senders = [all];
        let collected = collect_all(&mut senders);
        assert_eq!((collected.logs[0].to.offset, senders[0].paused()), (Offset(100), None));
        let mut sent = Vec::new();
        for piece in &collected.pieces {
            match &piece.kind {
                Kind::Records => sent.extend(values_of(piece).into_iter().map(i64::from)),
                Kind::DeadLetter(refusal) => {
                    assert_eq!(piece.offsets, (refusal.offset, refusal.offset + 1));
                    let words = if is_compacted { "87 InvalidRecord" } else { "10 MessageTooLarge" };
                    assert!(refusal.reason.starts_with(words), "{refusal}");
                    sent.push(-refusal.offset.0);
                }
                Kind::Loss(lost) => panic!("{lost}"),
            }
        }
        let expected = |n: u8| if is_bad(n) { -i64::from(n) } else { n.into() };
        assert_eq!(sent, (0..100).map(expected).collect::<Vec<_>>(), "{stored_in} {is_compacted}");
        // Where that was chosen, what lies before the first of them is sent, and the log waits there.
        let stops = BridgeConfig { on_refused: RefusedRule::Stop, ..BridgeConfig::default() };
        senders[0].start_at_the_beginning(None).unwrap();
        let (arrived, aborted) = send_to(&mut senders, &stops, |_| false);
        assert_eq!((arrived, aborted), ((0..4).collect::<Vec<i64>>(), 0));
        assert!(senders[0].paused().unwrap().to_string().contains("the record at offset 4 is refused"));
    }
}

/// A dead letter stands between the two.
#[test]
fn batches_know_the_offsets_of_their_records() {
    let (_store, mut all) = sender(&[], 1 << 20);
    fill(&all, 100, 100);
    all.apply(refused_one(Refusal { offset: Offset(50), code: Code(87), reason: "no".to_owned() }));
    all.start_at_the_beginning(None).unwrap();
    let collected = collect_all(&mut [all]);
    let runs: Vec<&Runs> = collected.pieces.iter().map(|piece| &piece.runs).collect();
    assert_eq!(runs, [&Runs::from(Offset(0)), &Runs::default(), &Runs::from(Offset(51))]);
}

#[test]
fn what_lies_before_a_refused_record_in_its_stored_batch_is_sent() {
    let (_store, mut all) = sender(&[], 1 << 20);
    let mut batch = all.log().batch();
    for n in 0..100_u8 {
        batch.push(NewRecord::value(&vec![n; if n == 37 { 5000 } else { 80 }]).with_timestamp(TimestampMs(5))).unwrap();
    }
    all.log().append_batch(&mut batch).unwrap();
    // The large one is a piece of its own.
    all.set_rules(with_limit(5100));
    all.start_at_the_beginning(None).unwrap();
    let (arrived, aborted) = send_to(&mut [all], &BridgeConfig::default(), |value| value == 37);
    assert_eq!(arrived, (0..100).map(|n| if n == 37 { -37 } else { n }).collect::<Vec<_>>());
    assert_eq!(aborted, 1);
}

#[test]
fn a_dead_letter_has_the_record_and_says_where_it_was_and_why_it_was_refused() {
    let (_store, mut log) = sender(&[], 1 << 20);
    let headers = [Header::new("own", b"1")];
    let record = NewRecord::value(b"value").with_key(b"key").with_headers(&headers).with_timestamp(TimestampMs(1234));
    log.log().append(record).unwrap();
    log.start_at_the_beginning(None).unwrap();
    log.apply(refused_one(Refusal { offset: Offset(0), code: Code(87), reason: "words".to_owned() }));
    let mut senders = [log];
    let config = BridgeConfig { device: "d".to_owned(), ..BridgeConfig::default() };
    let collected = collect_with(&mut senders, &config, 4 << 20, TimestampMs(99));
    let [piece] = &collected.pieces[..] else { panic!("{collected:?}") };
    assert_eq!(piece.to, ("edgelog.dead.letters".to_owned(), 3));
    assert_eq!((collected.records(), collected.logs[0].to.offset), (0, Offset(1)));
    let batch = RecordBatch::parse(&piece.wire).unwrap();
    let dead_letter = batch.records().unwrap().next().unwrap().unwrap();
    assert_eq!(
        (dead_letter.timestamp, dead_letter.key, dead_letter.value),
        (TimestampMs(99), Some(&b"key"[..]), Some(&b"value"[..]))
    );
    let text = |header: Header<'_>| {
        format!("{}={}", header.key_str().unwrap(), String::from_utf8_lossy(header.value.unwrap()))
    };
    assert_eq!(
        dead_letter.headers().map(text).collect::<Vec<_>>(),
        [
            "own=1",
            "__connect.errors.topic=t",
            "__connect.errors.partition=0",
            "__connect.errors.offset=0",
            "__connect.errors.exception.message=words",
            "edgelog.error.code=87",
            "edgelog.device=d",
            "edgelog.target=t-0",
            "edgelog.timestamp=1234",
        ]
    );
}

#[test]
fn what_was_deleted_before_it_was_sent_is_reported_in_order_or_stops_the_log() {
    let (_store, mut log) = sender(&[], 1 << 20);
    for n in 0..10_u8 {
        log.log().append(NewRecord::value(&[n]).with_timestamp(TimestampMs(5))).unwrap();
    }
    log.start_at_the_beginning(None).unwrap();
    let mut senders = [log];
    let collected = collect_with(&mut senders, &BridgeConfig::default(), 1, TimestampMs(0));
    assert_eq!(collected.logs[0].to.offset, 1);
    commit(&mut senders, &collected);
    let position = senders[0].acknowledged().unwrap();
    for _ in 0..2 {
        let before = senders[0].position().unwrap();
        senders[0].log().delete_records_before(before + 3).unwrap();
        let position = CommittedOffset { offset: before, ..senders[0].acknowledged().unwrap() };
        senders[0].start_at(&position).unwrap();
        let stops = BridgeConfig { on_lost: LostRule::Stop, ..BridgeConfig::default() };
        assert!(collect_with(&mut senders, &stops, 4 << 20, TimestampMs(0)).is_empty());
        let reason = senders[0].end_pause().unwrap().to_string();
        assert!(reason.contains("deleted here before they were sent"), "{reason}");
        let collected = collect_with(&mut senders, &BridgeConfig::default(), 1, TimestampMs(0));
        let lost = Kind::Loss(Loss {
            first_offset: before,
            next_offset: before + 3,
            reason: "retention",
            detail: "deleted here before they were sent".to_owned(),
        });
        assert_eq!((&collected.pieces[0].kind, collected.pieces.len()), (&lost, 1));
        commit(&mut senders, &collected);
    }
    // Nothing but a loss was committed: that position is one to go on from.
    let position = CommittedOffset { offset: Offset(7), mark: senders[0].acknowledged().unwrap().mark, ..position };
    assert_eq!(check_ownership(senders[0].log(), &position).unwrap(), Ownership::Ours);
    senders[0].start_at(&position).unwrap();
    assert_eq!(send_to(&mut senders, &BridgeConfig::default(), |_| false).0, [7, 8, 9]);
}

#[test]
fn what_damage_has_taken_is_reported_and_what_lies_behind_is_sent() {
    let storage = MemoryStorage::new();
    let (_store, mut log) = sender_on(storage.clone(), &[], 1 << 20);
    for n in 0..10_u8 {
        log.log().append(NewRecord::value(&[n; 100]).with_timestamp(TimestampMs(5))).unwrap();
    }
    log.log().flush().unwrap();
    let file = storage.open("t-0/00000000000000000000.log", Access::Write).unwrap();
    let first = log.log().reader(OffsetSpec::Earliest).unwrap().next_batch().unwrap().unwrap();
    flip_a_byte(&*file, first.bytes().len() as u64 * 4 + 80);
    log.start_at_the_beginning(None).unwrap();
    let mut senders = [log];
    let stops = BridgeConfig { on_lost: LostRule::Stop, ..BridgeConfig::default() };
    assert_eq!(send_to(&mut senders, &stops, |_| false).0, [0, 1, 2, 3]);
    assert!(senders[0].end_pause().unwrap().to_string().contains("damaged"));
    let arrived = send_to(&mut senders, &BridgeConfig::default(), |_| false).0;
    assert_eq!(arrived, [-4, -5, 5, 6, 7, 8, 9]);
}

#[test]
fn restamped_records_have_the_present_time_and_keep_their_own_in_a_header() {
    let (_store, mut log) = sender(&[], 1 << 20);
    for timestamp in [1_000, 9_000] {
        log.log().append(NewRecord::value(b"x").with_timestamp(TimestampMs(timestamp))).unwrap();
    }
    log.set_rules(TargetRules { retention_ms: Some(3_000), ..log.route().rules().clone() });
    log.start_at_the_beginning(None).unwrap();
    let mut senders = [log];
    let config = BridgeConfig { expired: ExpiredRule::Restamp, ..BridgeConfig::default() };
    let found = records_of(&collect_with(&mut senders, &config, 4 << 20, TimestampMs(10_000)));
    let own = vec![(b"edgelog.timestamp".to_vec(), Some(b"1000".to_vec()))];
    assert_eq!(found, [(10_000, None, Some(b"x".to_vec()), own), (9_000, None, Some(b"x".to_vec()), vec![])]);
}

#[test]
fn records_below_the_log_start_are_not_sent() {
    let (_store, mut sender) = sender(&[], 1 << 20);
    let mut batch = sender.log().batch();
    for n in 0..10_u8 {
        batch.push(NewRecord::value(&[n; 3000]).with_timestamp(TimestampMs(5))).unwrap();
    }
    sender.log().append_batch(&mut batch).unwrap();
    sender.log().delete_records_before(Offset(4)).unwrap();
    sender.start_at_the_beginning(None).unwrap();
    let mut senders = [sender];
    let collected = collect_all(&mut senders);
    let values: Vec<_> = records_of(&collected).into_iter().map(|record| record.2.unwrap()[0]).collect();
    assert_eq!(values, [4, 5, 6, 7, 8, 9]);
    assert_eq!(collected.logs[0].to.offset, 10);
}

#[test]
fn what_the_target_would_delete_on_arrival_is_not_sent() {
    let (_store, mut sender) = sender(&[], 1 << 20);
    for timestamp in [1_000, 2_000, 500] {
        sender.log().append(NewRecord::value(b"x").with_timestamp(TimestampMs(timestamp))).unwrap();
    }
    sender.set_rules(TargetRules { retention_ms: Some(3_000), ..sender.route().rules().clone() });
    sender.start_at_the_beginning(None).unwrap();
    let mut senders = [sender];
    let collected = collect_with(&mut senders, &BridgeConfig::default(), 4 << 20, TimestampMs(4_000));
    assert_eq!(collected.logs[0].to.offset, 2);
    assert!(senders[0].paused().unwrap().to_string().contains("retention.ms=3000"));
}

/// A batch that this device cannot decompress goes to the cluster as it is, also among small ones.
#[test]
#[cfg(feature = "zstd")]
fn a_batch_that_cannot_be_decompressed_here_goes_as_it_is() {
    const LEN: usize = 5000;
    let storage = MemoryStorage::new();
    let (store, whole) = sender_on(storage.clone(), &[], 1 << 20);
    let mut sent = fill(&whole, 2, 10);
    let value = vec![b'x'; LEN];
    let mut builder = RecordBatchBuilder::new(vec![0; 2 * LEN]);
    builder.append(TimestampMs(1000), None, Some(&value), &[]).unwrap();
    let payload = builder.payload().to_vec();
    let head = payload.len() - LEN - 1;
    let block = |last: usize, kind: usize, len: usize| ((len << 3 | kind << 1 | last) as u32).to_le_bytes();
    let mut frame = b"\x28\xB5\x2F\xFD\0\x88".to_vec();
    frame.extend([&block(0, 0, head)[..3], &payload[..head], &block(0, 1, LEN)[..3], b"x"].concat());
    frame.extend([&block(1, 0, 1)[..3], b"\0"].concat());
    let mut batch = vec![0; HEADER_LEN];
    batch.extend(&frame);
    builder.finish_compressed(CompressionType::Zstd, &mut batch, frame.len()).unwrap();
    whole.log().append_encoded(&batch, crate::Durability::Sync).unwrap();
    sent.push((1000, None, Some(value), Vec::new()));
    sent.extend(fill(&whole, 2, 10));
    drop(whole);
    store.close().unwrap();
    let store = Store::options().set("edgelog.decompressed.bytes.max", "1000").unwrap().open_on(storage).unwrap();
    let (name, group) = (TopicPartition::new("t", 0), CoordinatorKey::Group("g".to_owned()));
    let mut sender = PartitionSender::new(name, store.log("t", 0).unwrap(), group, "t".to_owned());
    sender.set_rules(with_limit(1 << 20));
    sender.aim_at(Target { partition: 0, topic_id: uuid::Uuid::nil() });
    sender.start_at_the_beginning(None).unwrap();
    let collected = collect_all(std::slice::from_mut(&mut sender));
    assert_eq!(sender.paused(), None);
    assert!(records_of(&collected) == sent, "the records are those that were appended");
    assert_eq!(collected.logs[0].to.offset, 5);
    let offsets: Vec<_> = collected.pieces.iter().map(|piece| (piece.offsets.0.0, piece.offsets.1.0)).collect();
    assert_eq!(offsets, [(0, 2), (2, 3), (3, 5)]);
}

mod by_key;
mod wire;
