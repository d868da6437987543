//! The bridge: what the device's logs hold goes into a Kafka cluster, each record once and in order, however often
//! the device, the program or the link dies on the way.
//!
//! Stored batches are sent as they are, inside Kafka transactions that also commit the local position to the cluster.
//! So the cluster decides what was delivered: after any stop the bridge reads its position there and goes on. Another
//! copy of the device, a restored backup or a log that was begun again is noticed by the metadata of that position,
//! before anything is sent.
//!
//! ```no_run
//! use edgelog::bridge::{Bridge, BridgeConfig};
//!
//! fn main() -> edgelog::bridge::Result<()> {
//!     let mut config = BridgeConfig::default();
//!     config.set("bootstrap.servers", "kafka.example.com:9092")?;
//!     config.set("edgelog.device.id", "press-17")?;
//!     config.set("edgelog.bridge.topics", "cpu,net.*")?;
//!     config.set("edgelog.bridge.to", "factory.{topic}")?;
//!     let mut bridge = Bridge::attach("./edgelog-data", config)?;
//!     let positions = bridge.run_until_caught_up()?;
//!     assert!(positions.iter().all(|log| log.is_delivered()), "some logs cannot be sent: {positions:?}");
//!     Ok(())
//! }
//! ```
//!
//! Consumers have to set `isolation.level=read_committed`; others see the copies of aborted attempts as well.
//! `docs/bridge.md` has the keys, what the cluster must allow, what it costs there, and what this version lacks.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::Store;

mod accumulator;
mod admin;
mod committed_offset;
mod config;
mod dead_letter;
mod error;
mod event;
mod home;
mod in_doubt;
mod lent_log;
mod local_logs;
mod log_position;
mod loss_record;
mod metrics;
mod own_files;
mod ownership;
mod pace;
mod partition;
mod partition_sender;
mod pause_reason;
mod planner;
mod producer_header;
mod producer_id;
mod progress_file;
mod refused_records;
mod route;
mod run;
mod sender_change;
mod session;
mod start_offset;
mod starts;
mod status;
mod target_rules;
mod targets;
mod transaction;
mod transaction_plan;
#[cfg(test)]
mod two_processes;

#[cfg(fuzzing)]
pub use crate::kafka::decode_answer;
pub use crate::kafka::{Code, StopHandle};
pub use admin::{Admin, ClusterPosition, PositionOf, forget};
pub use committed_offset::Decision;
pub use config::{BRIDGE_KEYS, BridgeConfig, BridgeKey};
pub use error::{BridgeError, Result};
pub use event::BridgeEvent;
pub use log_position::LogPosition;
pub use metrics::{BridgeMetrics, ConnectionState, DurationHistogram, LogMetrics, MetricsHandle};
pub use pause_reason::PauseReason;
pub use status::{LogStatus, noted_device, status, status_without_note};

use run::Runner;

/// Sends a store's logs to a Kafka cluster; see the [module](self).
///
/// # Concurrency
/// One thread at a time runs a bridge; appenders never wait for it. One bridge works for a store at a time, in
/// any process.
pub struct Bridge {
    runner: Runner,
    stop: StopHandle,
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("config", self.runner.config()).finish_non_exhaustive()
    }
}

impl Bridge {
    /// A bridge for the store in the directory `dir`, which another process may be writing: it attaches read-only, and
    /// writes nothing there but its note and its lock. Does not connect yet.
    ///
    /// Makes durable what it is about to send, by [`Log::flush_up_to`](crate::Log::flush_up_to), at most once for each
    /// transaction (`edgelog.bridge.interval.ms`); where no program has the store open for writing, sent is what its
    /// checkpoint names. A log whose writer has met an error waits until the store was opened again.
    ///
    /// # Errors
    /// [`BridgeError::InvalidConfig`]; [`BridgeError::Locked`] where another bridge works for this store;
    /// [`BridgeError::Store`] where there is no store; [`BridgeError::Note`].
    pub fn attach(dir: impl AsRef<Path>, config: BridgeConfig) -> Result<Bridge> {
        config.validate()?;
        let store = Store::attach(dir.as_ref())?;
        Bridge::new(dir.as_ref(), Arc::new(store), config)
    }

    /// A bridge inside the program that has `store` open, whose directory is `dir`. Does not connect yet.
    ///
    /// Sent is what is durable at that moment.
    ///
    /// # Errors
    /// As [`attach`](Bridge::attach).
    pub fn within(dir: impl AsRef<Path>, store: Arc<Store>, config: BridgeConfig) -> Result<Bridge> {
        config.validate()?;
        Bridge::new(dir.as_ref(), store, config)
    }

    fn new(dir: &Path, store: Arc<Store>, config: BridgeConfig) -> Result<Bridge> {
        for warning in config.warnings() {
            tracing::warn!(warning, "the bridge's configuration is less safe than it could be");
        }
        let stop = StopHandle::default();
        let runner = Runner::new(config, store, dir, stop.clone())?;
        Ok(Bridge { runner, stop })
    }

    /// Lets `observer` hear what happens, on the thread that runs the bridge.
    #[must_use]
    pub fn observe(mut self, observer: impl FnMut(&BridgeEvent) + Send + 'static) -> Bridge {
        self.runner.observe(Box::new(observer));
        self
    }

    /// Asks this bridge to stop, from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Lets this bridge's metrics be read while it runs, from any thread.
    pub fn metrics(&self) -> MetricsHandle {
        self.runner.metrics()
    }

    /// Sends until it is asked to stop. Outages are waited out, however long.
    ///
    /// # Errors
    /// Where a person has to decide, it waits and goes on once one did (see [`Admin::decide`]); with
    /// `edgelog.bridge.on.fenced=exit` it answers [`BridgeError::Fenced`] or [`BridgeError::Conflict`]
    /// ([`needs_decision`](BridgeError::needs_decision)) instead: starting again would not help. What else no retry can
    /// mend: a cluster that is too old, a note that cannot be written.
    pub fn run(&mut self) -> Result<()> {
        self.runner.run(false).map(drop)
    }

    /// Sends until the cluster has everything that is durable here of every log that does not wait, and returns how far
    /// each log is delivered: those that do not wait have a lag of 0, the others say why they wait. Outages are waited
    /// out, however long. Also returns when it is asked to stop, and the lags are then what they are.
    ///
    /// # Errors
    /// As [`run`](Bridge::run); [`BridgeError::Fenced`] and [`BridgeError::Conflict`] in any case;
    /// [`BridgeError::NoTopics`] where the store has no topic that is to be sent, or not one that is named without a
    /// pattern: [`run`](Bridge::run) waits for those.
    pub fn run_until_caught_up(&mut self) -> Result<Vec<LogPosition>> {
        self.runner.run(true)
    }
}
