//! Share groups: consumers that share a partition record by record, as KIP-932 has them.

mod config;
mod consumer;
mod list;
mod record;
mod records;
mod set_aside;
mod shared;
mod table;
mod when;

pub use config::SHARE_CONSUMER_KEYS;
pub use consumer::{ShareConsumer, ShareConsumerOptions};
pub use list::{SharePartition, describe_share_group, reset_share_group};
pub use records::{ShareRecord, ShareRecords};
pub use table::AckType;
