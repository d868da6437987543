//! Dead letters: records that cannot be processed or delivered, set aside in a topic of their own.

mod headers;
mod outlet;
mod queue;

pub use headers::DeadLetter;
pub use queue::{DEAD_LETTER_QUEUE_KEYS, DeadLetterQueue, DeadLetterQueueOptions, Processed};

pub(crate) use headers::{DeadLetterHeaders, TIMESTAMP_HEADER};
pub(crate) use outlet::{Home, Outlets, Target};
