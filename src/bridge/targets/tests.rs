//! What is reported of target topics, by a broker that has as many partitions of each as the test says.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{ApiKey, DescribeConfigsResponse, MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::Decodable;
use uuid::Uuid;

use super::*;
use crate::kafka::test_broker::{encoded, listen_to};
use crate::kafka::{CoordinatorKey, StopHandle};
use crate::storage::MemoryStorage;
use crate::{NewTopic, Store, TopicPartition};

const NODE: i32 = 1;

/// A cluster of one broker that has every topic, each with `count` partitions. Returns its port.
fn cluster_of(count: Arc<AtomicUsize>) -> u16 {
    // Known once it listens.
    let own = Arc::<AtomicU16>::default();
    let its_own = Arc::clone(&own);
    let port = listen_to(move |key, version, mut body| match key {
        ApiKey::Metadata => {
            let asked = MetadataRequest::decode(&mut body, version).expect("a request for metadata");
            let partition = |index: usize| {
                MetadataResponsePartition::default().with_partition_index(index as i32).with_leader_id(NODE.into())
            };
            let topic = |name: Option<TopicName>| {
                let partitions = (0..count.load(Ordering::SeqCst)).map(partition).collect();
                MetadataResponseTopic::default()
                    .with_name(name)
                    .with_topic_id(Uuid::from_u128(7))
                    .with_partitions(partitions)
            };
            let topics = asked.topics.into_iter().flatten().map(|asked| topic(asked.name)).collect();
            let broker = MetadataResponseBroker::default()
                .with_node_id(NODE.into())
                .with_host(StrBytes::from_static_str("127.0.0.1"))
                .with_port(i32::from(own.load(Ordering::SeqCst)));
            Some(encoded(&MetadataResponse::default().with_brokers(vec![broker]).with_topics(topics), version))
        }
        ApiKey::DescribeConfigs => Some(encoded(&DescribeConfigsResponse::default(), version)),
        other => panic!("{other:?} is not asked for"),
    });
    its_own.store(port, Ordering::SeqCst);
    port
}

/// What is reported when the target's partitions become as many as this, one after the other, and how many the keys
/// of the log's records choose among then.
fn reported(rule: &str, counts: &[usize]) -> (Vec<BridgeEvent>, Option<u32>) {
    let count = Arc::<AtomicUsize>::default();
    let mut config = BridgeConfig::default();
    for (key, value) in [
        ("bootstrap.servers", format!("127.0.0.1:{}", cluster_of(Arc::clone(&count))).as_str()),
        ("edgelog.device.id", "d"),
        ("edgelog.bridge.delivery", "at-least-once"),
        ("edgelog.bridge.partition", rule),
    ] {
        config.set(key, value).unwrap();
    }
    let mut session = Session::new(config, StopHandle::default());
    let events = Arc::<Mutex<Vec<BridgeEvent>>>::default();
    let heard = Arc::clone(&events);
    session.observe(Box::new(move |event| heard.lock().unwrap().push(event.clone())));

    let store = Store::options().open_on(MemoryStorage::new()).unwrap();
    store.create_topic(&NewTopic::new("t")).unwrap();
    let (name, group) = (TopicPartition::new("t", 0), CoordinatorKey::Group("g".to_owned()));
    let mut senders = [PartitionSender::new(name, store.log("t", 0).unwrap(), group, "factory".to_owned())];
    let mut targets = Targets::default();
    for partitions in counts {
        count.store(*partitions, Ordering::SeqCst);
        targets.look_up(&mut session, &mut senders, false).unwrap();
        assert_eq!(senders[0].paused(), None);
    }
    let events = events.lock().unwrap().clone();
    (events, senders[0].route().by_key().map(ByKey::partitions))
}

/// The order of a key's records across the change is no more, so a person hears of it.
#[test]
fn partitions_that_are_added_to_a_target_are_reported_where_keys_choose_among_them() {
    let (events, partitions) = reported("key", &[3, 3, 5, 5, 6]);
    let rewrites: Vec<_> = events
        .iter()
        .map(|event| match event {
            BridgeEvent::Rewrites { topic, reason } => (topic.as_str(), reason.split(':').next().unwrap()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(rewrites, [("factory", "5 partitions, and had 3"), ("factory", "6 partitions, and had 5")]);
    assert_eq!(partitions, Some(6));
}

#[test]
fn partitions_that_are_added_are_no_matter_where_keys_choose_none() {
    let (events, partitions) = reported("device", &[3, 5]);
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(partitions, None);
}
