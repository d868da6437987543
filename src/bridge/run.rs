//! A bridge at work: who we are, where each log stands in the cluster, and transaction after transaction from then on.
//!
//! The order in which a bridge begins matters. The positions that the cluster holds are compared with the logs *before*
//! InitProducerId, which fences the producer that used the id: a wrong copy, a restored backup or a log that was cut
//! back stops there. They are read again after it, when no other bridge can move them any more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use edgelog_core::Offset;

use super::accumulator::{DrainLimits, TransactionPlan, collect};
use super::committed_offset::{BatchMark, RangeEnd};
use super::config::FencedRule;
use super::error::{BridgeError, Result};
use super::event::BridgeEvent;
use super::log_position::LogPosition;
use super::partition_sender::{PartitionSender, SenderChange};
use super::pause_reason::PauseReason;
use super::start_offset::Which;
use super::transaction::{Ended, TransactionResult};
use super::uplink::Uplink;
use crate::TopicPartition;
use crate::clock::{Clock, SystemClock};
use crate::kafka::CoordinatorKey;

/// What was done since something was sent last.
#[derive(Debug, Clone, Copy, Default)]
struct Reported {
    /// The progress file was written.
    is_noted: bool,
    /// `CaughtUp` was reported.
    is_caught_up: bool,
}

/// Whether the cluster has everything that is durable here of every log that does not wait.
fn is_caught_up(positions: &[LogPosition]) -> bool {
    positions.iter().all(|position| position.waits.is_some() || position.is_delivered())
}

impl Uplink {
    /// Sends until it is asked to stop, or, where asked for, until the cluster has everything that is durable here of
    /// every log that does not wait. Returns how far each is delivered.
    pub(super) fn run(&mut self, until_caught_up: bool) -> Result<Vec<LogPosition>> {
        let _span = tracing::info_span!("edgelog_bridge", device = self.config.device).entered();
        self.until_caught_up = until_caught_up;
        let outcome = self.run_on(until_caught_up);
        // Also after an error: what was acknowledged is noted, and the metrics say where each log stands.
        let noted = self.write_progress();
        self.metrics.place(&self.senders);
        let positions = match outcome {
            Ok(positions) => positions,
            Err(BridgeError::Stopped) => self.positions(),
            Err(error) => return Err(error),
        };
        noted?;
        debug_assert!(
            !until_caught_up || self.cluster.stop().is_stopped() || is_caught_up(&positions),
            "called caught up: {positions:?}"
        );
        Ok(positions)
    }

    /// Sends; where a person has to decide, and that may be waited for, waits.
    fn run_on(&mut self, until_caught_up: bool) -> Result<Vec<LogPosition>> {
        let may_wait = !until_caught_up && self.config.on_fenced == FencedRule::Wait;
        let stop = self.cluster.stop().clone();
        loop {
            let error = match self.send(until_caught_up) {
                Err(error) if may_wait && error.needs_decision() => error,
                other => return other,
            };
            self.stand_back(&error)?;
            loop {
                stop.wait(self.config.retry);
                if stop.is_stopped() {
                    return Ok(self.positions());
                }
                // Who begins claims nothing unless the positions are those of the logs here. That they are says
                // nothing to one who was fenced: both copies would take turns for ever.
                if !matches!(error, BridgeError::Fenced { .. }) || self.is_decided()? {
                    break;
                }
            }
        }
    }

    /// Lets all logs wait for a person.
    fn stand_back(&mut self, error: &BridgeError) -> Result<()> {
        self.producer = None;
        let reason = PauseReason::DecisionNeeded { reason: error.to_string() };
        for sender in &mut self.senders {
            (sender.paused, sender.reader, sender.has_decision) = (Some(reason.clone()), None, false);
        }
        self.report_waiting();
        self.metrics.place(&self.senders);
        self.write_progress()
    }

    fn send(&mut self, until_caught_up: bool) -> Result<Vec<LogPosition>> {
        let stop = self.cluster.stop().clone();
        if until_caught_up {
            self.check_topics()?;
        }
        self.begin()?;
        let mut looked = Instant::now();
        let mut reported = Reported::default();
        let mut backoff = self.backoff();
        loop {
            if stop.is_stopped() {
                return Ok(self.positions());
            }
            let is_due = looked.elapsed() >= self.config.retry;
            if self.notice_changes()?
                || is_due && (!until_caught_up || self.senders.iter().any(PartitionSender::is_unplaced))
            {
                looked = Instant::now();
                self.look_again()?;
            }
            self.report_waiting();
            self.metrics.place(&self.senders);
            let since = Instant::now();
            self.follow_the_line()?;
            let collected = self.collect_next();
            if collected.is_empty() {
                if let Some(positions) = self.report_idle(&mut reported)? {
                    if until_caught_up {
                        return Ok(positions);
                    }
                }
                let resting = self.senders.iter().filter_map(PartitionSender::rests_until).min();
                let pause = self.pace.look();
                let pause = if until_caught_up { pause } else { pause.min(self.config.retry) };
                stop.wait(resting.map_or(pause, |until| until.saturating_duration_since(since).min(pause)));
                continue;
            }
            reported = Reported::default();
            self.metrics.place(&self.senders);
            let bytes = collected.bytes;
            let result = self.run_transaction(collected);
            let ended = self.apply(result)?;
            self.adapt(ended, bytes);
            self.pace.begin(since.saturating_duration_since(self.began));
            match ended {
                Ended::Committed => {
                    backoff = self.backoff();
                    if !until_caught_up && bytes < self.config.batch_bytes {
                        stop.wait(self.pace.due().saturating_sub(self.began.elapsed()));
                    }
                }
                Ended::Again => {
                    // The positions are what they were, and the next try is another one.
                    for sender in &mut self.senders {
                        sender.rewind()?;
                    }
                }
                Ended::Late | Ended::Aborted => {
                    stop.wait_before_retry(backoff.pause());
                    self.look_up_targets()?;
                    self.learn_starts(Which::Sending)?;
                }
            }
        }
    }

    /// Applies what became of a transaction: to the senders, to what the progress file says, and to the transaction,
    /// which is aborted where it could not be committed.
    fn apply(&mut self, result: TransactionResult) -> Result<Ended> {
        let TransactionResult { outcome, changes, sent, events, took } = result;
        for (n, change) in changes {
            let sender = &mut self.senders[n];
            let is_committed = matches!(change, SenderChange::Committed(_));
            sender.apply(change);
            if is_committed {
                self.progress.entries.insert(sender.name.clone(), sender.progress(None));
                self.progress_is_behind = true;
            }
        }
        if outcome.is_ok() {
            self.count_committed(&sent, took);
        }
        for event in &events {
            self.report(event);
        }
        outcome.map_or_else(|lost| self.give_up(lost), |()| Ok(Ended::Committed))
    }

    /// Counts what was sent, and of each log where it stands now.
    fn count_committed(&self, sent: &BTreeMap<usize, (u64, u64)>, took: Duration) {
        let senders = sent.iter().map(|(sender, (records, bytes))| (&self.senders[*sender].name, *records, *bytes));
        self.metrics.committed(&senders.collect::<Vec<_>>(), took);
        self.metrics.place(&self.senders);
        let records = sent.values().map(|(records, _)| records).sum::<u64>();
        let bytes = sent.values().map(|(_, bytes)| bytes).sum::<u64>();
        let seconds = took.as_secs_f64();
        tracing::info!(sent_records = records, sent_bytes = bytes, transaction_duration_seconds = seconds, "committed");
    }

    /// Looks again at all logs that do not send.
    fn look_again(&mut self) -> Result<()> {
        if self.producer.is_none() {
            return self.begin();
        }
        self.find_senders()?;
        self.learn_starts(Which::Waiting)
    }

    /// What the next transaction carries: positions in the places of decisions first, then records, then positions that
    /// the cluster would forget.
    fn collect_next(&mut self) -> TransactionPlan {
        let mut collected = self.positions_alone(PartitionSender::decided_position);
        if collected.is_empty() {
            collected = self.collect();
        }
        if collected.is_empty() {
            self.report_waiting();
            let recommit = self.config.recommit;
            collected = self.positions_alone(|sender| sender.stale_position(recommit));
        }
        collected
    }

    /// Nothing was collected, which does not say that there is nothing: what each log still has is asked of it. Where
    /// none that does not wait has anything, writes the progress file, and returns how far each is delivered.
    fn report_idle(&mut self, reported: &mut Reported) -> Result<Option<Vec<LogPosition>>> {
        let positions = self.positions();
        if !is_caught_up(&positions) {
            return Ok(None);
        }
        if !reported.is_noted {
            self.write_progress()?;
        }
        let waits = positions.iter().any(|position| position.waits.is_some());
        if !waits && !reported.is_caught_up {
            self.report(&BridgeEvent::CaughtUp);
        }
        *reported = Reported { is_noted: true, is_caught_up: !waits };
        Ok(Some(positions))
    }

    /// Positions that are to be committed without records: those that the cluster would forget after some days, and
    /// those in whose place a decision stands.
    fn positions_alone(&self, of: impl Fn(&PartitionSender) -> Option<(Offset, BatchMark)>) -> TransactionPlan {
        let mut collected = TransactionPlan::default();
        if self.producer.is_some() {
            let found = self.senders.iter().enumerate().filter_map(|(n, sender)| Some((n, of(sender)?)));
            let found = found.take(self.cluster.link().offsets_max(self.transaction_timeout));
            collected.ends.extend(found.map(|(sender, (offset, mark))| RangeEnd { sender, offset, mark }));
        }
        collected
    }

    /// What the next transaction carries. Where a log's batch was refused, ranges of it are tried in transactions of
    /// their own, in turn with what the others have.
    fn collect(&mut self) -> TransactionPlan {
        // What a transaction may carry now is made durable for it; else an interval lies between two flushes of a log.
        let is_due = self.began.elapsed() >= self.pace.due();
        let interval = if is_due { Duration::ZERO } else { self.config.interval };
        self.senders.iter_mut().for_each(|sender| sender.make_durable(interval, &mut self.failed_flushes));
        let (line, mut collected) = (self.cluster.link().clone(), TransactionPlan::default());
        // The others and one that searches take turns. Three of them: the first may only begin a search.
        for _ in 0..3 {
            let only = self.searching().filter(|_| !self.others_turn);
            let terms = DrainLimits {
                config: &self.config,
                sides: &self.sides,
                bytes_max: self.bytes_max.min(line.transaction_bytes_max(self.transaction_timeout)),
                request_bytes_max: line.piece_bytes_max(),
                senders_max: line.offsets_max(self.transaction_timeout),
                first: self.first_sender,
                now: SystemClock.now(),
                only,
            };
            collected = collect(&mut self.senders, &terms);
            self.first_sender = collected.next_sender;
            self.others_turn = only.is_some();
            if !collected.is_empty() || only.is_none() && self.searching().is_none() {
                break;
            }
        }
        collected
    }

    /// The first sender that looks for what the target refused, and does not rest.
    fn searching(&self) -> Option<usize> {
        self.senders.iter().position(|sender| sender.is_searching() && !sender.sits_out())
    }

    /// Everything before the first transaction.
    fn begin(&mut self) -> Result<()> {
        self.find_senders()?;
        self.find_coordinators();
        self.learn_starts(Which::All)?;
        self.report_waiting();
        if self.senders.iter().all(|sender| sender.paused.is_some()) {
            // Nothing to send: no reason to fence another bridge.
            return Ok(());
        }
        self.init_producer(None)?;
        self.learn_starts(Which::All)?;
        self.warn_of_times()
    }

    /// Looks up all coordinators together, which one after the other would cost a round trip each. Where that fails,
    /// each is looked up again when it is asked.
    fn find_coordinators(&mut self) {
        let transaction = self.in_transactions().then(|| CoordinatorKey::Transaction(self.config.transactional_id()));
        let keys: Vec<&CoordinatorKey> = self.senders.iter().map(|sender| &sender.group).chain(&transaction).collect();
        if let Some(error) = self.cluster.find_coordinators(&keys) {
            self.report(&BridgeEvent::Retrying { reason: error.to_string() });
        }
    }

    fn waiting(&self) -> Vec<(TopicPartition, PauseReason)> {
        let waiting = self.senders.iter().filter_map(|sender| Some((sender.name.clone(), sender.paused.clone()?)));
        let unreadable = self.unreadable.iter().map(|(log, reason)| (log.clone(), reason.clone()));
        waiting.chain(unreadable).collect()
    }

    /// Reports which logs wait, each once for each reason.
    fn report_waiting(&mut self) {
        let waiting = self.waiting();
        self.reported.retain(|log, _| waiting.iter().any(|(waiting, _)| waiting == log));
        if waiting.iter().any(|(log, reason)| self.reported.get(log) != Some(reason)) {
            // What hears of it may look at the metrics.
            self.metrics.place(&self.senders);
        }
        for (log, reason) in waiting {
            if self.reported.get(&log) != Some(&reason) {
                self.reported.insert(log.clone(), reason.clone());
                self.report(&BridgeEvent::Waiting { log, reason });
            }
        }
    }
}
