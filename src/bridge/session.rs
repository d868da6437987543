//! What a bridge has while it works for a cluster: its configuration, the cluster, its metrics, and who hears what
//! happens; and asking again until there is an answer.

use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;

use super::config::{BridgeConfig, Delivery};
use super::error::Result;
use super::event::{BridgeEvent, Observer};
use super::metrics::MetricsHandle;
use crate::kafka::{self, Backoff, Cluster, Code, CoordinatorKey, KafkaError, StopHandle, Transport};

/// Another session's transaction, or the own one before, is completed within milliseconds, over a bad link within
/// seconds: for so long nothing is reported of it.
const COMPLETED_WITHIN: Duration = Duration::from_secs(5);

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

/// Since when answers say, one after the other, that a transaction is being completed.
#[derive(Debug, Default)]
pub(super) struct Completing(Option<Instant>);

pub(super) struct Session {
    config: BridgeConfig,
    cluster: Cluster,
    observer: Observer,
    metrics: MetricsHandle,
}

impl Session {
    /// Does not connect yet.
    pub(super) fn new(config: BridgeConfig, stop: StopHandle) -> Session {
        let (connect, request) = (config.connect_timeout, config.request_timeout);
        let transport = Transport::new(&config.client_id, connect, request, &config.security, stop);
        let cluster = Cluster::new(config.bootstrap.clone(), transport);
        let metrics = MetricsHandle::new(&config.device, &config.topics);
        Session { config, cluster, observer: Box::new(|_| {}), metrics }
    }

    pub(super) fn observe(&mut self, observer: Observer) {
        self.observer = observer;
    }

    pub(super) fn config(&self) -> &BridgeConfig {
        &self.config
    }

    pub(super) fn metrics(&self) -> &MetricsHandle {
        &self.metrics
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The cluster, to be asked once: see [`retry`](Session::retry).
    pub(super) fn cluster_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    pub(super) fn stop(&self) -> &StopHandle {
        self.cluster.stop()
    }

    /// Whether records and positions go in transactions, or as they come (`edgelog.bridge.delivery`).
    pub(super) fn in_transactions(&self) -> bool {
        self.config.delivery == Delivery::ExactlyOnce
    }

    /// The transactional id, as its coordinator is asked for it.
    pub(super) fn transaction(&self) -> CoordinatorKey {
        CoordinatorKey::Transaction(self.config.transactional_id())
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

    /// Something failed and is tried again. Where a transaction is being completed, that is reported only once it has
    /// lasted. Whether it is.
    pub(super) fn report_retry(&mut self, error: &KafkaError, completing: &mut Completing) -> bool {
        use ResponseError::{ConcurrentTransactions, UnstableOffsetCommit};
        let code = error.code().and_then(Code::named);
        let is_completing = matches!(code, Some(ConcurrentTransactions | UnstableOffsetCommit));
        completing.0 = is_completing.then(|| completing.0.unwrap_or_else(Instant::now));
        let quiet_for = COMPLETED_WITHIN.min(self.config.request_timeout);
        let retrying = BridgeEvent::Retrying { reason: error.to_string() };
        if completing.0.is_some_and(|since| since.elapsed() < quiet_for) {
            self.metrics.count(&retrying);
        } else {
            self.report(&retrying);
        }
        is_completing
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
        let mut backoff = self.backoff();
        // A transaction that is being completed takes milliseconds.
        let mut completing = Completing::default();
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
            let code = error.code();
            let is_completing = self.report_retry(&error, &mut completing);
            let pause = if is_completing { soon.pause() } else { backoff.pause_after(&error) };
            stop.wait_before_retry(match patience {
                Patience::Until(deadline) => pause.min(deadline.saturating_duration_since(Instant::now())),
                _ => pause,
            });
            tries += 1;
            let may_have_moved = code.map_or(tries % 2 == 0, Code::is_of_a_move);
            if !error.is_refusal() && may_have_moved {
                // Connections that die on a bad line say nothing of where brokers are, when they do so once. Where
                // no broker answers, the next try says so.
                let _ = self.cluster.topics(&[]);
            }
        }
    }
}
