//! Groups of consumers: where their positions live, who hosts them, what keeps their records, and which member has
//! which partitions.

mod assignor;
mod bytes;
mod coordinator;
#[cfg(test)]
mod crash;
mod error;
mod hold;
mod host;
mod list;
mod members;
mod membership;
mod name;
mod record;
mod registry;
mod waker;

pub use error::ConsumerError;
pub use host::{Group, GroupRecovery, OffsetAndMetadata};
pub use list::{GroupDescription, attach_group_store, delete_group, describe_group, list_groups, open_group_store};
pub use name::GROUP_DIR_BYTES_MAX;
pub use record::CommittedOffset;
pub use waker::Waker;

pub(crate) use assignor::Assignor;
pub(crate) use bytes::{Bytes, put_varint};
pub(crate) use error::Result;
pub(crate) use host::{GroupKind, SHARE_STATE_TOPIC};
pub(crate) use membership::{MemberOptions, Membership};
pub(crate) use registry::Registry;

pub(crate) use coordinator::{Partitions, Subscribed};
