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
use super::log_position::LogPosition;
use super::place::Which;
use super::position::{BatchMark, RangeEnd};
use super::transaction::Ended;
use super::uplink::Uplink;
use crate::TopicPartition;
use crate::clock::{Clock, SystemClock};

/// What was done since something was sent last.
#[derive(Debug, Clone, Copy, Default)]
struct Reported {
    /// The note was written.
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
        // Whatever happened: what was acknowledged is noted, and the metrics say where each log stands.
        let noted = self.write_note();
        self.metrics.place(&self.lanes);
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
        for lane in &mut self.lanes {
            (lane.waits, lane.reader, lane.obeys) = (Some(error.to_string()), None, false);
        }
        self.tell_waiting();
        self.metrics.place(&self.lanes);
        self.write_note()
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
            if self.notice_changes()? || is_due && (!until_caught_up || self.lanes.iter().any(Lane::is_unplaced)) {
                looked = Instant::now();
                self.look_again()?;
            }
            self.tell_waiting();
            self.metrics.place(&self.lanes);
            let since = Instant::now();
            self.follow_the_line()?;
            let collected = self.collect_next();
            if collected.is_empty() {
                if let Some(positions) = self.report_idle(&mut reported)? {
                    if until_caught_up {
                        return Ok(positions);
                    }
                }
                let resting = self.lanes.iter().filter_map(Lane::rests_until).min();
                let pause = self.pace.look();
                let pause = if until_caught_up { pause } else { pause.min(self.config.retry) };
                stop.wait(resting.map_or(pause, |until| until.saturating_duration_since(since).min(pause)));
                continue;
            }
            reported = Reported::default();
            self.metrics.place(&self.lanes);
            let bytes = collected.bytes;
            let ended = self.transact(collected)?;
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

    /// Looks again at all logs that do not send.
    fn look_again(&mut self) -> Result<()> {
        if self.producer.is_none() {
            return self.begin();
        }
        self.find_lanes()?;
        self.learn_positions(Which::Waiting)
    }

    /// What the next transaction carries: positions in the places of decisions first, then records, then positions that
    /// the cluster would forget.
    fn collect_next(&mut self) -> Collected {
        let mut collected = self.positions_alone(Lane::obeyed_position);
        if collected.is_empty() {
            collected = self.collect();
        }
        if collected.is_empty() {
            self.tell_waiting();
            let recommit = self.config.recommit;
            collected = self.positions_alone(|lane| lane.stale_position(recommit));
        }
        collected
    }

    /// Nothing was collected, which does not say that there is nothing: what each log still has is asked of it. Where
    /// none that does not wait has anything, writes the note, and returns how far each is delivered.
    fn report_idle(&mut self, reported: &mut Reported) -> Result<Option<Vec<LogPosition>>> {
        let positions = self.positions();
        if !is_caught_up(&positions) {
            return Ok(None);
        }
        if !reported.is_noted {
            self.write_note()?;
        }
        let waits = positions.iter().any(|position| position.waits.is_some());
        if !waits && !reported.is_caught_up {
            self.tell(&BridgeEvent::CaughtUp);
        }
        *reported = Reported { is_noted: true, is_caught_up: !waits };
        Ok(Some(positions))
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
        // What a transaction may carry now is made durable for it; else an interval lies between two flushes of a log.
        let is_due = self.began.elapsed() >= self.pace.due();
        let interval = if is_due { Duration::ZERO } else { self.config.interval };
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

    fn waiting(&self) -> Vec<(TopicPartition, String)> {
        let waiting = self.lanes.iter().filter_map(|lane| Some((lane.name.clone(), lane.waits.clone()?)));
        let unreadable = self.unreadable.iter().map(|(log, reason)| (log.clone(), reason.clone()));
        waiting.chain(unreadable).collect()
    }

    /// Tells which logs wait, each once for each reason.
    fn tell_waiting(&mut self) {
        let waiting = self.waiting();
        self.told.retain(|log, _| waiting.iter().any(|(waiting, _)| waiting == log));
        if waiting.iter().any(|(log, reason)| self.told.get(log) != Some(reason)) {
            // What hears of it may look at the metrics.
            self.metrics.place(&self.lanes);
        }
        for (log, reason) in waiting {
            if self.told.get(&log) != Some(&reason) {
                self.told.insert(log.clone(), reason.clone());
                self.tell(&BridgeEvent::Waiting { log, reason });
            }
        }
    }
}
