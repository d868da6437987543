//! The noun `edgelog_topics`: which topics there are, and how they are configured.

use edgelog::Topic;
use edgelog::edgelog_core::config::KEYS;

use crate::abi::{edgelog_bytes, grows};
use crate::boundary::{Handle, Home, OutStruct, free, with};
use crate::result::{Failure, edgelog_result};

/// The topics of a store at one moment. Any thread may use it at any time.
pub struct edgelog_topics {
    topics: Vec<Listed>,
}

struct Listed {
    topic: Topic,
    /// Every topic key with its value in force, as text.
    config: Vec<(&'static str, String)>,
}

impl edgelog_topics {
    pub(crate) fn of(topics: Vec<Topic>) -> edgelog_topics {
        let listed = |topic: Topic| {
            // The store's keys are none of the topic's, and answer `None`.
            let config =
                KEYS.iter().filter_map(|row| Some((row.key, topic.config.get(row.key)?.to_string()))).collect();
            Listed { topic, config }
        };
        edgelog_topics { topics: topics.into_iter().map(listed).collect() }
    }
}

impl Handle for edgelog_topics {
    fn home(&self) -> Option<&Home> {
        None
    }
}

/// A topic. Its bytes live as long as the list.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_topic {
    /// sizeof(edgelog_topic).
    pub size: usize,
    /// Its name.
    pub name: edgelog_bytes,
    /// How many partitions it has.
    pub partitions: u32,
    /// Zero.
    pub reserved: i32,
}

/// A key of a topic's configuration. Its bytes live as long as the list.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_topic_config {
    /// sizeof(edgelog_topic_config).
    pub size: usize,
    /// Kafka's key.
    pub key: edgelog_bytes,
    /// The value in force, as text.
    pub value: edgelog_bytes,
    /// Not 0: the topic sets it; 0: it comes from the store's options or the defaults.
    pub is_set: i32,
    /// Zero.
    pub reserved: i32,
}

grows!(edgelog_topic, edgelog_topic_config);

fn listed(topics: &edgelog_topics, index: u64) -> Result<&Listed, Failure> {
    usize::try_from(index).ok().and_then(|index| topics.topics.get(index)).ok_or(Failure::End)
}

/// The topic of this index; EDGELOG_END behind the last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_topics_get(
    topics: *const edgelog_topics,
    index: u64,
    out: *mut edgelog_topic,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(topics, |topics| {
            let out = OutStruct::new(out)?;
            let topic = &listed(topics, index)?.topic;
            let name = edgelog_bytes::of(topic.name.as_bytes());
            out.write(&edgelog_topic { size: 0, name, partitions: topic.partitions, reserved: 0 });
            Ok(())
        })
    }
}

/// A key of the configuration in force of the topic of this index; EDGELOG_END behind the last key or topic.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_topics_get_config(
    topics: *const edgelog_topics,
    topic_index: u64,
    index: u64,
    out: *mut edgelog_topic_config,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(topics, |topics| {
            let out = OutStruct::new(out)?;
            let listed = listed(topics, topic_index)?;
            let pair = usize::try_from(index).ok().and_then(|index| listed.config.get(index));
            let (key, value) = pair.ok_or(Failure::End)?;
            out.write(&edgelog_topic_config {
                size: 0,
                key: edgelog_bytes::of(key.as_bytes()),
                value: edgelog_bytes::of(value.as_bytes()),
                is_set: listed.topic.overrides.contains_key(*key).into(),
                reserved: 0,
            });
            Ok(())
        })
    }
}

/// Frees the list, and with it the bytes that it lent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_topics_free(topics: *mut edgelog_topics) {
    // SAFETY: boundary.rs, 1.
    unsafe { free(topics, |_| {}) };
}
