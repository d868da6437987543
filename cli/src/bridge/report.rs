//! What a bridge that runs reports: each event as a line of JSON, or what a person wants to know of them.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use edgelog::bridge::{BridgeEvent, BridgeMetrics, LogPosition, MetricsHandle};
use edgelog::{Offset, TopicPartition};
use serde::Serialize;

use super::outage::{Due, Outage};
use crate::failure::warn;
use crate::print;
use crate::progress::CatchUp;
use crate::time;

/// So many logs are named in a line.
const LOGS_NAMED_MAX: usize = 8;
/// In so long, so many dead letters are named.
const DEAD_LETTERS_IN: Duration = Duration::from_secs(60);
const DEAD_LETTERS_NAMED_MAX: u64 = 10;

/// How much is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Json,
    /// What needs a person.
    Quiet,
    /// What changes. In a log, which is kept, no line for each transaction.
    Log,
    /// To a person who looks on: each transaction as well.
    Terminal,
    /// Everything, each try too.
    Verbose,
}

impl Manner {
    pub(super) fn new(json: bool, quiet: bool, verbose: bool) -> Manner {
        match (json, quiet, verbose) {
            (true, ..) => Manner::Json,
            (_, true, _) => Manner::Quiet,
            (_, _, true) => Manner::Verbose,
            // A service manager's journal is no terminal; the variables that it sets are inherited by terminals, too.
            _ if io::stderr().is_terminal() => Manner::Terminal,
            _ => Manner::Log,
        }
    }

    fn has_transactions(self) -> bool {
        matches!(self, Manner::Terminal | Manner::Verbose)
    }
}

/// Reports what happens.
pub(super) struct Reporter {
    manner: Manner,
    metrics: MetricsHandle,
    catch_up: CatchUp,
    outage: Outage,
    /// That all is sent was reported, and nothing since that puts it in question.
    caught_up_reported: bool,
    dead_letters: DeadLetters,
}

/// Refused records come in thousands where a target has changed: a few are named in each minute, and the rest counted.
#[derive(Default)]
struct DeadLetters {
    /// When the minute began.
    since: Option<Instant>,
    named: u64,
    counted: u64,
}

impl DeadLetters {
    /// Whether one more is named.
    fn names(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= DEAD_LETTERS_IN) {
            self.report_rest();
            (self.since, self.named) = (Some(now), 0);
        }
        self.named += 1;
        self.counted += u64::from(self.named > DEAD_LETTERS_NAMED_MAX);
        self.named <= DEAD_LETTERS_NAMED_MAX
    }

    /// Reports how many were not named.
    fn report_rest(&mut self) {
        match std::mem::take(&mut self.counted) {
            0 => {}
            1 => warn("1 more record is a dead letter; -v names each"),
            more => warn(format_args!("{} are dead letters; -v names each", print::counted(more, "more record"))),
        }
    }
}

impl Drop for DeadLetters {
    fn drop(&mut self) {
        self.report_rest();
    }
}

impl Reporter {
    pub(super) fn new(manner: Manner, metrics: MetricsHandle, catch_up: CatchUp) -> Reporter {
        Reporter {
            manner,
            metrics,
            catch_up,
            outage: Outage::default(),
            caught_up_reported: false,
            dead_letters: DeadLetters::default(),
        }
    }

    pub(super) fn report(&mut self, event: &BridgeEvent) {
        // The bar says it.
        let is_shown = self.catch_up.is_shown() && matches!(event, BridgeEvent::Committed { .. });
        let catch_up = self.catch_up.clone();
        catch_up.suspend(|| match self.manner {
            Manner::Json => report_json(event, &self.metrics),
            _ => self.report_plainly(event, is_shown),
        });
    }

    fn report_plainly(&mut self, event: &BridgeEvent, is_shown: bool) {
        let is_quiet = self.manner == Manner::Quiet;
        match event {
            BridgeEvent::Committed { records, bytes, positions } => {
                self.report_success();
                if self.manner.has_transactions() && !is_shown {
                    if let Some(line) = committed(*records, *bytes, positions.len(), self.manner) {
                        eprintln!("{line}");
                    }
                }
            }
            BridgeEvent::CaughtUp => {
                self.report_success();
                self.dead_letters.report_rest();
                let is_known = std::mem::replace(&mut self.caught_up_reported, true);
                if !is_quiet && (self.manner.has_transactions() || !is_known) {
                    eprintln!("{}", caught_up(&self.metrics.read()));
                }
            }
            BridgeEvent::Aborted { reason } => {
                self.report_failure(format_args!("a transaction was aborted, and is sent again: {reason}"), reason);
            }
            BridgeEvent::Retrying { reason } => self.report_failure(format_args!("trying again: {reason}"), reason),
            BridgeEvent::DeadLetter { log, offset, topic, reason } => {
                if self.manner != Manner::Verbose && !self.dead_letters.names(Instant::now()) {
                    return;
                }
                warn(format_args!("the record of {log} at offset {offset} is a dead letter in {topic}: {reason}"));
            }
            BridgeEvent::Lost { log, first_offset, next_offset, reason } => {
                warn(format_args!("offsets {first_offset} to {next_offset} of {log} are lost: {reason}"));
            }
            BridgeEvent::LogReplaced { log, not_sent, looked_ms_before } => {
                let before = before_it_was_replaced(*not_sent, *looked_ms_before);
                warn(format_args!("{log} was deleted and created again here: it is another log now, and {before}"));
            }
            BridgeEvent::Waiting { log, reason } => {
                self.caught_up_reported = false;
                warn(format_args!("nothing of {log} is sent: {reason}"));
            }
            BridgeEvent::Rewrites { topic, reason } if !is_quiet => warn(format_args!("{topic} has {reason}")),
            BridgeEvent::RulesUnknown { topic, reason } if !is_quiet => {
                warn(format_args!(
                    "the configuration of the target topic {topic} may not be read, Kafka's defaults are taken: {reason}"
                ));
            }
            _ => {}
        }
    }

    /// Something failed, and is tried again.
    fn report_failure(&mut self, line: std::fmt::Arguments<'_>, reason: &str) {
        match self.manner {
            Manner::Quiet => return,
            Manner::Verbose => return warn(line),
            _ => {}
        }
        match self.outage.fail(Instant::now()) {
            Due::Nothing => {}
            Due::Failure => warn(line),
            Due::Still(lasts) => {
                warn(format_args!("nothing was committed for {}: {reason}; {}", time::elapsed(lasts), self.behind()));
            }
        }
    }

    fn report_success(&mut self) {
        if let Some(lasted) = self.outage.end(Instant::now()) {
            self.caught_up_reported = false;
            eprintln!("it goes on, after {}", time::elapsed(lasted));
        }
    }

    fn behind(&self) -> String {
        behind(&self.metrics.read())
    }
}

/// That all is sent: of what, where the store has more.
fn caught_up(metrics: &BridgeMetrics) -> String {
    match metrics.logs_not_selected as u64 {
        0 => "the cluster has everything that is durable here".to_owned(),
        others => {
            let (logs, topics) = (print::counted(metrics.logs.len() as u64, "log"), metrics.topics.join(","));
            format!(
                "the cluster has everything that is durable here of the {logs} of edgelog.bridge.topics={topics}; {} \
                 of this store {} not sent",
                print::counted(others, "other log"),
                if others == 1 { "is" } else { "are" },
            )
        }
    }
}

/// How far a bridge is behind, and how many logs there are of which that is not known.
pub(super) fn behind(metrics: &BridgeMetrics) -> String {
    let unknown = metrics.logs.iter().filter(|log| log.lag_records.is_none()).count() as u64;
    if metrics.logs.is_empty() {
        return "no log here is to be sent".to_owned();
    }
    if unknown == metrics.logs.len() as u64 {
        return "how far it is behind is not known".to_owned();
    }
    let mut text = format!("{} behind", print::counted(metrics.lag_records(), "record"));
    if let Some(age) = metrics.logs.iter().filter_map(|log| log.lag_age).max() {
        let _ = write!(text, ", the oldest {} old", time::elapsed(age));
    }
    if unknown > 0 {
        let _ = write!(text, ", and of {} it is not known", print::counted(unknown, "log"));
    }
    text
}

/// What became of the log whose name another one has.
fn before_it_was_replaced(not_sent: Option<u64>, looked_ms_before: u64) -> String {
    let looked = match looked_ms_before {
        0 => String::new(),
        ms => format!(" when it looked last, {} before", time::elapsed(Duration::from_millis(ms))),
    };
    match not_sent {
        None => "what of the one before had been sent is not known".to_owned(),
        Some(0) => format!("all that the bridge had seen of the one before{looked} was sent"),
        Some(count) => format!("at least {} of the one before had not been sent", print::counted(count, "record")),
    }
}

/// The line for a transaction; `None` where it carried none of the logs' records.
fn committed(records: u64, bytes: u64, logs: usize, manner: Manner) -> Option<String> {
    match records {
        // Positions alone, or the bridge's own records, which have lines of their own.
        0 if manner == Manner::Verbose => {
            Some(format!("committed the positions of {}", print::counted(logs as u64, "log")))
        }
        0 => None,
        records => Some(format!("sent {}, {}", print::counted(records, "record"), print::bytes(bytes))),
    }
}

/// What was not sent, and of which logs; `None` where all of it was.
pub(super) fn not_sent(positions: &[LogPosition]) -> Option<String> {
    // What holds nothing has nothing to send, also where the cluster's position is not known.
    let is_left = |log: &&LogPosition| !log.is_delivered() && (log.lag.is_some() || log.held != Some(0));
    let left: Vec<&LogPosition> = positions.iter().filter(is_left).collect();
    if left.is_empty() {
        return None;
    }
    // Where the cluster's position is not known, some of it may have been sent before.
    let of = |log: &LogPosition| match (log.lag, log.held) {
        (Some(lag), _) => format!("{} {}", log.log, print::grouped(lag)),
        (None, Some(held)) => format!("{} up to {}", log.log, print::grouped(held)),
        (None, None) => format!("{} (it cannot be read)", log.log),
    };
    let mut named: Vec<String> = left.iter().take(LOGS_NAMED_MAX).map(|log| of(log)).collect();
    if left.len() > named.len() {
        named.push(format!("and {} more", left.len() - named.len()));
    }
    let known: Vec<u64> = left.iter().filter_map(|log| log.lag.or(log.held)).collect();
    let is_exact = left.iter().all(|log| log.lag.is_some() || log.held.is_none());
    Some(format!("{} not sent: {}", records_of_logs(&known, left.len() as u64, is_exact), named.join(", ")))
}

/// The records of `logs` logs, of some of which the number is known.
fn records_of_logs(known: &[u64], logs: u64, is_exact: bool) -> String {
    let sum = known.iter().sum();
    let up_to = if is_exact { "" } else { "up to " };
    let (records, of_logs) = (print::counted(sum, "record"), print::counted(logs, "log"));
    match known.len() as u64 {
        0 => format!("an unknown number of records of {of_logs} were"),
        known if known < logs => format!("{up_to}{records} and an unknown number more of {of_logs} were"),
        _ => format!("{up_to}{records} of {of_logs} {}", if sum == 1 { "was" } else { "were" }),
    }
}

/// The last line: how far each log is delivered.
pub(super) fn report_positions(positions: &[LogPosition], json: bool) {
    if json {
        let logs = positions.iter().map(|log| LineDelivered {
            log: log.log.to_string(),
            end_offset: log.end_offset.map(|offset| offset.0),
            committed_offset: log.committed_offset.map(|offset| offset.0),
            lag: log.lag,
            waits: log.waits.as_ref().map(ToString::to_string),
        });
        return print_json(&Line::Positions { logs: logs.collect() });
    }
    let waiting = positions.iter().filter(|log| log.waits.is_some()).count() as u64;
    match not_sent(positions) {
        Some(line) => warn(format_args!("{line}, for the reasons above")),
        None if waiting > 0 => {
            warn(format_args!("{} cannot go on, for the reasons above", print::counted(waiting, "log")));
        }
        None => {}
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Line<'a> {
    Committed { records: u64, bytes: u64, positions: Vec<LinePosition> },
    CaughtUp { topics: String, logs: usize, logs_not_selected: usize },
    Aborted { reason: &'a str },
    Retrying { reason: &'a str },
    DeadLetter { log: String, offset: i64, topic: &'a str, reason: &'a str },
    Lost { log: String, first_offset: i64, next_offset: i64, reason: &'a str },
    LogReplaced { log: String, not_sent: Option<u64>, looked_ms_before: u64 },
    Waiting { log: String, reason: String },
    Rewrites { topic: &'a str, reason: &'a str },
    RulesUnknown { topic: &'a str, reason: &'a str },
    Positions { logs: Vec<LineDelivered> },
}

#[derive(Serialize)]
struct LinePosition {
    log: String,
    offset: i64,
}

#[derive(Serialize)]
struct LineDelivered {
    log: String,
    end_offset: Option<i64>,
    committed_offset: Option<i64>,
    lag: Option<u64>,
    waits: Option<String>,
}

fn positions_of(positions: &[(TopicPartition, Offset)]) -> Vec<LinePosition> {
    positions.iter().map(|(log, offset)| LinePosition { log: log.to_string(), offset: offset.0 }).collect()
}

fn report_json(event: &BridgeEvent, metrics: &MetricsHandle) {
    print_json(&match event {
        BridgeEvent::Committed { records, bytes, positions } => {
            Line::Committed { records: *records, bytes: *bytes, positions: positions_of(positions) }
        }
        BridgeEvent::CaughtUp => {
            let BridgeMetrics { topics, logs, logs_not_selected, .. } = metrics.read();
            Line::CaughtUp { topics: topics.join(","), logs: logs.len(), logs_not_selected }
        }
        BridgeEvent::Aborted { reason } => Line::Aborted { reason },
        BridgeEvent::Retrying { reason } => Line::Retrying { reason },
        BridgeEvent::DeadLetter { log, offset, topic, reason } => {
            Line::DeadLetter { log: log.to_string(), offset: offset.0, topic, reason }
        }
        BridgeEvent::Lost { log, first_offset, next_offset, reason } => {
            let (first_offset, next_offset) = (first_offset.0, next_offset.0);
            Line::Lost { log: log.to_string(), first_offset, next_offset, reason }
        }
        BridgeEvent::LogReplaced { log, not_sent, looked_ms_before } => {
            let (not_sent, looked_ms_before) = (*not_sent, *looked_ms_before);
            Line::LogReplaced { log: log.to_string(), not_sent, looked_ms_before }
        }
        BridgeEvent::Waiting { log, reason } => Line::Waiting { log: log.to_string(), reason: reason.to_string() },
        BridgeEvent::Rewrites { topic, reason } => Line::Rewrites { topic, reason },
        BridgeEvent::RulesUnknown { topic, reason } => Line::RulesUnknown { topic, reason },
        _ => return,
    });
}

/// Where it is not read any more, the bridge works on.
fn print_json(line: &Line<'_>) {
    let _ = print::json_line(line).and_then(|()| io::stdout().flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_without_records_is_not_called_sent() {
        assert_eq!(committed(1, 90, 1, Manner::Terminal).as_deref(), Some("sent 1 record, 90 B"));
        assert_eq!(committed(0, 0, 3, Manner::Terminal), None);
        assert_eq!(committed(0, 0, 3, Manner::Verbose).as_deref(), Some("committed the positions of 3 logs"));
    }
    #[test]
    fn what_was_not_sent_is_counted_as_far_as_it_is_known() {
        assert_eq!(records_of_logs(&[1], 1, true), "1 record of 1 log was");
        assert_eq!(records_of_logs(&[1, 51], 2, false), "up to 52 records of 2 logs were");
        assert_eq!(records_of_logs(&[3], 2, true), "3 records and an unknown number more of 2 logs were");
        assert_eq!(records_of_logs(&[], 2, true), "an unknown number of records of 2 logs were");
    }
}
