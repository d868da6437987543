//! What is collected of a log, held to the obvious: its records, one by one.

use super::super::lane::{Refused, Target, Verdict, judge};
use super::super::position::Position;
use super::*;
use crate::kafka::CoordinatorKey;
use crate::storage::{Access, MemoryStorage, Storage};
use crate::{NewRecord, NewTopic, Store, TopicPartition};
use edgelog_core::RecordBatch;

/// What is collected of these lanes, in transactions of 4 MiB.
fn collect_all(lanes: &mut [Lane]) -> Collected {
    collect_with(lanes, &BridgeConfig::default(), 4 << 20, TimestampMs(0))
}

fn collect_with(lanes: &mut [Lane], config: &BridgeConfig, bytes_max: usize, now: TimestampMs) -> Collected {
    let side = Ok(Side { partition: 3, batch_bytes_max: 1 << 20 });
    let sides = [&config.dead_letters, &config.losses].map(|name| (name.clone(), side.clone())).into();
    let only = lanes.iter().position(Lane::is_searching);
    let terms = Terms { config, sides: &sides, bytes_max, request_bytes_max: usize::MAX, now, only };
    collect(lanes, &terms)
}

fn lane(config: &[(&str, &str)], batch_bytes_max: usize) -> (Store, Lane) {
    lane_on(MemoryStorage::new(), config, batch_bytes_max)
}

fn lane_on(storage: MemoryStorage, config: &[(&str, &str)], batch_bytes_max: usize) -> (Store, Lane) {
    let store = Store::options().open_on(storage).unwrap();
    let mut topic = NewTopic::new("t");
    for (key, value) in config {
        topic = topic.config(key, value);
    }
    store.create_topic(&topic).unwrap();
    let (name, group) = (TopicPartition::new("t", 0), CoordinatorKey::Group("g".to_owned()));
    let target = Some(Target { partition: 0, topic_id: uuid::Uuid::nil() });
    let mut lane = Lane::new(name, store.log("t", 0).unwrap(), group, "t".to_owned());
    (lane.batch_bytes_max, lane.target) = (batch_bytes_max, target);
    (store, lane)
}

type Flat = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn flat(record: &Record<'_>) -> Flat {
    let headers = record.headers().map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
    (record.timestamp.0, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers)
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
        let mut record = NewRecord::value(&value).with_timestamp(TimestampMs(1000 - n));
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
        let collected = collect_all(&mut lanes);
        assert_eq!(lanes[0].waits, None);
        assert_eq!((collected.pieces.len(), collected.ends.len(), collected.ends[0].offset), (1, 1, Offset(500)));
        assert_eq!(records_of(&collected), sent);
        commit(&mut lanes, &collected);
        assert!(collect_all(&mut lanes).is_empty());
    }
}

#[test]
fn a_large_batch_goes_as_it_is_and_one_beyond_the_target_s_limit_becomes_several() {
    let (_store, mut whole) = lane(&[], 1 << 20);
    let mut batch = whole.log.batch();
    for n in 0..100_u8 {
        batch.push(NewRecord::value(&[n; 1000]).with_timestamp(TimestampMs(5))).unwrap();
    }
    whole.log.append_batch(&mut batch).unwrap();
    whole.start_at_the_beginning().unwrap();
    let stored = whole.log.reader(crate::OffsetSpec::Earliest).unwrap().next_batch().unwrap().unwrap();
    let mut lanes = [whole];
    let collected = collect_all(&mut lanes);
    assert_eq!(collected.pieces.len(), 1);
    assert_eq!(&collected.pieces[0].wire[..], stored.bytes());

    lanes[0].batch_bytes_max = 20_000;
    lanes[0].start_at_the_beginning().unwrap();
    let split = collect_all(&mut lanes);
    assert!(split.pieces.len() > 4 && split.pieces.iter().all(|piece| piece.wire.len() <= 20_000));
    assert_eq!(records_of(&split), records_of(&collected));
    assert_eq!(split.ends[0].offset, 100);

    // A single record that no batch of the target can hold: the log waits where that was chosen.
    let config = BridgeConfig { on_refused: RefusedRule::Stop, ..BridgeConfig::default() };
    lanes[0].batch_bytes_max = 500;
    lanes[0].start_at_the_beginning().unwrap();
    assert!(collect_with(&mut lanes, &config, 4 << 20, TimestampMs(0)).is_empty());
    assert!(lanes[0].waits.as_ref().unwrap().contains("max.message.bytes"), "{:?}", lanes[0].waits);
}

/// Appends batches of 20 records of 1000 bytes, which snappy makes no smaller.
fn fill_batches(lane: &Lane, count: usize) {
    let mut seed = 1_u64;
    for _ in 0..count {
        let mut batch = lane.log.batch();
        for _ in 0..20 {
            let value: Vec<u8> = std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .take(1000)
            .collect();
            batch.push(NewRecord::value(&value).with_timestamp(TimestampMs(5))).unwrap();
        }
        lane.log.append_batch(&mut batch).unwrap();
    }
}

#[test]
fn batches_without_compression_are_joined_where_two_fit_into_one() {
    let (_store, mut lane) = lane(&[], 1 << 20);
    fill_batches(&lane, 26);
    lane.start_at_the_beginning().unwrap();
    let mut lanes = [lane];
    let collected = collect_all(&mut lanes);
    // Twelve of them in each: no piece is the rest of a batch.
    assert_eq!(collected.pieces.iter().map(|piece| piece.records).collect::<Vec<_>>(), [240, 240, 40]);
    assert!(collected.pieces.iter().all(|piece| piece.wire.len() <= COALESCED_BYTES));
    assert_eq!((collected.ends[0].offset, records_of(&collected).len()), (Offset(520), 520));
}

#[test]
#[cfg(feature = "snappy")]
fn batches_are_not_joined_where_they_would_have_to_be_compressed() {
    let (_store, mut lane) = lane(&[("compression.type", "snappy")], 1 << 20);
    fill_batches(&lane, 26);
    lane.start_at_the_beginning().unwrap();
    let mut reader = lane.log.reader(crate::OffsetSpec::Earliest).unwrap();
    for piece in &collect_all(&mut [lane]).pieces {
        assert_eq!(&piece.wire[..], reader.next_batch().unwrap().unwrap().bytes());
    }
    assert!(reader.next_batch().unwrap().is_none());
}

/// Commits what was collected, as far as the lanes are concerned.
fn commit(lanes: &mut [Lane], collected: &Collected) {
    collected.ends.iter().for_each(|end| lanes[end.lane].advance(end));
}

#[test]
fn a_batch_larger_than_a_transaction_is_cut_down_to_single_records() {
    for bytes_max in [1, 3000, 40_000] {
        let (_store, whole) = lane(&[], 1 << 20);
        let mut batch = whole.log.batch();
        for n in 0..100_u8 {
            batch.push(NewRecord::value(&[n; 1000]).with_timestamp(TimestampMs(5))).unwrap();
        }
        whole.log.append_batch(&mut batch).unwrap();
        fill(&whole, 10, 10);
        let mut lanes = [whole];
        lanes[0].start_at_the_beginning().unwrap();
        let whole = records_of(&collect_all(&mut lanes));
        lanes[0].start_at_the_beginning().unwrap();
        let (mut found, mut transactions) = (Vec::new(), 0);
        loop {
            let collected = collect_with(&mut lanes, &BridgeConfig::default(), bytes_max, TimestampMs(0));
            if collected.is_empty() {
                break;
            }
            found.extend(records_of(&collected));
            commit(&mut lanes, &collected);
            // What is committed can be gone on from, also within a batch.
            let position = lanes[0].position_at(lanes[0].position, lanes[0].mark.unwrap());
            assert_eq!(judge(&lanes[0].log, &position).unwrap(), Verdict::Ours);
            lanes[0].start_at(&position).unwrap();
            transactions += 1;
        }
        assert_eq!(found, whole);
        assert!(transactions >= 110_000 / (bytes_max + 2100) && lanes[0].position == 110, "{transactions}");
    }
}

/// Collects and commits until there is no more; `refuses` says which records the target refuses. What arrived, in
/// order: records' first bytes, and negative offsets of dead letters. And how many transactions were aborted.
fn send_to(lanes: &mut [Lane], config: &BridgeConfig, refuses: impl Fn(u8) -> bool) -> (Vec<i64>, u32) {
    let (mut arrived, mut aborted) = (Vec::new(), 0);
    loop {
        let collected = collect_with(lanes, config, 4 << 20, TimestampMs(0));
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
            lanes[piece.lane].narrow(&refused);
            lanes[piece.lane].rewind().unwrap();
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
        commit(lanes, &collected);
    }
}

fn values_of(piece: &Piece) -> Vec<u8> {
    let batch = RecordBatch::parse(&piece.wire).unwrap();
    batch.records().unwrap().map(|record| record.unwrap().value.unwrap()[0]).collect()
}

#[test]
fn the_records_that_the_target_refuses_are_found_by_halves_and_become_dead_letters_in_their_places() {
    for (in_batches_of, refused) in [(100, vec![37]), (1, vec![37]), (100, vec![0, 1, 98, 99]), (7, vec![50, 52])] {
        let (_store, mut all) = lane(&[], 1 << 20);
        for first in (0..100_u8).step_by(in_batches_of) {
            let mut batch = all.log.batch();
            for n in first..100.min(first + in_batches_of as u8) {
                batch.push(NewRecord::value(&[n]).with_timestamp(TimestampMs(5))).unwrap();
            }
            all.log.append_batch(&mut batch).unwrap();
        }
        all.start_at_the_beginning().unwrap();
        let mut lanes = [all];
        let (arrived, aborted) = send_to(&mut lanes, &BridgeConfig::default(), |value| refused.contains(&value));
        let expected: Vec<i64> =
            (0..100_u8).map(|n| if refused.contains(&n) { -i64::from(n) } else { n.into() }).collect();
        assert_eq!(arrived, expected);
        assert!(aborted <= 16 * refused.len() as u32, "{aborted} aborted");
        assert!(!lanes[0].is_searching() && lanes[0].waits.is_none());

        // Where that was chosen, the log waits at the record instead, and goes on once it is taken.
        let stops = BridgeConfig { on_refused: RefusedRule::Stop, ..BridgeConfig::default() };
        lanes[0].start_at_the_beginning().unwrap();
        let (arrived, _) = send_to(&mut lanes, &stops, |value| refused.contains(&value));
        assert_eq!(arrived, (0..i64::from(refused[0])).collect::<Vec<_>>());
        assert!(lanes[0].waits.take().unwrap().contains("is refused: no"));
        lanes[0].rewind().unwrap();
        let (arrived, _) = send_to(&mut lanes, &stops, |_| false);
        assert_eq!(arrived, (i64::from(refused[0])..100).collect::<Vec<_>>());
    }
}

/// A target that is compacted, or whose batches are small, is known to refuse some records before anything is sent.
#[test]
fn records_that_will_be_refused_are_dead_letters_without_a_transaction_that_is_aborted() {
    for (stored_in, is_compacted) in [(1, true), (10, true), (100, true), (10, false)] {
        let (_store, mut all) = lane(&[], 1 << 20);
        let is_bad = |n: u8| n % 9 == 4;
        for first in (0..100_u8).step_by(stored_in) {
            let mut batch = all.log.batch();
            for n in first..first + stored_in as u8 {
                let value = vec![n; if is_bad(n) && !is_compacted { 30_000 } else { 200 }];
                let record = NewRecord::value(&value).with_timestamp(TimestampMs(5));
                let record = if is_bad(n) && is_compacted { record } else { record.with_key(b"key") };
                batch.push(record).unwrap();
            }
            all.log.append_batch(&mut batch).unwrap();
        }
        (all.wants_keys, all.batch_bytes_max) = (is_compacted, 20_000);
        all.start_at_the_beginning().unwrap();
        let mut lanes = [all];
        let collected = collect_all(&mut lanes);
        assert_eq!((collected.ends[0].offset, lanes[0].waits.as_ref()), (Offset(100), None));
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
        lanes[0].start_at_the_beginning().unwrap();
        let (arrived, aborted) = send_to(&mut lanes, &stops, |_| false);
        assert_eq!((arrived, aborted), ((0..4).collect::<Vec<i64>>(), 0));
        assert!(lanes[0].waits.as_ref().unwrap().contains("the record at offset 4 is refused"));
    }
}

/// The broker counts records from the beginning of a batch, in which offsets may be missing.
#[test]
fn a_record_that_the_broker_names_by_its_index_is_found_by_its_offset() {
    let mut runs = Runs::default();
    for (index, offset) in [7, 8, 9, 20, 21, 40].into_iter().enumerate() {
        runs.push(index as u32, Offset(offset));
    }
    assert_eq!(runs.0, [(0, Offset(7)), (3, Offset(20)), (5, Offset(40))]);
    let offsets: Vec<i64> = (0..6).map(|index| runs.offset_of(index).unwrap().0).collect();
    assert_eq!(offsets, [7, 8, 9, 20, 21, 40]);
    assert_eq!(Runs::default().offset_of(0), None);
    // As the pieces of a log have them.
    let (_store, mut all) = lane(&[], 1 << 20);
    fill(&all, 100, 100);
    all.refuse(Refusal { offset: Offset(50), code: Code(87), reason: "no".to_owned() });
    all.start_at_the_beginning().unwrap();
    let collected = collect_all(&mut [all]);
    let runs: Vec<&Runs> = collected.pieces.iter().map(|piece| &piece.runs).collect();
    assert_eq!(runs, [&Runs::from(Offset(0)), &Runs::default(), &Runs::from(Offset(51))]);
}

#[test]
fn what_lies_before_a_refused_record_in_its_stored_batch_is_sent() {
    let (_store, mut all) = lane(&[], 1 << 20);
    let mut batch = all.log.batch();
    for n in 0..100_u8 {
        batch.push(NewRecord::value(&vec![n; if n == 37 { 5000 } else { 80 }]).with_timestamp(TimestampMs(5))).unwrap();
    }
    all.log.append_batch(&mut batch).unwrap();
    // The large one is a piece of its own.
    all.batch_bytes_max = 5100;
    all.start_at_the_beginning().unwrap();
    let (arrived, aborted) = send_to(&mut [all], &BridgeConfig::default(), |value| value == 37);
    assert_eq!(arrived, (0..100).map(|n| if n == 37 { -37 } else { n }).collect::<Vec<_>>());
    assert_eq!(aborted, 1);
}

#[test]
fn a_dead_letter_has_the_record_and_says_where_it_was_and_why_it_was_refused() {
    let (_store, mut log) = lane(&[], 1 << 20);
    let headers = [Header::new("own", b"1")];
    let record = NewRecord::value(b"value").with_key(b"key").with_headers(&headers).with_timestamp(TimestampMs(1234));
    log.log.append(record).unwrap();
    log.start_at_the_beginning().unwrap();
    log.refuse(Refusal { offset: Offset(0), code: Code(87), reason: "words".to_owned() });
    let mut lanes = [log];
    let config = BridgeConfig { device: "d".to_owned(), ..BridgeConfig::default() };
    let collected = collect_with(&mut lanes, &config, 4 << 20, TimestampMs(99));
    let [piece] = &collected.pieces[..] else { panic!("{collected:?}") };
    assert_eq!(piece.to, ("edgelog.dead.letters".to_owned(), 3));
    assert_eq!((collected.records(), collected.ends[0].offset), (0, Offset(1)));
    let batch = RecordBatch::parse(&piece.wire).unwrap();
    let letter = batch.records().unwrap().next().unwrap().unwrap();
    assert_eq!((letter.timestamp, letter.key, letter.value), (TimestampMs(99), Some(&b"key"[..]), Some(&b"value"[..])));
    let text = |header: Header<'_>| {
        format!("{}={}", header.key_str().unwrap(), String::from_utf8_lossy(header.value.unwrap()))
    };
    assert_eq!(
        letter.headers().map(text).collect::<Vec<_>>(),
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
fn what_was_deleted_before_it_was_sent_is_told_in_its_place_or_stops_the_log() {
    let (_store, mut log) = lane(&[], 1 << 20);
    for n in 0..10_u8 {
        log.log.append(NewRecord::value(&[n]).with_timestamp(TimestampMs(5))).unwrap();
    }
    log.start_at_the_beginning().unwrap();
    let mut lanes = [log];
    let collected = collect_with(&mut lanes, &BridgeConfig::default(), 1, TimestampMs(0));
    assert_eq!(collected.ends[0].offset, 1);
    commit(&mut lanes, &collected);
    let position = lanes[0].position_at(Offset(1), lanes[0].mark.unwrap());
    for _ in 0..2 {
        let before = lanes[0].position;
        lanes[0].log.delete_records_before(before + 3).unwrap();
        let position = lanes[0].position_at(before, lanes[0].mark.unwrap());
        lanes[0].start_at(&position).unwrap();
        let stops = BridgeConfig { on_lost: LostRule::Stop, ..BridgeConfig::default() };
        assert!(collect_with(&mut lanes, &stops, 4 << 20, TimestampMs(0)).is_empty());
        let reason = lanes[0].waits.take().unwrap();
        assert!(reason.contains("deleted here before they were sent"), "{reason}");
        let collected = collect_with(&mut lanes, &BridgeConfig::default(), 1, TimestampMs(0));
        let lost = Kind::Loss(Loss {
            first_offset: before,
            next_offset: before + 3,
            reason: "retention",
            detail: "deleted here before they were sent".to_owned(),
        });
        assert_eq!((&collected.pieces[0].kind, collected.pieces.len()), (&lost, 1));
        commit(&mut lanes, &collected);
    }
    // Nothing but a loss was committed: that position is one to go on from.
    let position = Position { offset: Offset(7), mark: lanes[0].mark.unwrap(), ..position };
    assert_eq!(judge(&lanes[0].log, &position).unwrap(), Verdict::Ours);
    lanes[0].start_at(&position).unwrap();
    assert_eq!(send_to(&mut lanes, &BridgeConfig::default(), |_| false).0, [7, 8, 9]);
}

#[test]
fn what_damage_has_taken_is_told_and_what_lies_behind_is_sent() {
    let storage = MemoryStorage::new();
    let (_store, mut log) = lane_on(storage.clone(), &[], 1 << 20);
    for n in 0..10_u8 {
        log.log.append(NewRecord::value(&[n; 100]).with_timestamp(TimestampMs(5))).unwrap();
    }
    log.log.flush().unwrap();
    let file = storage.open("t-0/00000000000000000000.log", Access::Write).unwrap();
    let first = log.log.reader(OffsetSpec::Earliest).unwrap().next_batch().unwrap().unwrap();
    file.write_at(b"X", first.bytes().len() as u64 * 4 + 80).unwrap();
    log.start_at_the_beginning().unwrap();
    let mut lanes = [log];
    let stops = BridgeConfig { on_lost: LostRule::Stop, ..BridgeConfig::default() };
    assert_eq!(send_to(&mut lanes, &stops, |_| false).0, [0, 1, 2, 3]);
    assert!(lanes[0].waits.take().unwrap().contains("damaged"));
    let arrived = send_to(&mut lanes, &BridgeConfig::default(), |_| false).0;
    assert_eq!(arrived, [-4, -5, 5, 6, 7, 8, 9]);
}

#[test]
fn restamped_records_have_the_present_time_and_keep_their_own_in_a_header() {
    let (_store, mut log) = lane(&[], 1 << 20);
    for timestamp in [1_000, 9_000] {
        log.log.append(NewRecord::value(b"x").with_timestamp(TimestampMs(timestamp))).unwrap();
    }
    log.retention_ms = Some(3_000);
    log.start_at_the_beginning().unwrap();
    let mut lanes = [log];
    let config = BridgeConfig { expired: ExpiredRule::Restamp, ..BridgeConfig::default() };
    let found = records_of(&collect_with(&mut lanes, &config, 4 << 20, TimestampMs(10_000)));
    let own = vec![(b"edgelog.timestamp".to_vec(), Some(b"1000".to_vec()))];
    assert_eq!(found, [(10_000, None, Some(b"x".to_vec()), own), (9_000, None, Some(b"x".to_vec()), vec![])]);
}

#[test]
fn records_below_the_log_start_are_not_sent() {
    let (_store, mut lane) = lane(&[], 1 << 20);
    let mut batch = lane.log.batch();
    for n in 0..10_u8 {
        batch.push(NewRecord::value(&[n; 3000]).with_timestamp(TimestampMs(5))).unwrap();
    }
    lane.log.append_batch(&mut batch).unwrap();
    lane.log.delete_records_before(Offset(4)).unwrap();
    lane.start_at_the_beginning().unwrap();
    let mut lanes = [lane];
    let collected = collect_all(&mut lanes);
    let values: Vec<_> = records_of(&collected).into_iter().map(|record| record.2.unwrap()[0]).collect();
    assert_eq!(values, [4, 5, 6, 7, 8, 9]);
    assert_eq!(collected.ends[0].offset, 10);
}

#[test]
fn what_the_target_would_delete_on_arrival_is_not_sent() {
    let (_store, mut lane) = lane(&[], 1 << 20);
    for timestamp in [1_000, 2_000, 500] {
        lane.log.append(NewRecord::value(b"x").with_timestamp(TimestampMs(timestamp))).unwrap();
    }
    lane.retention_ms = Some(3_000);
    lane.start_at_the_beginning().unwrap();
    let mut lanes = [lane];
    let collected = collect_with(&mut lanes, &BridgeConfig::default(), 4 << 20, TimestampMs(4_000));
    assert_eq!(collected.ends[0].offset, 2);
    assert!(lanes[0].waits.as_ref().unwrap().contains("retention.ms=3000"));
}

/// A batch that this device cannot decompress goes to the cluster as it is, also among small ones.
#[test]
#[cfg(feature = "zstd")]
fn a_batch_that_cannot_be_decompressed_here_goes_as_it_is() {
    const LEN: usize = 5000;
    let storage = MemoryStorage::new();
    let (store, whole) = lane_on(storage.clone(), &[], 1 << 20);
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
    whole.log.append_encoded(&batch, crate::Durability::Sync).unwrap();
    sent.push((1000, None, Some(value), Vec::new()));
    sent.extend(fill(&whole, 2, 10));
    drop(whole);
    store.close().unwrap();
    let store = Store::options().set("edgelog.decompressed.bytes.max", "1000").unwrap().open_on(storage).unwrap();
    let (name, group) = (TopicPartition::new("t", 0), CoordinatorKey::Group("g".to_owned()));
    let mut lane = Lane::new(name, store.log("t", 0).unwrap(), group, "t".to_owned());
    lane.batch_bytes_max = 1 << 20;
    lane.target = Some(Target { partition: 0, topic_id: uuid::Uuid::nil() });
    lane.start_at_the_beginning().unwrap();
    let collected = collect_all(std::slice::from_mut(&mut lane));
    assert_eq!(lane.waits, None);
    assert!(records_of(&collected) == sent, "the records are those that were appended");
    assert_eq!(collected.ends[0].offset, 5);
    let offsets: Vec<_> = collected.pieces.iter().map(|piece| (piece.offsets.0.0, piece.offsets.1.0)).collect();
    assert_eq!(offsets, [(0, 2), (2, 3), (3, 5)]);
}
