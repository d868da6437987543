//! A bridge at work: who we are, where each log stands in the cluster, and transaction after transaction from then on.
//!
//! The order in which a bridge begins matters. The positions that the cluster holds are compared with the logs *before*
//! InitProducerId, which fences the producer that used the id: a wrong copy, a restored backup or a log that was cut
//! back stops there. They are read again after it, when no other bridge can move them any more.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::Offset;

use super::committed_offset::BatchMark;
use super::config::{BridgeConfig, FencedRule};
use super::error::{BridgeError, Result};
use super::event::{BridgeEvent, Observer};
use super::lent_log::LentLog;
use super::local_logs::LocalLogs;
use super::log_position::LogPosition;
use super::metrics::MetricsHandle;
use super::own_files::OwnFiles;
use super::pace::Pace;
use super::partition_sender::PartitionSender;
use super::pause_reason::PauseReason;
use super::planner::{Planner, positions_alone};
use super::producer_id::{Claim, ProducerIdentity};
use super::sender_change::SenderChange;
use super::session::Session;
use super::starts::{Starts, Which};
use super::targets::Targets;
use super::transaction::{Lost, Transaction, TransactionResult, end_transaction};
use super::transaction_plan::TransactionPlan;
use crate::kafka::{CoordinatorKey, StopHandle};
use crate::{Store, TopicPartition};

/// So often is looked at the logs while the next transaction may not begin yet.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was done since something was sent last.
#[derive(Debug, Clone, Copy, Default)]
struct Reported {
    /// The progress file was written.
    is_noted: bool,
    /// `CaughtUp` was reported.
    is_caught_up: bool,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Committed,
    /// Nothing of it counts, and positions are what they were: something smaller is tried at once, since the target
    /// refused a batch, or a request was more than the line carries.
    Again,
    /// Nothing of it counts; the committed offsets have to be read again.
    Aborted,
    /// As `Aborted`, for lack of time.
    Late,
}

/// Whether the cluster has everything that is durable here of every log that does not wait.
fn is_caught_up(positions: &[LogPosition]) -> bool {
    positions.iter().all(|position| position.waits.is_some() || position.is_delivered())
}

/// A bridge at work. It alone changes what stands here, each by its own methods; nothing of it knows the loop.
pub(super) struct Runner {
    session: Session,
    logs: LocalLogs,
    files: OwnFiles,
    senders: Vec<PartitionSender>,
    targets: Targets,
    producer: ProducerIdentity,
    planner: Planner,
    /// When transactions may begin, in the time since it began itself.
    pace: Pace,
    began: Instant,
    /// The bridge ends once it has caught up.
    until_caught_up: bool,
    /// Why a log is paused, as it was reported last.
    reported: HashMap<TopicPartition, PauseReason>,
}

impl Runner {
    /// A bridge for `store`, in the directory `dir`. Does not connect yet.
    ///
    /// # Errors
    /// What locking the directory and reading the bridge's own files can answer.
    pub(super) fn new(config: BridgeConfig, store: Arc<Store>, dir: &Path, stop: StopHandle) -> Result<Runner> {
        let files = OwnFiles::open(dir)?;
        let (planner, pace) = (Planner::new(config.transaction_bytes), Pace::new(config.interval));
        Ok(Runner {
            session: Session::new(config, stop),
            logs: LocalLogs::new(store),
            files,
            senders: Vec::new(),
            targets: Targets::default(),
            producer: ProducerIdentity::default(),
            planner,
            pace,
            began: Instant::now(),
            until_caught_up: false,
            reported: HashMap::new(),
        })
    }

    pub(super) fn config(&self) -> &BridgeConfig {
        self.session.config()
    }

    pub(super) fn metrics(&self) -> MetricsHandle {
        self.session.metrics().clone()
    }

    pub(super) fn observe(&mut self, observer: Observer) {
        self.session.observe(observer);
    }

    /// Sends until it is asked to stop, or, where asked for, until the cluster has everything that is durable here of
    /// every log that does not wait. Returns how far each is delivered.
    pub(super) fn run(&mut self, until_caught_up: bool) -> Result<Vec<LogPosition>> {
        let _span = tracing::info_span!("edgelog_bridge", device = self.session.config().device).entered();
        self.until_caught_up = until_caught_up;
        let outcome = self.run_on(until_caught_up);
        // Also after an error: what was acknowledged is noted, and the metrics say where each log stands.
        let noted = self.files.write_progress();
        self.logs.place(&self.session, &self.senders);
        let positions = match outcome {
            Ok(positions) => positions,
            Err(BridgeError::Stopped) => self.positions(),
            Err(error) => return Err(error),
        };
        noted?;
        debug_assert!(
            !until_caught_up || self.session.stop().is_stopped() || is_caught_up(&positions),
            "called caught up: {positions:?}"
        );
        Ok(positions)
    }

    /// Sends; where a person has to decide, and that may be waited for, waits.
    fn run_on(&mut self, until_caught_up: bool) -> Result<Vec<LogPosition>> {
        let may_wait = !until_caught_up && self.session.config().on_fenced == FencedRule::Wait;
        let stop = self.session.stop().clone();
        loop {
            let error = match self.send(until_caught_up) {
                Err(error) if may_wait && error.needs_decision() => error,
                other => return other,
            };
            self.stand_back(&error)?;
            loop {
                stop.wait(self.session.config().retry);
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
        self.producer.give_up();
        let reason = PauseReason::DecisionNeeded { reason: error.to_string() };
        for sender in &mut self.senders {
            sender.stand_back(reason.clone());
        }
        self.report_waiting();
        self.logs.place(&self.session, &self.senders);
        self.files.write_progress()
    }

    fn send(&mut self, until_caught_up: bool) -> Result<Vec<LogPosition>> {
        let stop = self.session.stop().clone();
        if until_caught_up {
            self.logs.check_topics(self.session.config())?;
        }
        self.begin()?;
        let mut looked = Instant::now();
        let mut reported = Reported::default();
        let mut backoff = self.session.backoff();
        // When the next transaction may begin, in the time since the bridge began.
        let mut may_begin = Duration::ZERO;
        loop {
            if stop.is_stopped() {
                return Ok(self.positions());
            }
            let is_due = looked.elapsed() >= self.session.config().retry;
            if self.logs.notice_changes(&mut self.session, &mut self.files, &mut self.senders)?
                || is_due && (!until_caught_up || self.senders.iter().any(PartitionSender::is_unplaced))
            {
                looked = Instant::now();
                self.look_again()?;
            }
            self.report_waiting();
            self.logs.place(&self.session, &self.senders);
            let early = may_begin.saturating_sub(self.began.elapsed());
            if !early.is_zero() {
                stop.wait(early.min(LOOK_EVERY));
                continue;
            }
            let since = Instant::now();
            self.follow_the_link()?;
            let plan = self.plan();
            if plan.is_empty() {
                if let Some(positions) = self.report_idle(&mut reported)? {
                    if until_caught_up {
                        return Ok(positions);
                    }
                }
                let resting = self.senders.iter().filter_map(PartitionSender::rests_until).min();
                let pause = self.pace.look();
                let pause = if until_caught_up { pause } else { pause.min(self.session.config().retry) };
                stop.wait(resting.map_or(pause, |until| until.saturating_duration_since(since).min(pause)));
                continue;
            }
            reported = Reported::default();
            self.logs.place(&self.session, &self.senders);
            let bytes = plan.bytes;
            let transaction =
                Transaction::of(&mut self.session, &mut self.producer, &mut self.targets, &mut self.files);
            let result = transaction.run(plan);
            let ended = self.apply(result)?;
            self.pace.begin(since.saturating_duration_since(self.began));
            match ended {
                Ended::Committed => {
                    self.planner.went_well();
                    backoff = self.session.backoff();
                    if !until_caught_up && bytes < self.session.config().batch_bytes {
                        may_begin = self.pace.due();
                    }
                }
                Ended::Again => {
                    // The positions are what they were, and the next try is another one.
                    for sender in &mut self.senders {
                        sender.rewind()?;
                    }
                }
                Ended::Late | Ended::Aborted => {
                    if ended == Ended::Late {
                        self.planner.ran_late(bytes);
                    }
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
                self.files.progress().acknowledge(sender.name(), sender.progress());
            }
        }
        if let Ok(producer) = &outcome {
            self.producer.go_on_as(*producer);
            self.count_committed(&sent, took);
        }
        for event in &events {
            self.session.report(event);
        }
        outcome.map_or_else(|lost| self.give_up(lost), |_| Ok(Ended::Committed))
    }

    /// Ends a transaction that cannot be committed. Returns how it ended, where nothing failed for good.
    fn give_up(&mut self, lost: Lost) -> Result<Ended> {
        let ended = match lost {
            Lost::Fatal(error) => {
                // What is open holds back readers there, until it times out.
                if self.session.in_transactions() && !matches!(error, BridgeError::Fenced { .. }) {
                    let _ = end_transaction(&mut self.session, self.producer.current(), false);
                }
                return Err(error);
            }
            Lost::Epoch(_) => {
                self.claim_again()?;
                return Ok(Ended::Late);
            }
            Lost::Abort(_) => Ended::Aborted,
            Lost::Smaller(_) => Ended::Again,
            Lost::Late(_) => Ended::Late,
        };
        self.abort()?;
        Ok(ended)
    }

    /// Aborts what is open, and makes sure that nothing of it can still arrive. Without transactions there is
    /// nothing to abort; what arrived stays there, and is sent again.
    fn abort(&mut self) -> Result<()> {
        if !self.session.in_transactions() {
            return self.claim();
        }
        match end_transaction(&mut self.session, self.producer.current(), false).map_err(Lost::from) {
            Ok(producer) => {
                self.producer.go_on_as(producer);
                Ok(())
            }
            Err(Lost::Fatal(error)) => Err(error),
            Err(_) => self.claim_again(),
        }
    }

    /// How many logs are not paused.
    fn sending(&self) -> usize {
        self.senders.iter().filter(|sender| sender.paused().is_none()).count()
    }

    fn claim(&mut self) -> Result<()> {
        let sending = self.sending();
        self.producer.claim(&mut self.session, sending)
    }

    /// Claims the own id again; where it may have been given away, as at a start.
    fn claim_again(&mut self) -> Result<()> {
        let sending = self.sending();
        match self.producer.claim_again(&mut self.session, sending)? {
            Claim::Claimed => Ok(()),
            Claim::Unsure => {
                self.producer.give_up();
                self.learn_starts(Which::All)?;
                self.claim()
            }
        }
    }

    /// Asks the cluster for another transaction timeout, where the link has become another one.
    fn follow_the_link(&mut self) -> Result<()> {
        if self.producer.is_outgrown(&self.session, self.sending()) { self.claim_again() } else { Ok(()) }
    }

    fn look_up_targets(&mut self) -> Result<()> {
        self.targets.look_up(&mut self.session, &mut self.senders, self.until_caught_up)
    }

    /// The local logs that are to be sent, with the target of each.
    fn find_senders(&mut self) -> Result<()> {
        self.logs.find(&mut self.session, &mut self.files, &mut self.senders)?;
        self.look_up_targets()
    }

    fn starts(&mut self) -> Starts<'_> {
        Starts::of(&mut self.session, &mut self.senders, &self.targets, self.files.progress())
    }

    fn learn_starts(&mut self, which: Which) -> Result<()> {
        let (identities, is_holder) = (self.logs.lasting_ids()?, self.producer.is_claimed());
        self.starts().learn(which, &identities, is_holder)
    }

    /// Whether a person has decided that the bridge of this store goes on.
    fn is_decided(&mut self) -> Result<bool> {
        self.find_senders()?;
        self.starts().is_decided()
    }

    /// How far each log is delivered.
    fn positions(&self) -> Vec<LogPosition> {
        self.logs.positions(&self.senders)
    }

    /// Counts what was sent, and of each log where it stands now.
    fn count_committed(&self, sent: &BTreeMap<usize, (u64, u64)>, took: Duration) {
        let senders = sent.iter().map(|(sender, (records, bytes))| (self.senders[*sender].name(), *records, *bytes));
        self.session.metrics().committed(&senders.collect::<Vec<_>>(), took);
        self.logs.place(&self.session, &self.senders);
        let records = sent.values().map(|(records, _)| records).sum::<u64>();
        let bytes = sent.values().map(|(_, bytes)| bytes).sum::<u64>();
        let seconds = took.as_secs_f64();
        tracing::info!(sent_records = records, sent_bytes = bytes, transaction_duration_seconds = seconds, "committed");
    }

    /// Looks again at all logs that do not send.
    fn look_again(&mut self) -> Result<()> {
        if !self.producer.is_claimed() {
            return self.begin();
        }
        self.find_senders()?;
        self.learn_starts(Which::Waiting)
    }

    /// What the next transaction carries: positions in the places of decisions first, then records, then positions that
    /// the cluster would forget.
    fn plan(&mut self) -> TransactionPlan {
        let mut plan = self.positions_alone(PartitionSender::decided_position);
        if plan.is_empty() {
            plan = self.records();
        }
        if plan.is_empty() {
            self.report_waiting();
            let recommit = self.session.config().recommit;
            plan = self.positions_alone(|sender| sender.stale_position(recommit));
        }
        plan
    }

    fn positions_alone(&self, of: impl Fn(&PartitionSender) -> Option<(Offset, BatchMark)>) -> TransactionPlan {
        if !self.producer.is_claimed() {
            return TransactionPlan::default();
        }
        positions_alone(&self.session, &self.senders, self.producer.transaction_timeout(), of)
    }

    /// Records for the next transaction. What it may carry now is made durable for it; else an interval lies between
    /// two flushes of a log.
    fn records(&mut self) -> TransactionPlan {
        let is_due = self.began.elapsed() >= self.pace.due();
        let interval = if is_due { Duration::ZERO } else { self.session.config().interval };
        let (failed, timeout) = (self.files.failed_flushes(), self.producer.transaction_timeout());
        let senders = self.senders.iter_mut().enumerate();
        let mut lent: Vec<LentLog<'_>> = senders.filter_map(|(n, sender)| sender.lend(n, interval, failed)).collect();
        let plan = self.planner.records(&self.session, self.targets.internal(), &mut lent, timeout);
        let stopped = lent.into_iter().filter_map(|log| Some((log.sender, log.stopped?)));
        for (n, change) in stopped.collect::<Vec<_>>() {
            self.senders[n].apply(change);
        }
        plan
    }

    /// Nothing was collected, which does not say that there is nothing: what each log still has is asked of it. Where
    /// none that does not wait has anything, writes the progress file, and returns how far each is delivered.
    fn report_idle(&mut self, reported: &mut Reported) -> Result<Option<Vec<LogPosition>>> {
        let positions = self.positions();
        if !is_caught_up(&positions) {
            return Ok(None);
        }
        if !reported.is_noted {
            self.files.write_progress()?;
        }
        let waits = positions.iter().any(|position| position.waits.is_some());
        if !waits && !reported.is_caught_up {
            self.session.report(&BridgeEvent::CaughtUp);
        }
        *reported = Reported { is_noted: true, is_caught_up: !waits };
        Ok(Some(positions))
    }

    /// Everything before the first transaction.
    fn begin(&mut self) -> Result<()> {
        self.find_senders()?;
        self.find_coordinators();
        self.learn_starts(Which::All)?;
        self.report_waiting();
        if self.senders.iter().all(|sender| sender.paused().is_some()) {
            // Nothing to send: no reason to fence another bridge.
            return Ok(());
        }
        self.claim()?;
        self.learn_starts(Which::All)?;
        self.targets.warn_of_times(&mut self.session, &self.senders)
    }

    /// Looks up all coordinators together, which one after the other would cost a round trip each. Where that fails,
    /// each is looked up again when it is asked.
    fn find_coordinators(&mut self) {
        let transaction = self.session.in_transactions().then(|| self.session.transaction());
        let keys: Vec<&CoordinatorKey> = self.senders.iter().map(PartitionSender::group).chain(&transaction).collect();
        if let Some(error) = self.session.cluster_mut().find_coordinators(&keys) {
            self.session.report(&BridgeEvent::Retrying { reason: error.to_string() });
        }
    }

    /// Reports which logs wait, each once for each reason.
    fn report_waiting(&mut self) {
        let waiting = self.logs.waiting(&self.senders);
        self.reported.retain(|log, _| waiting.iter().any(|(waiting, _)| waiting == log));
        if waiting.iter().any(|(log, reason)| self.reported.get(log) != Some(reason)) {
            // What hears of it may look at the metrics.
            self.logs.place(&self.session, &self.senders);
        }
        for (log, reason) in waiting {
            if self.reported.get(&log) != Some(&reason) {
                self.reported.insert(log.clone(), reason.clone());
                self.session.report(&BridgeEvent::Waiting { log, reason });
            }
        }
    }
}
