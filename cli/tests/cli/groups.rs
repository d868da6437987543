//! Defends `edgelog groups`: what it lists, resets and deletes, and that it leaves hosted groups alone.

use std::sync::Arc;

use edgelog::Store;
use edgelog::clients::Consumer;

use crate::support::Place;

fn positions(place: &Place) -> String {
    place.run(&["groups", "describe", "billing", "--json"]).exits(0).stdout
}

#[test]
fn groups_are_listed_reset_and_deleted() {
    let place = Place::new();
    place.run_with(&["append", "t"], b"a\nb\nc\n").exits(0);
    assert!(place.run(&["groups"]).exits(0).stderr.contains("no groups in"));
    let unknown = place.run(&["groups", "describe", "billing"]).exits(1);
    assert!(unknown.stderr.contains("no group billing in this store"), "{}", unknown.stderr);
    place.run(&["groups", "reset", "billing", "--to-earliest"]).exits(1);
    place.run(&["groups", "reset", "billing", "t"]).exits(1);

    place.run(&["groups", "reset", "billing", "t", "--to-offset", "1"]).exits(0);
    assert!(positions(&place).contains(r#""committed_offset":1"#) && positions(&place).contains(r#""lag":2"#));
    let dry = place.run(&["groups", "reset", "billing", "--to-latest", "--dry-run"]).exits(0);
    assert!(dry.stdout.contains("t-0") && dry.stderr.contains("nothing was changed"), "{}", dry.stdout);
    assert!(positions(&place).contains(r#""committed_offset":1"#));
    place.run(&["groups", "reset", "billing", "--to-latest"]).exits(0);
    assert!(positions(&place).contains(r#""lag":0"#));
    place.run(&["groups", "reset", "billing", "--to-datetime", "2020-01-01T00:00:00Z"]).exits(0);
    let list = place.run(&["groups", "--json"]).exits(0).stdout;
    assert_eq!(
        list,
        "{\"group\":\"billing\",\"kind\":\"consumer\",\"hosted\":false,\"process\":null,\"partitions\":1,\"lag\":3}\n"
    );
    let stat = place.run(&["stat", "--json"]).exits(0).stdout;
    assert!(stat.contains(r#""held_by":["group billing"]"#), "{stat}");
    // The store itself knows nothing of it.
    place.run(&["fsck"]).exits(0);
    assert!(!place.run(&["topics"]).exits(0).stdout.contains("__consumer_offsets"));

    assert!(place.run(&["groups", "delete", "billing"]).exits(1).stderr.contains("--yes"));
    place.run(&["groups", "delete", "billing", "--yes"]).exits(0);
    assert!(place.run(&["groups"]).exits(0).stderr.contains("no groups in"));
}

#[test]
fn a_hosted_group_is_shown_and_not_changed() {
    let place = Place::new();
    place.run_with(&["append", "t"], b"a\nb\nc\n").exits(0);
    let store = Arc::new(Store::open(place.store()).unwrap());
    let mut consumer = Consumer::options().set("group.id", "billing").unwrap();
    consumer = consumer.set("auto.offset.reset", "earliest").unwrap();
    let mut consumer = consumer.open(&store).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(consumer.poll(std::time::Duration::ZERO).unwrap().len(), 3);
    consumer.commit_sync().unwrap();
    let pid = std::process::id();
    let list = place.run(&["groups"]).exits(0).stdout;
    assert!(list.contains(&format!("process {pid}")), "{list}");
    assert!(positions(&place).contains(r#""committed_offset":3"#));
    for command in [&["groups", "reset", "billing", "--to-earliest"][..], &["groups", "delete", "billing", "--yes"]] {
        let refused = place.run(command).exits(1);
        assert!(
            refused.stderr.contains("is hosted") && refused.stderr.contains(&pid.to_string()),
            "{}",
            refused.stderr
        );
    }
    consumer.close().unwrap();
    // Next to a running writer.
    place.run(&["groups", "reset", "billing", "--to-earliest"]).exits(0);
    assert!(positions(&place).contains(r#""committed_offset":0"#));
    drop(store);
}
