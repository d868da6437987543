//! What a database has to do for the loop that fills it.

use std::error::Error;

use edgelog::{OffsetAndEpoch, TopicPartition};

use crate::reading::Batch;

pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How far a batch goes in one partition.
#[derive(Debug)]
pub struct Advance {
    pub partition: TopicPartition,
    /// The offset of its first record there.
    pub from: i64,
    /// What is to be read next.
    pub to: OffsetAndEpoch,
}

pub trait Sink: Send {
    /// The position that was written with the last batch of this partition.
    fn position(&mut self, partition: &TopicPartition) -> Outcome<Option<OffsetAndEpoch>>;

    /// Writes a batch and these positions, all of it or nothing. `false`, and nothing is written, where a position is
    /// behind `from` already: these records are there.
    fn write(&mut self, batch: &Batch, positions: &[Advance]) -> Outcome<bool>;
}
