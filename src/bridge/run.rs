//! A bridge at work: who we are, where each log stands in the cluster, and transaction after transaction from then on.
//!
//! The order in which a bridge begins matters. The positions that the cluster holds are compared with the logs *before*
//! InitProducerId, which fences whoever used the id: a wrong copy, a restored backup or a log that was cut back stops
//! there. They are read again after it, when nobody else can move them any more.

use std::time::{Duration, Instant};

use edgelog_core::Offset;

use super::collect::{Collected, Terms, collect};
use super::config::FencedRule;
use super::error::{BridgeError, Result};
use super::event::BridgeEvent;
use super::lane::Lane;
use super::note::Entry;
use super::partition;
use super::place::Which;
use super::position::{BatchMark, RangeEnd};
use super::transaction::Ended;
use super::uplink::Uplink;
use crate::TopicPartition;
use crate::clock::{Clock, SystemClock};
use crate::kafka::CoordinatorKey;

/// How often an idle bridge looks for records.
const LOOK_FOR_RECORDS: Duration = Duration::from_secs(1);

impl Uplink {
    /// Sends until somebody asks to stop, or, where asked for, until the cluster has everything that is durable here.
    /// Returns the logs that wait, with the reason.
    pub(super) fn run(&mut self, until_caught_up: bool) -> Result<Vec<(TopicPartition, String)>> {
        let _span = tracing::info_span!("edgelog_bridge", device = self.config.device).entered();
        let outcome = self.run_on(until_caught_up);
        // Whatever happened: what was acknowledged is noted, and the metrics say where each log stands.
        let noted = self.write_note();
        self.metrics.place(&self.lanes);
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
        if until_caught_up {
            self.check_topics()?;
        }
        self.begin()?;
        let mut looked = Instant::now();
        // Since something was sent last: whether the note was written, and whether `CaughtUp` was reported.
        let (mut is_noted, mut is_reported) = (false, false);
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
                // Nothing was collected, which does not say that there is nothing: what a log still has is asked of it.
                if resting.is_none() && !self.lanes.iter().any(Lane::is_behind) {
                    if !is_noted {
                        self.write_note()?;
                    }
                    let waits = self.lanes.iter().any(|lane| lane.waits.is_some());
                    if !waits && !is_reported {
                        self.tell(&BridgeEvent::CaughtUp);
                    }
                    (is_noted, is_reported) = (true, !waits);
                    if until_caught_up {
                        return Ok(());
                    }
                }
                let pause = LOOK_FOR_RECORDS.min(self.config.interval.max(Duration::from_millis(1)));
                let pause = if until_caught_up { pause } else { pause.min(self.config.retry) };
                stop.wait(resting.map_or(pause, |until| until.saturating_duration_since(since).min(pause)));
                continue;
            }
            (is_noted, is_reported) = (false, false);
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
        let (line, mut collected) = (self.cluster.link().clone(), Collected::default());
        // The others and one that searches take turns. Three of them: the first may only begin a search.
        for _ in 0..3 {
            let only = self.searching().filter(|_| !self.others_turn);
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
            if !collected.is_empty() || only.is_none() && self.searching().is_none() {
                break;
            }
        }
        collected
    }

    /// The first lane that looks for what the target refused, and does not rest.
    fn searching(&self) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.is_searching() && !lane.sits_out())
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

    /// Whether any topic of the store is one that is to be sent. Where none is, a name is likely wrong.
    fn check_topics(&self) -> Result<()> {
        let topics = self.store.topics()?;
        if topics.iter().any(|topic| self.is_asked_for(&topic.name)) {
            return Ok(());
        }
        let names = topics.into_iter().map(|topic| topic.name).filter(|name| !name.starts_with("__")).collect();
        Err(BridgeError::NoTopics { patterns: self.config.topics.join(","), names })
    }

    /// Whether a local topic is to be sent. Kafka's own, whose records mean nothing elsewhere, begin with `__`.
    fn is_asked_for(&self, topic: &str) -> bool {
        !topic.starts_with("__") && self.config.topics.iter().any(|pattern| partition::matches(pattern, topic))
    }

    /// The local logs that are to be sent, with the target of each.
    pub(super) fn find_lanes(&mut self) -> Result<()> {
        for topic in self.store.topics()? {
            let name = &topic.name;
            if !self.is_asked_for(name) {
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
                let group = CoordinatorKey::Group(self.config.group_id(&name));
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
}
