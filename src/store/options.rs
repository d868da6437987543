//! How a store is opened.

use std::sync::Arc;

use edgelog_core::{LogConfig, StoreConfig};

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};

/// How a store is opened; begin with [`Store::options`](crate::Store::options).
///
/// ```
/// # fn main() -> edgelog::Result<()> {
/// # let storage = edgelog::storage::MemoryStorage::new();
/// let store = edgelog::Store::options()
///     .set("edgelog.checkpoint.interval.ms", "5000")?
///     .set("flush.messages", "1")? // for every topic that does not say otherwise
///     .open_on(storage)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StoreOptions {
    pub(super) config: StoreConfig,
    pub(super) topic_defaults: LogConfig,
    pub(super) clock: Arc<dyn Clock>,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            config: StoreConfig::default(),
            topic_defaults: LogConfig::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

impl StoreOptions {
    /// Sets a key of the store, or a topic's key as the default for topics that do not set it themselves.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`], with the nearest key where there is no such one.
    pub fn set(mut self, key: &str, value: &str) -> Result<StoreOptions> {
        let set = match self.config.set(key, value) {
            Err(edgelog_core::ConfigError::WrongScope { .. }) => self.topic_defaults.set(key, value),
            set => set,
        };
        set.map_err(|source| Error::InvalidConfig { key: key.to_owned(), value: value.to_owned(), source })?;
        Ok(self)
    }

    /// Lets another clock stamp records and drive retention.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> StoreOptions {
        self.clock = Arc::new(clock);
        self
    }
}
