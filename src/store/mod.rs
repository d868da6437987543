//! Floor 4, the data directory: topics and their partitions, the checkpoint, one housekeeping thread or
//! `tick`.

pub(crate) mod checkpoint;
pub(crate) mod failed_flushes;
mod handle;
mod housekeeping;
mod kick;
mod options;
mod ours;
pub(crate) mod producer_ids;
mod random_id;
mod report;
pub(crate) mod retention_holds;
mod settings;
mod shared;
mod topic;
mod topics;

pub use handle::Store;
pub use options::StoreOptions;
pub use report::RecoveryReport;
pub use retention_holds::{RetentionHold, RetentionHolds};
pub use topic::{NewTopic, PARTITIONS_MAX, Topic, topic_matches};

pub(crate) use ours::{claim, is_partition, made_for_another, only_swap, others_of, shared_directories, survey};
pub(crate) use random_id::random_id;
pub(crate) use settings::{are_settings_lost, is_in_the_way, read_config, settings_to_heal};
