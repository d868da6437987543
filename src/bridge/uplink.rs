//! What a bridge knows while it works: its logs, the cluster, its own files; and asking again until there is an answer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;

use super::accumulator::InternalTopic;
use super::config::BridgeConfig;
use super::error::Result;
use super::event::{BridgeEvent, Observer};
use super::home::Home;
use super::metrics::MetricsHandle;
use super::pace::Pace;
use super::partition_sender::PartitionSender;
use super::pause_reason::PauseReason;
use super::producer_header::Producer;
use super::progress_file::ProgressFile;
use crate::kafka::{self, Backoff, Cluster, Code, RemoteTopic, StopHandle, Transport};
use crate::store::failed_flushes::{BRIDGE_FILE, FailedFlushes};
use crate::{Store, TopicPartition};

/// For how long something is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    /// Until a stop is requested.
    Asked,
    /// Until a stop was requested and what is in flight has had its time.
    Grace,
    /// As `Grace`, and no longer than until then.
    Until(Instant),
}

pub(super) struct Uplink {
    pub(super) config: BridgeConfig,
    pub(super) store: Arc<Store>,
    pub(super) home: Home,
    pub(super) cluster: Cluster,
    pub(super) senders: Vec<PartitionSender>,
    /// When was looked whether they are still the ones they were.
    pub(super) looked_at_logs: Option<Instant>,
    /// Since when the data directory is not the one that was locked.
    pub(super) home_missed: Option<Instant>,
    /// Logs that are to be sent and cannot be read at all, and why.
    pub(super) unreadable: BTreeMap<TopicPartition, PauseReason>,
    /// The target topics that exist.
    pub(super) remote: HashMap<String, RemoteTopic>,
    /// The topics for dead letters and losses; or why one cannot be used.
    pub(super) sides: HashMap<String, std::result::Result<InternalTopic, String>>,
    /// The bridge ends once it has caught up.
    pub(super) until_caught_up: bool,
    /// When transactions may begin, in the time since it began itself.
    pub(super) pace: Pace,
    pub(super) began: Instant,
    /// Until when absent targets are asked for again before the bridge ends without them.
    pub(super) known_by: Option<Instant>,
    pub(super) progress: ProgressFile,
    pub(super) failed_flushes: FailedFlushes,
    /// What the progress file says in memory is not on the disk yet.
    pub(super) progress_is_behind: bool,
    pub(super) producer: Option<Producer>,
    /// What a transaction may carry, in bytes.
    pub(super) bytes_max: usize,
    /// The next sequence number of each partition, where they go on behind the last (at-least-once).
    pub(super) sequences: HashMap<(String, i32), i32>,
    /// For how long the cluster lets a transaction be open, as it was asked for last.
    pub(super) transaction_timeout: Duration,
    /// Whose turn it is first in the next transaction: one that is full before all had theirs goes on there.
    pub(super) first_sender: usize,
    /// What was refused was looked into last: it is the turn of the others.
    pub(super) others_turn: bool,
    pub(super) observer: Observer,
    pub(super) metrics: MetricsHandle,
    /// Of which target's rules was warned.
    pub(super) warned: HashSet<(String, String)>,
    /// Why a log is paused, as it was reported last.
    pub(super) reported: HashMap<TopicPartition, PauseReason>,
}

impl Uplink {
    /// # Errors
    /// What reading the bridge's own files can answer.
    pub(super) fn new(config: BridgeConfig, store: Arc<Store>, home: Home, stop: StopHandle) -> Result<Uplink> {
        let failed_flushes =
            FailedFlushes::open(Arc::clone(&home.storage), BRIDGE_FILE)?.with_others(&*home.storage)?;
        let progress = ProgressFile::open(Arc::clone(&home.storage))?;
        let (connect, request) = (config.connect_timeout, config.request_timeout);
        let transport = Transport::new(&config.client_id, connect, request, &config.security, stop);
        let cluster = Cluster::new(config.bootstrap.clone(), transport);
        let bytes_max = config.transaction_bytes;
        let metrics = MetricsHandle::new(&config.device);
        let pace = Pace::new(config.interval);
        Ok(Uplink {
            config,
            store,
            home,
            cluster,
            senders: Vec::new(),
            looked_at_logs: None,
            home_missed: None,
            unreadable: BTreeMap::new(),
            remote: HashMap::new(),
            sides: HashMap::new(),
            until_caught_up: false,
            pace,
            began: Instant::now(),
            known_by: None,
            progress,
            failed_flushes,
            progress_is_behind: false,
            producer: None,
            bytes_max,
            sequences: HashMap::new(),
            transaction_timeout: Duration::ZERO,
            first_sender: 0,
            others_turn: true,
            observer: Box::new(|_| {}),
            metrics,
            warned: HashSet::new(),
            reported: HashMap::new(),
        })
    }

    pub(super) fn observe(&mut self, observer: Observer) {
        self.observer = observer;
    }

    pub(super) fn report(&mut self, event: &BridgeEvent) {
        match event {
            BridgeEvent::Retrying { reason } => tracing::debug!(reason, "the bridge tries again"),
            BridgeEvent::Aborted { reason } => tracing::info!(reason, "a transaction of the bridge was aborted"),
            BridgeEvent::Waiting { log, reason } => tracing::warn!(%log, %reason, "nothing of this log is sent"),
            _ => tracing::debug!(?event, "bridge"),
        }
        self.metrics.count(event);
        (self.observer)(event);
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.config.backoff, self.config.backoff_max)
    }

    /// Asks again for as long as the answer may be another one later.
    pub(super) fn retry<T>(
        &mut self,
        patience: Patience,
        mut ask: impl FnMut(&mut Cluster) -> kafka::Result<T>,
    ) -> Result<T> {
        use ResponseError::{ConcurrentTransactions, UnstableOffsetCommit};
        let mut backoff = self.backoff();
        // A transaction that is being completed takes milliseconds.
        let mut soon = Backoff::new(Duration::from_millis(10), self.config.backoff_max);
        let mut tries = 0;
        loop {
            let outcome = ask(&mut self.cluster);
            self.metrics.heard(&outcome);
            let error = match outcome {
                Err(error) if error.is_retriable() => error,
                other => return Ok(other?),
            };
            let stop = self.cluster.stop().clone();
            match patience {
                Patience::Asked => stop.check()?,
                Patience::Grace => stop.check_grace()?,
                Patience::Until(deadline) => {
                    stop.check_grace()?;
                    if Instant::now() >= deadline {
                        return Err(error.into());
                    }
                }
            }
            self.report(&BridgeEvent::Retrying { reason: error.to_string() });
            let code = error.code();
            let completing = matches!(code.and_then(Code::named), Some(ConcurrentTransactions | UnstableOffsetCommit));
            stop.wait_before_retry(if completing { soon.pause() } else { backoff.pause_after(&error) });
            tries += 1;
            let may_have_moved = code.map_or(tries % 2 == 0, Code::is_of_a_move);
            if !error.is_refusal() && may_have_moved {
                // Connections that die on a bad line say nothing of where brokers are, when they do so once. Where
                // no broker answers, the next try says so.
                let _ = self.cluster.topics(&[]);
            }
        }
    }

    /// Makes the progress file say what is known, where it does not.
    pub(super) fn write_progress(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.progress_is_behind) {
            return Ok(());
        }
        let written = self.progress.write();
        // Where it was removed with its store, there is nothing that it would have to say.
        if written.is_err() && self.home.is_replaced() { Ok(()) } else { written }
    }
}
