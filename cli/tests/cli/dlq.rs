//! Defends `edgelog dlq`, and what `edgelog groups` and `edgelog stat` say of share groups.

use std::sync::Arc;
use std::time::Duration;

use edgelog::Store;
use edgelog::clients::{AckType, ShareConsumer};

use crate::support::Place;

/// A worker of the group `uploads`.
fn worker(store: &Arc<Store>) -> ShareConsumer {
    let keys = [
        ("group.id", "uploads"),
        ("share.acknowledgement.mode", "explicit"),
        ("errors.deadletterqueue.topic.name", "dlq.jobs"),
    ];
    let options = keys.iter().fold(ShareConsumer::options(), |options, (key, value)| options.set(key, value).unwrap());
    let mut worker = options.open(store).unwrap();
    worker.subscribe(&["jobs"]).unwrap();
    worker
}

/// Takes all jobs, and rejects those whose value begins with `bad`. Returns how many there were.
fn work(store: &Arc<Store>) -> usize {
    let mut worker = worker(store);
    let records = worker.poll(Duration::ZERO).unwrap();
    for record in records.iter() {
        let record = record.unwrap();
        let is_bad = record.value.unwrap().starts_with(b"bad");
        worker.acknowledge(&record, if is_bad { AckType::Reject } else { AckType::Accept }).unwrap();
    }
    worker.commit_sync().unwrap();
    records.len()
}

fn stdout(place: &Place, arguments: &[&str]) -> String {
    place.run(arguments).exits(0).stdout
}

#[test]
fn dead_letters_are_listed_shown_requeued_once_and_purged() {
    let place = Place::new();
    place.run_with(&["append", "jobs"], b"good\nbad one\nbad two\n").exits(0);
    assert!(place.run(&["dlq"]).exits(0).stderr.contains("no dead letters in"));
    assert_eq!(work(&Arc::new(Store::open(place.store()).unwrap())), 3);

    let list = stdout(&place, &["dlq", "--json"]);
    assert!(list.contains(r#""topic":"dlq.jobs","partition":0,"group":null,"dead_letters":2"#), "{list}");
    assert!(list.contains(r#""last_reason":"Offset rejected by client.""#), "{list}");
    assert!(stdout(&place, &["dlq"]).contains("dlq.jobs-0"));
    let shown = stdout(&place, &["dlq", "show", "dlq.jobs"]);
    assert!(shown.contains("was     jobs-0 at offset 2") && shown.contains("bad two"), "{shown}");
    assert!(shown.contains("group   uploads, delivered once"), "{shown}");
    let last = stdout(&place, &["dlq", "show", "dlq.jobs", "--last", "1", "--json"]);
    assert!(last.lines().count() == 1 && last.contains(r#""source_offset":2"#), "{last}");
    assert!(last.contains(r#""delivery_count":1"#) && last.contains(r#""value":"bad two""#), "{last}");

    let dry = place.run(&["dlq", "requeue", "dlq.jobs", "--dry-run"]).exits(0);
    assert_eq!(dry.stdout, "dlq.jobs-0 at offset 0 to jobs-0\ndlq.jobs-0 at offset 1 to jobs-0\n");
    assert!(dry.stderr.contains("nothing was changed"));
    let unknown = place.run(&["dlq", "requeue", "dlq.jobs", "--to", "elsewhere"]).exits(1);
    assert!(unknown.stderr.contains("--to names another topic"), "{}", unknown.stderr);
    assert!(stdout(&place, &["dlq", "--json"]).contains(r#""dead_letters":2"#));

    let requeued = place.run(&["dlq", "requeue", "dlq.jobs", "--until", "1"]).exits(0);
    assert!(requeued.stderr.contains("requeued 1 record\n"), "{}", requeued.stderr);
    assert!(stdout(&place, &["dlq", "--json"]).contains(r#""dead_letters":1"#));
    assert_eq!(stdout(&place, &["tail", "jobs", "--last", "1", "-e", "--raw"]).trim_end(), "bad one");

    assert!(place.run(&["dlq", "purge", "dlq.jobs"]).exits(1).stderr.contains("--yes"));
    assert!(place.run(&["dlq", "purge", "dlq.jobs", "--yes"]).exits(0).stderr.contains("deleted 1 dead letter\n"));
    assert!(stdout(&place, &["dlq", "--json"]).contains(r#""dead_letters":0"#));
    // It comes to the group once more.
    assert_eq!(work(&Arc::new(Store::open(place.store()).unwrap())), 1);
}

#[test]
fn what_was_appended_again_by_a_requeue_that_stopped_is_not_appended_twice() {
    use edgelog::clients::{Producer, ProducerRecord};
    let place = Place::new();
    place.run_with(&["append", "jobs"], b"bad one\nbad two\n").exits(0);
    let store = Arc::new(Store::open(place.store()).unwrap());
    work(&store);
    // As a requeue that was killed behind its first record.
    let id = store.log("dlq.jobs", 0).unwrap().id();
    let producer = Producer::builder(&store).set("edgelog.producer.name", &format!("dlq.requeue.{id:x}-0"));
    let producer = producer.unwrap().open().unwrap();
    let record = ProducerRecord::new("jobs", b"bad one").with_partition(0).with_source_offset(edgelog::Offset(0));
    producer.send(record).unwrap().wait().unwrap();
    producer.close().unwrap();
    drop((producer, store));
    place.run(&["dlq", "requeue", "dlq.jobs"]).exits(0);
    let tail = stdout(&place, &["tail", "jobs", "--last", "9", "-e", "--raw"]);
    assert_eq!(tail, "bad one\nbad two\nbad one\nbad two\n");
}

#[test]
fn dead_letters_in_a_group_s_own_store_are_there_as_well() {
    let place = Place::new();
    place.run_with(&["append", "jobs"], b"bad one\n").exits(0);
    assert_eq!(work(&Arc::new(Store::attach(place.store()).unwrap())), 1);
    let list = stdout(&place, &["dlq", "--json"]);
    assert!(list.contains(r#""group":"uploads","dead_letters":1"#), "{list}");
    place.run(&["dlq", "show", "dlq.jobs"]).exits(1);
    assert!(stdout(&place, &["dlq", "show", "dlq.jobs", "--group", "uploads"]).contains("bad one"));
    assert!(place.run(&["groups", "delete", "uploads"]).exits(1).stderr.contains("1 dead letter in its own store"));
    place.run(&["dlq", "requeue", "dlq.jobs", "--group", "uploads"]).exits(0);
    assert_eq!(stdout(&place, &["tail", "jobs", "--last", "1", "-e", "--raw"]), "bad one\n");
    let purged = place.run(&["dlq", "purge", "dlq.jobs", "--group", "uploads", "--yes"]).exits(0);
    assert!(purged.stderr.contains("deleted 0 dead letters"), "{}", purged.stderr);
}

#[test]
fn share_groups_are_described_reset_and_deleted() {
    let place = Place::new();
    place.run_with(&["append", "jobs"], b"good\nbad\nlate\n").exits(0);
    let store = Arc::new(Store::open(place.store()).unwrap());
    let mut consumer = worker(&store);
    let jobs = edgelog::TopicPartition::new("jobs", 0);
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 3);
    for (offset, ack) in [(0, AckType::Release), (1, AckType::Reject), (2, AckType::Accept)] {
        consumer.acknowledge_offset(&jobs, edgelog::Offset(offset), ack).unwrap();
    }
    consumer.commit_sync().unwrap();
    let list = stdout(&place, &["groups", "--json"]);
    assert!(
        list.contains(r#""group":"uploads","kind":"share","hosted":true"#) && list.contains(r#""lag":1"#),
        "{list}"
    );
    let hosted = place.run(&["groups", "reset", "uploads", "--to-earliest"]).exits(1);
    assert!(hosted.stderr.contains("is hosted"), "{}", hosted.stderr);
    drop(consumer);
    drop(store);
    let described = stdout(&place, &["groups", "describe", "uploads", "--json"]);
    let expected =
        r#""start_offset":0,"log_end_offset":3,"lag":1,"released":1,"acknowledged":1,"archived":1,"set_aside":0"#;
    assert!(described.contains(expected), "{described}");
    assert!(stdout(&place, &["groups", "describe", "uploads"]).contains("a share group, hosted by no process"));
    assert!(stdout(&place, &["stat", "jobs"]).contains("uploads is 1 record behind"));
    assert!(stdout(&place, &["stat", "jobs", "--json"]).contains(r#""groups":[{"group":"uploads","lag":1}]"#));

    place.run(&["groups", "reset", "uploads", "--to-offset", "1"]).exits(0);
    let described = stdout(&place, &["groups", "describe", "uploads", "--json"]);
    assert!(described.contains(r#""start_offset":1,"log_end_offset":3,"lag":2,"released":0"#), "{described}");
    assert_eq!(work(&Arc::new(Store::open(place.store()).unwrap())), 2);
    place.run(&["groups", "delete", "uploads", "--yes"]).exits(0);
    assert!(place.run(&["groups"]).exits(0).stderr.contains("no groups in"));
    assert!(stdout(&place, &["dlq", "--json"]).contains(r#""dead_letters":2"#));
}
