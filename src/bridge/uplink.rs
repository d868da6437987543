//! From local logs to the cluster: who we are, where each log stands there, and transaction after transaction from then
//! on.
//!
//! The order in which a bridge begins matters. The positions that the cluster holds are compared with the logs *before*
//! InitProducerId, which fences whoever used the id: a wrong copy, a restored backup or a log that was cut back stops
//! there. They are read again after it, when nobody else can move them any more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::Offset;

use super::backoff::{Backoff, StopHandle};
use super::cluster::{Cluster, Coordinated, RemoteTopic};
use super::collect::{Collected, Side, Terms, collect};
use super::config::{BridgeConfig, FencedRule};
use super::connection::{Transport, code_of};
use super::error::{BridgeError, Code, Result};
use super::event::{BridgeEvent, Observer};
use super::failed::FailedFlushes;
use super::lane::Lane;
use super::metrics::MetricsHandle;
use super::note::{Entry, Note};
use super::partition;
use super::place::Which;
use super::position::{BatchMark, RangeEnd};
use super::stamp::Producer;
use super::transaction::Ended;
use crate::clock::{Clock, SystemClock};
use crate::{Store, TopicPartition};

/// How often an idle bridge looks for records.
const LOOK_FOR_RECORDS: Duration = Duration::from_secs(1);

/// For how long something is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    /// Until somebody asks to stop.
    Asked,
    /// Until somebody asked to stop and what is under way has had its time.
    Grace,
    /// As `Grace`, and no longer than until then.
    Until(Instant),
}

pub(super) struct Uplink {
    pub(super) config: BridgeConfig,
    pub(super) store: Arc<Store>,
    pub(super) cluster: Cluster,
    pub(super) lanes: Vec<Lane>,
    /// The target topics that exist.
    pub(super) remote: HashMap<String, RemoteTopic>,
    /// The topics for dead letters and losses; or why one cannot be used.
    pub(super) sides: HashMap<String, std::result::Result<Side, String>>,
    pub(super) note: Note,
    failed_flushes: FailedFlushes,
    /// What the note says in memory is not on the medium yet.
    pub(super) note_is_behind: bool,
    pub(super) producer: Option<Producer>,
    /// What a transaction may carry, in bytes.
    pub(super) bytes_max: usize,
    /// The next sequence number of each partition, where they go on behind the last (at-least-once).
    pub(super) sequences: HashMap<(String, i32), i32>,
    /// For how long the cluster lets a transaction be open, as it was told last.
    pub(super) transaction_timeout: Duration,
    /// What was refused was looked into last: it is the turn of the others.
    others_turn: bool,
    observer: Observer,
    pub(super) metrics: MetricsHandle,
    /// Of which target's rules was warned.
    pub(super) warned: HashSet<(String, String)>,
    /// Why a log waits, as it was told last.
    told: HashMap<TopicPartition, String>,
}

impl Uplink {
    pub(super) fn new(
        config: BridgeConfig,
        store: Arc<Store>,
        note: Note,
        failed_flushes: FailedFlushes,
        stop: StopHandle,
        observer: Observer,
    ) -> Uplink {
        let (connect, request) = (config.connect_timeout, config.request_timeout);
        let transport = Transport::new(&config.client_id, connect, request, &config.security, stop);
        let cluster = Cluster::new(config.bootstrap.clone(), transport);
        let bytes_max = config.transaction_bytes;
        let metrics = MetricsHandle::new(&config.device);
        Uplink {
            config,
            store,
            cluster,
            lanes: Vec::new(),
            remote: HashMap::new(),
            sides: HashMap::new(),
            note,
            failed_flushes,
            note_is_behind: false,
            producer: None,
            bytes_max,
            sequences: HashMap::new(),
            transaction_timeout: Duration::ZERO,
            others_turn: true,
            observer,
            metrics,
            warned: HashSet::new(),
            told: HashMap::new(),
        }
    }

    pub(super) fn observe(&mut self, observer: Observer) {
        self.observer = observer;
    }

    pub(super) fn tell(&mut self, event: &BridgeEvent) {
        match event {
            BridgeEvent::Retrying { reason } => tracing::debug!(reason, "the bridge tries again"),
            BridgeEvent::Aborted { reason } => tracing::info!(reason, "a transaction of the bridge was aborted"),
            BridgeEvent::Waiting { log, reason } => tracing::warn!(%log, reason, "nothing of this log is sent"),
            _ => tracing::debug!(?event, "bridge"),
        }
        self.metrics.count(event);
        (self.observer)(event);
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.config.backoff, self.config.backoff_max)
    }

    /// Asks again for as long as the answer may be another one later.
    pub(super) fn persist<T>(
        &mut self,
        patience: Patience,
        mut ask: impl FnMut(&mut Cluster) -> Result<T>,
    ) -> Result<T> {
        let mut backoff = self.backoff();
        // A transaction that is being completed takes milliseconds.
        let mut soon = Backoff::new(Duration::from_millis(10), self.config.backoff_max);
        let mut tries = 0;
        loop {
            let outcome = ask(&mut self.cluster);
            self.metrics.heard(&outcome);
            let error = match outcome {
                Err(error) if error.is_retriable() => error,
                other => return other,
            };
            let stop = self.cluster.stop().clone();
            match patience {
                Patience::Asked => stop.check()?,
                Patience::Grace => stop.check_grace()?,
                Patience::Until(deadline) => {
                    stop.check_grace()?;
                    if Instant::now() >= deadline {
                        return Err(error);
                    }
                }
            }
            self.tell(&BridgeEvent::Retrying { reason: error.to_string() });
            let code = code_of(&error);
            let completing = matches!(code, Some(Code(51 | 88)));
            stop.wait_before_retry(if completing { soon.pause() } else { backoff.pause_after(&error) });
            tries += 1;
            let may_have_moved = code.map_or(tries % 2 == 0, |code| matches!(code.0, 5..=9 | 13..=16));
            if !error.is_refusal() && may_have_moved {
                // Connections that die on a bad line say nothing of where brokers are, when they do so once. Where
                // nobody answers, the next try says so.
                let _ = self.cluster.topics(&[]);
            }
        }
    }

    /// Sends until somebody asks to stop, or, where asked for, until the cluster has everything that is durable here.
    /// Returns the logs that wait, with the reason.
    pub(super) fn run(&mut self, until_caught_up: bool) -> Result<Vec<(TopicPartition, String)>> {
        let _span = tracing::info_span!("edgelog_bridge", device = self.config.device).entered();
        let outcome = self.run_on(until_caught_up);
        // Whatever happened: what was acknowledged is noted.
        let noted = self.write_note();
        match outcome {
            Ok(()) | Err(BridgeError::Stopped) => {}
            Err(error) => return Err(error),
        }
        noted?;
        Ok(self.waiting())
    }

    /// Sends; where a person has to decide, and that may be waited for, waits.
    fn run_on(&mut self, until_caught_up: bool) -> Result<()> {
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
                    return Ok(());
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
        for lane in &mut self.lanes {
            (lane.waits, lane.reader, lane.obeys) = (Some(error.to_string()), None, false);
        }
        self.tell_waiting();
        self.metrics.place(&self.lanes);
        self.write_note()
    }

    fn send(&mut self, until_caught_up: bool) -> Result<()> {
        let stop = self.cluster.stop().clone();
        self.begin()?;
        let mut looked = Instant::now();
        let mut was_caught_up = false;
        let mut backoff = self.backoff();
        loop {
            if stop.is_stopped() {
                return Ok(());
            }
            if !until_caught_up && looked.elapsed() >= self.config.retry {
                looked = Instant::now();
                if self.producer.is_none() {
                    self.begin()?;
                } else {
                    self.find_lanes()?;
                    self.learn_positions(Which::Waiting)?;
                }
            }
            self.tell_waiting();
            self.metrics.place(&self.lanes);
            let since = Instant::now();
            self.follow_the_line()?;
            let mut collected = self.positions_alone(Lane::obeyed_position);
            if collected.is_empty() {
                collected = self.collect();
            }
            if collected.is_empty() {
                self.tell_waiting();
                let recommit = self.config.recommit;
                collected = self.positions_alone(|lane| lane.stale_position(recommit));
            }
            if collected.is_empty() {
                let resting = self.lanes.iter().filter_map(Lane::rests_until).min();
                if resting.is_none() && !was_caught_up {
                    was_caught_up = true;
                    self.write_note()?;
                    self.tell(&BridgeEvent::CaughtUp);
                }
                if resting.is_none() && until_caught_up {
                    return Ok(());
                }
                let pause = LOOK_FOR_RECORDS.min(self.config.interval.max(Duration::from_millis(1)));
                let pause = if until_caught_up { pause } else { pause.min(self.config.retry) };
                stop.wait(resting.map_or(pause, |until| until.saturating_duration_since(since).min(pause)));
                continue;
            }
            was_caught_up = false;
            self.metrics.place(&self.lanes);
            let bytes = collected.bytes;
            let ended = self.transact(collected)?;
            self.adapt(ended, bytes);
            match ended {
                Ended::Committed => {
                    backoff = self.backoff();
                    if !until_caught_up && bytes < self.config.batch_bytes {
                        stop.wait(self.config.interval.saturating_sub(since.elapsed()));
                    }
                }
                Ended::Again => {
                    // Nobody moved the positions, and the next try is another one.
                    for lane in &mut self.lanes {
                        lane.rewind()?;
                    }
                }
                Ended::Late | Ended::Aborted => {
                    stop.wait_before_retry(backoff.pause());
                    self.look_up_targets()?;
                    self.learn_positions(Which::Sending)?;
                }
            }
        }
    }

    /// Positions that are to be committed without records: those that the cluster would forget after some days, and
    /// those in whose place a decision stands.
    fn positions_alone(&self, of: impl Fn(&Lane) -> Option<(Offset, BatchMark)>) -> Collected {
        let mut collected = Collected::default();
        if self.producer.is_some() {
            let found = self.lanes.iter().enumerate().filter_map(|(n, lane)| Some((n, of(lane)?)));
            collected.ends.extend(found.map(|(lane, (offset, mark))| RangeEnd { lane, offset, mark }));
        }
        collected
    }

    /// What the next transaction carries. Where a log's batch was refused, ranges of it are tried in transactions of
    /// their own, in turn with what the others have.
    fn collect(&mut self) -> Collected {
        let interval = self.config.interval;
        self.lanes.iter_mut().for_each(|lane| lane.make_durable(interval, &mut self.failed_flushes));
        let searching = self.lanes.iter().position(|lane| lane.is_searching() && !lane.sits_out());
        let turns = match searching {
            None => [None, None],
            Some(_) if self.others_turn => [None, searching],
            Some(_) => [searching, None],
        };
        let (line, mut collected) = (self.cluster.line().clone(), Collected::default());
        for only in turns {
            let terms = Terms {
                config: &self.config,
                sides: &self.sides,
                bytes_max: self.bytes_max.min(line.transaction_bytes_max(self.transaction_timeout)),
                request_bytes_max: line.piece_bytes_max(),
                now: SystemClock.now(),
                only,
            };
            collected = collect(&mut self.lanes, &terms);
            self.others_turn = only.is_some();
            if !collected.is_empty() {
                break;
            }
        }
        collected
    }

    /// Everything before the first transaction.
    fn begin(&mut self) -> Result<()> {
        self.find_lanes()?;
        self.learn_positions(Which::All)?;
        self.tell_waiting();
        if self.lanes.iter().all(|lane| lane.waits.is_some()) {
            // Nothing to send: no reason to fence anybody.
            return Ok(());
        }
        self.init_producer(None)?;
        self.learn_positions(Which::All)?;
        self.warn_of_times()
    }

    /// The local logs that are to be sent, with the target of each.
    pub(super) fn find_lanes(&mut self) -> Result<()> {
        for topic in self.store.topics()? {
            let name = &topic.name;
            // Kafka's own begin so; their records mean nothing elsewhere.
            let internal = name.starts_with("__");
            if internal || !self.config.topics.iter().any(|pattern| partition::matches(pattern, name)) {
                continue;
            }
            for &number in &topic.partition_ids {
                let name = TopicPartition::new(name.as_str(), number);
                if self.lanes.iter().any(|lane| lane.name == name) {
                    continue;
                }
                let log = match self.store.log(&name.topic, number) {
                    Ok(log) => log,
                    // In the making, or unmaking.
                    Err(crate::Error::UnknownTopicOrPartition { .. }) => continue,
                    Err(error) => return Err(error.into()),
                };
                let remote = partition::remote_name(&self.config.to, &self.config.device, &name.topic);
                let group = Coordinated::Group(self.config.group_id(&name));
                let mut lane = Lane::new(name, log, group, remote);
                lane.inherit_failed_flush(&self.failed_flushes);
                self.lanes.push(lane);
            }
        }
        // Before anybody is reached: from here on, retention keeps what is to be sent.
        self.hold_lanes()?;
        self.metrics.place(&self.lanes);
        self.look_up_targets()
    }

    /// Names every lane in the note. (A damaged note holds everything, and stays as evidence.)
    fn hold_lanes(&mut self) -> Result<()> {
        if self.note.is_damaged {
            return Ok(());
        }
        for lane in &self.lanes {
            if !self.note.entries.contains_key(&lane.name) {
                let entry = Entry { remote: lane.remote.clone(), partition: -1, done: None, intent: None };
                self.note.entries.insert(lane.name.clone(), entry);
                self.note_is_behind = true;
            }
        }
        self.write_note()
    }

    fn waiting(&self) -> Vec<(TopicPartition, String)> {
        self.lanes.iter().filter_map(|lane| Some((lane.name.clone(), lane.waits.clone()?))).collect()
    }

    /// Tells which logs wait, each once for each reason.
    fn tell_waiting(&mut self) {
        let waiting = self.waiting();
        self.told.retain(|log, _| waiting.iter().any(|(waiting, _)| waiting == log));
        for (log, reason) in waiting {
            if self.told.get(&log) != Some(&reason) {
                self.told.insert(log.clone(), reason.clone());
                self.tell(&BridgeEvent::Waiting { log, reason });
            }
        }
    }

    /// Makes the note say what is known, where it does not.
    pub(super) fn write_note(&mut self) -> Result<()> {
        if std::mem::take(&mut self.note_is_behind) { self.note.write() } else { Ok(()) }
    }
}
