//! Known bugs, switched on one at a time: a search for crashes that does not find each of them is worth nothing.
//!
//! Only a build with `--cfg edgelog_canary` has them (`./test --only crash` makes one in a folder of its own). In every
//! other build [`bug`] is a constant `false`, and the compiler drops what stands behind it.

/// A mistake that the engine does not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(edgelog_canary), allow(unreachable_pub))] // seen from outside in builds with canaries alone
pub enum Bug {
    /// A publisher looks for waiters without the fence before it: for the models of threads, since no crash finds it.
    WakeWithoutFence,
    /// A producer's bell does not wake its sender: for the models of threads.
    LeaveTheSenderAsleep,
    /// A delivery is said to be answered before the answer is there: for the models of threads.
    AnswerBeforeTheOffset,
    /// A producer acknowledges at `acks=all` what was appended and not flushed.
    AcknowledgeBeforeTheFlush,
    /// A flush does not sync the directory in which there are new names.
    SkipDirectorySync,
    /// A batch is published, and then its bytes are copied.
    PublishBeforeCopy,
    /// Readers are shown a `Sync` append before its flush.
    ShowBeforeFlush,
    /// The index files are believed without a look at the batches.
    TrustTheIndex,
    /// Recovery takes batches of an epoch that was truncated.
    GoOnAfterStaleTail,
    /// Recovery takes batches that do not continue the log.
    IgnoreContiguity,
    /// Recovery takes batches whose CRC does not hold.
    SkipCrc,
    /// Recovery flushes what it found and does not write it again, although a flush may have failed in this boot.
    RecoverByFlushAlone,
    /// Recovery serves what it found without making it durable.
    ServeUnflushed,
    /// An unclean open goes on in the same epoch.
    KeepTheEpoch,
    /// A clean open goes on in the same epoch, although the machine has booted since.
    KeepTheEpochOverABoot,
    /// A cut tail leaves the log before its copy has a name that lasts.
    CutBeforeKept,
    /// A segment behind a hole begins the log.
    BeginBehindAHole,
    /// The checkpoint says that something is durable before it is flushed.
    CheckpointBeforeFlush,
    /// A flush passes over the segments that were sealed since the last one.
    FlushActiveSegmentOnly,
    /// Of several segments that were sealed since the last flush, it flushes the first and the last.
    PassOverSegmentsBetween,
    /// The end after the flush becomes the recovery point.
    TakeTheEndAfterTheFlush,
    /// A write that failed half way is followed by the next batch in the same epoch.
    SkipTornTailFence,
    /// A truncation goes on in the same epoch.
    TruncateInTheOldEpoch,
    /// A truncation removes files before its epoch is durable.
    TruncateBeforeTheEpochLasts,
    /// The kept part of a segment is swapped in without a flush.
    SwapInUnflushedCopy,
    /// Retention removes files before the new log start is durable.
    DeleteBeforeTheStartLasts,
    /// What was stamped in 1970 goes for its age when the clock is set.
    BelieveAnUnsetClock,
    /// One slot of the checkpoint with a clean mark is enough.
    TrustOneCleanSlot,
    /// The mark that the store is in use goes into one slot.
    MarkOneSlot,
    /// Nothing marks a cleanly closed store as in use again.
    SkipTheMark,
    /// The store is marked as closed before its logs are flushed.
    MarkCleanBeforeFlush,
    /// The checkpoint is written over the slot that holds.
    OverwriteTheHoldingSlot,
    /// The checkpoint is not flushed.
    LeaveTheSlotUnflushed,
    /// What the checkpoint says of a log is believed, no matter which segments there are.
    BelieveTheCheckpoint,
    /// A log of which the checkpoint says what cannot be costs all logs of the store their state.
    RefuseTheWholeSlot,
    /// A larger checkpoint file is swapped in without a flush.
    SwapInUnflushedCheckpoint,
    /// A checkpoint file whose new name could not be made durable is written on.
    TrustTheNewName,
    /// A checkpoint that may be in the page cache alone is taken for the one that holds.
    TrustTheCachedSlot,
    /// A topic is created from its first partition on.
    CreateFirstPartitionFirst,
    /// A new topic gets its settings when it is there already.
    ConfigureAfterCreation,
    /// A deleted topic's files go before its name is gone for good.
    DeleteFilesAtOnce,
    /// What a deletion that was cut short has left is removed while the checkpoint still names it.
    RemoveBeforeTheCheckpointForgets,
    /// A topic that a killed process made is served while its name is in the cache alone.
    ServeUnsyncedTopics,
    /// What looks like a leftover by its name is removed.
    DeleteByName,
    /// A file of settings without any, or none, stands for a topic without settings.
    TrustAnEmptySettingsFile,
    /// The writer's lock is on the name of a file alone, and is not looked at again.
    LockOnlyTheName,
    /// An attached process that flushes does not sync the directory.
    SkipAttachedDirectorySync,
    /// An attached process that flushes takes the end that it sees after the flush.
    TakeTheEndAfterTheAttachedFlush,
    /// An attached process that flushes does not look whether the writer vouches for what it sees.
    TrustADeadWriter,
    /// A log that has failed does not show that to attached processes.
    KeepAFailureToOneself,
    /// An attached process tries a flush that failed once more, no matter what the writer says.
    ResolveFailedFlushesAtOnce,
    /// A bridge does not leave to the next one what it could not flush.
    KeepFailedFlushesToOneself,
    /// The bridge's note is written over the file that holds.
    OverwriteTheHoldingNote,
    /// The bridge's note is not flushed.
    LeaveTheNoteUnflushed,
    /// A note that may be in the page cache alone is taken for the one that holds.
    TrustTheCachedNote,
    /// What became of a share group's records is acknowledged before it is flushed.
    ShareStateBeforeTheFlush,
    /// A share group's state does not say how often a record came.
    ForgetDeliveryCounts,
    /// A dead letter is written before it is written down that its record is set aside.
    DeadLetterWithoutAnIntent,
    /// A recovery writes a dead letter without a look whether it is there.
    DeadLetterWithoutALook,
    /// A record is archived before its dead letter is flushed.
    LeaveDeadLettersUnflushed,
    /// A commit of a group is acknowledged before it is flushed.
    CommitBeforeTheFlush,
    /// A position is committed whose records are not durable yet.
    CommitAheadOfTheLog,
    /// A group's hold is not lowered before its position moves back.
    HoldAheadOfThePosition,
    /// A named producer goes by the file of sequences, without a look at the batches behind it.
    TrustTheSequencesAlone,
    /// Retention deletes a named producer's last batch, and its sequence with it.
    ForgetWhatRetentionTakes,
    /// What a named producer repeats is acknowledged without a flush.
    AcknowledgeARepeatAtOnce,
    /// A named producer's epoch is raised in memory alone.
    KeepTheProducersEpoch,
    /// An older producer of a name may append next to a newer one.
    FenceNoProducer,
    /// A file of named producers is written over the slot that holds.
    OverwriteTheProducers,
    /// A slot of such a file that may be in the page cache alone is taken for the one that holds.
    TrustTheCachedProducers,
    /// Such a file is not flushed.
    LeaveTheProducersUnflushed,
}

#[cfg(edgelog_canary)]
impl Bug {
    /// All that the searches for crashes are held to: every one but those for the models of threads, and
    /// [`Bug::AcknowledgeBeforeTheFlush`], which the search of producers is held to.
    pub const ALL: &[Bug] = &[
        Bug::SkipDirectorySync,
        Bug::PublishBeforeCopy,
        Bug::ShowBeforeFlush,
        Bug::GoOnAfterStaleTail,
        Bug::IgnoreContiguity,
        Bug::BeginBehindAHole,
        Bug::TruncateInTheOldEpoch,
        Bug::SkipCrc,
        Bug::RecoverByFlushAlone,
        Bug::ServeUnflushed,
        Bug::KeepTheEpoch,
        Bug::KeepTheEpochOverABoot,
        Bug::CheckpointBeforeFlush,
        Bug::FlushActiveSegmentOnly,
        Bug::PassOverSegmentsBetween,
        Bug::TakeTheEndAfterTheFlush,
        Bug::TruncateBeforeTheEpochLasts,
        Bug::SwapInUnflushedCopy,
        Bug::DeleteBeforeTheStartLasts,
        Bug::BelieveAnUnsetClock,
        Bug::MarkOneSlot,
        Bug::SkipTheMark,
        Bug::BelieveTheCheckpoint,
        Bug::RefuseTheWholeSlot,
        Bug::RemoveBeforeTheCheckpointForgets,
        Bug::CreateFirstPartitionFirst,
        Bug::ConfigureAfterCreation,
        Bug::DeleteFilesAtOnce,
        Bug::ServeUnsyncedTopics,
        Bug::TrustTheIndex,
        Bug::CutBeforeKept,
        Bug::SkipTornTailFence,
        Bug::OverwriteTheHoldingSlot,
        Bug::LeaveTheSlotUnflushed,
        Bug::SwapInUnflushedCheckpoint,
        Bug::TrustOneCleanSlot,
        Bug::TrustTheCachedSlot,
        Bug::TrustTheNewName,
        Bug::MarkCleanBeforeFlush,
        Bug::DeleteByName,
        Bug::TrustAnEmptySettingsFile,
        Bug::LockOnlyTheName,
    ];

    /// All that the search of share groups is held to.
    #[cfg(test)]
    pub(crate) const SHARE: &[Bug] = &[
        Bug::ShareStateBeforeTheFlush,
        Bug::ForgetDeliveryCounts,
        Bug::DeadLetterWithoutAnIntent,
        Bug::DeadLetterWithoutALook,
        Bug::LeaveDeadLettersUnflushed,
    ];

    /// All that the search of the groups' positions is held to.
    #[cfg(test)]
    pub(crate) const GROUPS: &[Bug] =
        &[Bug::CommitBeforeTheFlush, Bug::CommitAheadOfTheLog, Bug::HoldAheadOfThePosition];

    /// All that the search of named producers is held to. Their files are smaller than a sector, which is never torn:
    /// [`Bug::OverwriteTheProducers`] shows in none of them. The search of the checkpoint is held to the same mistake.
    #[cfg(test)]
    pub(crate) const NAMED: &[Bug] = &[
        Bug::TrustTheSequencesAlone,
        Bug::ForgetWhatRetentionTakes,
        Bug::AcknowledgeARepeatAtOnce,
        Bug::KeepTheProducersEpoch,
        Bug::FenceNoProducer,
        Bug::LeaveTheProducersUnflushed,
    ];

    /// All that the search in two processes has to find.
    #[cfg(all(test, feature = "bridge"))]
    pub(crate) const IN_TWO_PROCESSES: &[Bug] = &[
        Bug::SkipAttachedDirectorySync,
        Bug::TakeTheEndAfterTheAttachedFlush,
        Bug::TrustADeadWriter,
        Bug::KeepAFailureToOneself,
        Bug::ResolveFailedFlushesAtOnce,
        Bug::KeepFailedFlushesToOneself,
        Bug::OverwriteTheHoldingNote,
        Bug::LeaveTheNoteUnflushed,
        Bug::TrustTheCachedNote,
    ];
}

#[cfg(not(edgelog_canary))]
#[inline]
pub(crate) const fn bug(_: Bug) -> bool {
    false
}

#[cfg(edgelog_canary)]
thread_local! {
    static ON: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread makes the mistake, and no other one.
#[cfg(edgelog_canary)]
pub fn switch_on(bug: Option<Bug>) {
    ON.set(bug);
}

/// The mistake that this thread makes, for code that starts other threads, which are to make it too.
#[cfg(edgelog_canary)]
pub fn switched_on() -> Option<Bug> {
    ON.get()
}

#[cfg(edgelog_canary)]
pub(crate) fn bug(bug: Bug) -> bool {
    ON.get() == Some(bug)
}
