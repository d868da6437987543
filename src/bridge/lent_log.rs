//! A sender's log while a transaction is planned: its reader, and all that limits what is read.

use edgelog_core::Offset;

use super::committed_offset::CommittedOffset;
use super::refused_records::RefusedRecords;
use super::route::Route;
use super::sender_change::SenderChange;
use crate::Reader;

#[derive(Debug)]
pub(super) struct LentLog<'a> {
    /// Whose log it is, as a number.
    pub(super) sender: usize,
    pub(super) route: &'a Route,
    /// Stands at the first offset that is in no plan.
    pub(super) reader: &'a mut Reader,
    /// The offset that is sent next.
    pub(super) position: Offset,
    /// What the cluster has of it.
    pub(super) acknowledged: Option<CommittedOffset>,
    pub(super) refused: &'a RefusedRecords,
    /// What comes next is part of a batch that was refused.
    pub(super) is_searching: bool,
    /// So many records may be tried from the position on.
    pub(super) records_max: u64,
    /// What a batch of several records may take.
    pub(super) batch_bytes_max: usize,
    /// What keeps it from giving more than it gave.
    pub(super) stopped: Option<SenderChange>,
}
