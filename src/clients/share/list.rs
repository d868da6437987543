//! Share groups from outside: where they stand, and letting them begin elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgelog_core::{LogId, Offset};

use super::config::ShareConfig;
use super::shared::{ShareGroup, load};
use super::table::DeliveryState;
use crate::clients::group::{ConsumerError, Result, SHARE_STATE_TOPIC, attach_group_store};
use crate::error::Error;
use crate::log::{Log, TopicPartition};
use crate::store::Store;

/// What a share group's files say of one partition. Records that are held at the moment count as given back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharePartition {
    /// Which one it is; `None` where its topic was deleted.
    pub log: Option<TopicPartition>,
    /// Its number.
    pub partition: u32,
    /// All records before this offset are done.
    pub start_offset: Offset,
    /// So many records behind were given back, and come again.
    pub released: u64,
    /// So many were accepted.
    pub acknowledged: u64,
    /// So many were rejected, or came too often.
    pub archived: u64,
    /// So many are to be archived, and have no dead letter yet.
    pub set_aside: u64,
}

impl SharePartition {
    /// How many records behind the start offset are not done, in a log that ends there.
    pub fn lag(&self, log_end_offset: Offset) -> u64 {
        let behind = u64::try_from(log_end_offset - self.start_offset).unwrap_or(0);
        behind.saturating_sub(self.acknowledged + self.archived + self.set_aside)
    }
}

/// What the files of a share group say, also while another process hosts it. Writes nothing.
///
/// # Errors
/// [`ConsumerError::UnknownGroup`]; [`ConsumerError::WrongGroupKind`]; [`ConsumerError::Group`] where its files cannot
/// be read.
pub fn describe_share_group(store: &Store, name: &str) -> Result<Vec<SharePartition>> {
    let own = attach_group_store(store, name)?;
    let failed = ConsumerError::group(name);
    let log = match own.log(SHARE_STATE_TOPIC, 0) {
        Ok(log) => log,
        Err(Error::UnknownTopicOrPartition { .. }) => {
            return Err(ConsumerError::WrongGroupKind { name: name.to_owned(), wanted: "share" });
        }
        Err(error) => return Err(failed(error)),
    };
    let (saved, _) = load(&log, name).map_err(&failed)?;
    let ids = store.lasting_ids()?.into_iter();
    let names: BTreeMap<_, _> = ids.map(|(name, id)| ((id, name.partition), name)).collect();
    let describe = |(key, saved): (&_, &super::shared::Saved)| {
        let key: &(LogId, u32) = key;
        let of =
            |is: fn(DeliveryState) -> bool| saved.records.values().filter(|record| is(record.state)).count() as u64;
        SharePartition {
            log: names.get(key).cloned(),
            partition: key.1,
            start_offset: saved.start,
            released: of(|state| matches!(state, DeliveryState::Available | DeliveryState::Acquired)),
            acknowledged: of(|state| state == DeliveryState::Acknowledged),
            archived: of(|state| state == DeliveryState::Archived),
            set_aside: of(|state| matches!(state, DeliveryState::Archiving(_))),
        }
    };
    let mut found: Vec<_> = saved.iter().map(describe).collect();
    found.sort_by(|a, b| (&a.log, a.partition).cmp(&(&b.log, b.partition)));
    Ok(found)
}

/// Lets a share group begin elsewhere: all records from these offsets on are new to it, those before are done. It is
/// created where there is none.
///
/// # Errors
/// [`ConsumerError::GroupHosted`] while another process hosts it; [`ConsumerError::GroupNotEmpty`] while it has
/// consumers in this one; [`ConsumerError::Log`] for an offset that the log does not have; as
/// [`Group::open`](crate::clients::Group::open).
///
/// # Durability
/// On return, it lasts. A power cut before may have reset the first of the partitions alone.
pub fn reset_share_group(store: &Arc<Store>, name: &str, offsets: &[(&Log, Offset)]) -> Result<()> {
    for (log, offset) in offsets {
        let (start, end) = (log.offsets().log_start_offset, log.offsets().log_end_offset);
        if !(start..=end).contains(offset) {
            return Err(ConsumerError::log(log.name())(Error::OffsetOutOfRange {
                requested: *offset,
                log_start_offset: start,
                log_end_offset: end,
            }));
        }
    }
    let share = ShareGroup::open(store, name, &ShareConfig::default())?;
    offsets.iter().try_for_each(|(log, offset)| share.begin_at(log, *offset))
}
