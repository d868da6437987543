//! Consuming. The library's consumer lives on a thread of its own; what Python asks is sent there as a job.
//!
//! So Python's thread can wait in pieces and look for signals, and a program's function that is called in the middle
//! of a rebalance can commit, seek or pause: while it runs, the consumer's thread serves the jobs that it sends.
//!
//! 1. The consumer's thread never runs Python. It sends a `Rebalance` to the job that began last from outside, and
//!    serves further jobs until it is asked to go on.
//! 2. No lock of this file is held while Python runs, or while a job is waited for.
//! 3. Records that were read and not given out yet stand in `State::buffer`, in order. A partition's position is that
//!    of the record that was given out last.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use edgelog::clients::{Consumer, ConsumerError, ConsumerRecords, OffsetAndMetadata, RebalanceListener, Waker};
use edgelog::{LeaderEpoch, Offset, OffsetSpec, TimestampMs, TopicPartition};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::error::{Failure, local, raised};
use crate::message::Message;
use crate::store::Store;
use crate::wait::{Deadline, SLICE};

/// So often the group is shown that the consumer is there while it works through what it has read.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// What the consumer's thread is asked.
enum Ask {
    Job(Box<dyn FnOnce(&mut Consumer) + Send>, Sender<Event>),
    /// The program's function has returned.
    GoOn,
    /// The consumer ends; its result is sent.
    Close(Sender<Result<(), Failure>>),
}

/// What a job that waits is sent.
enum Event {
    Rebalance(&'static str, Vec<TopicPartition>),
    Done,
}

/// Where a rebalance is said, on the consumer's thread.
struct Listener {
    asks: Asked,
    current: Current,
}

/// What the consumer's thread is asked, and to whom it says what happens meanwhile.
type Asked = Arc<Mutex<Receiver<Ask>>>;
type Current = Arc<Mutex<Option<Sender<Event>>>>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listener {
    fn say(&self, what: &'static str, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        let current = locked(&self.current).clone();
        if current.is_none_or(|current| current.send(Event::Rebalance(what, partitions.to_vec())).is_err()) {
            return;
        }
        // The thread's own loop waits below this call.
        loop {
            let ask = locked(&self.asks).recv();
            match ask {
                Ok(Ask::Job(job, events)) => {
                    job(consumer);
                    let _ = events.send(Event::Done);
                }
                Ok(Ask::Close(done)) => {
                    let _ = done.send(Err(Failure::new(local::STATE, "close was called while partitions change")));
                }
                Ok(Ask::GoOn) | Err(_) => return,
            }
        }
    }
}

impl RebalanceListener for Listener {
    fn on_partitions_assigned(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        self.say("assign", consumer, partitions);
    }

    fn on_partitions_revoked(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        self.say("revoke", consumer, partitions);
    }

    fn on_partitions_lost(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        self.say("lost", consumer, partitions);
    }
}

fn run(mut consumer: Consumer, asks: &Mutex<Receiver<Ask>>, current: &Mutex<Option<Sender<Event>>>) {
    loop {
        let ask = locked(asks).recv();
        match ask {
            Ok(Ask::Job(job, events)) => {
                *locked(current) = Some(events.clone());
                job(&mut consumer);
                *locked(current) = None;
                let _ = events.send(Event::Done);
            }
            Ok(Ask::GoOn) => {}
            Ok(Ask::Close(done)) => {
                let closed = consumer.close().map_err(|error| Failure::from(&error));
                let _ = done.send(closed);
                return;
            }
            Err(_) => return,
        }
    }
}

/// What is known of a partition that the consumer has or had.
#[derive(Debug, Clone)]
struct Known {
    topic: String,
    partition: u32,
    /// Behind the record that was given out last; -1001: none was.
    position: i64,
    epoch: i32,
    /// What a commit without offsets commits, and whether it was committed.
    stored: Option<(i64, i32, String)>,
    is_committed: bool,
    /// The offset of the end that was said last.
    end_said: i64,
}

#[derive(Debug, Default)]
struct State {
    buffer: VecDeque<(Py<Message>, usize, i64, i32)>,
    known: Vec<Known>,
    index: HashMap<(String, u32), usize>,
    polled: Option<Instant>,
    auto_committed: Option<Instant>,
    /// Names of topics as Python has them.
    names: HashMap<String, Py<PyString>>,
}

impl State {
    fn index_of(&mut self, topic: &str, partition: u32) -> usize {
        if let Some(last) = self.known.last().filter(|known| known.partition == partition && known.topic == topic) {
            return self.index.get(&(last.topic.clone(), partition)).copied().unwrap_or(self.known.len() - 1);
        }
        if let Some(found) = self.index.get(&(topic.to_owned(), partition)) {
            return *found;
        }
        let at = self.known.len();
        self.known.push(Known {
            topic: topic.to_owned(),
            partition,
            position: -1001,
            epoch: -1,
            stored: None,
            is_committed: false,
            end_said: -1,
        });
        self.index.insert((topic.to_owned(), partition), at);
        at
    }

    /// Forgets what was read of a partition and not given out; returns the offset of the first such record.
    fn unread(&mut self, topic: &str, partition: u32) -> Option<i64> {
        let at = *self.index.get(&(topic.to_owned(), partition))?;
        let first = self.buffer.iter().find(|read| read.1 == at && read.2 >= 0).map(|read| read.2);
        self.buffer.retain(|read| read.1 != at);
        first
    }

    /// Nothing is known of these partitions any more.
    fn forget(&mut self, partitions: &[(String, u32)]) {
        for (topic, partition) in partitions {
            self.unread(topic, *partition);
            let at = self.index_of(topic, *partition);
            let fresh = &mut self.known[at];
            (fresh.position, fresh.epoch, fresh.stored, fresh.end_said) = (-1001, -1, None, -1);
        }
    }
}

struct Open {
    asks: Sender<Ask>,
    waker: Waker,
    /// Of the process that opened it: a child has no such thread.
    process: u32,
    says_ends: bool,
    auto_store: bool,
    auto_commit_interval: Option<Duration>,
    errors: Py<PyAny>,
    listener: (Asked, Current),
}

/// The native part of a consumer.
#[pyclass(module = "edgelog._edgelog", subclass, frozen)]
#[derive(Default)]
pub(crate) struct ConsumerCore {
    open: Mutex<Option<Arc<Open>>>,
    state: Mutex<State>,
}

/// What a poll of the library has found.
#[derive(Default)]
struct Polled {
    records: ConsumerRecords,
    /// Partitions of which there is nothing more now, with their ends.
    ends: Vec<(TopicPartition, i64)>,
    /// What was found instead, and of which partition.
    failure: Option<(Failure, Option<TopicPartition>)>,
    is_unsubscribed: bool,
}

/// One poll, on the consumer's thread.
fn poll(consumer: &mut Consumer, wait: Duration, says_ends: bool) -> Polled {
    let mut polled = Polled::default();
    let first = if says_ends { Duration::ZERO } else { wait };
    let mut outcome = consumer.poll(first);
    if says_ends && outcome.as_ref().is_ok_and(ConsumerRecords::is_empty) {
        polled.ends = ends(consumer);
        if polled.ends.is_empty() {
            outcome = consumer.poll(wait);
        }
    }
    match outcome {
        Ok(records) => polled.records = records,
        Err(ConsumerError::Wakeup) => {}
        Err(ConsumerError::NotSubscribed) => polled.is_unsubscribed = true,
        Err(error) => {
            let partition = match &error {
                ConsumerError::Log { log, .. } | ConsumerError::NoPosition { log, .. } => Some(log.clone()),
                _ => None,
            };
            polled.failure = Some((Failure::from(&error), partition));
        }
    }
    polled
}

fn ends(consumer: &Consumer) -> Vec<(TopicPartition, i64)> {
    let paused = consumer.paused();
    let at_end = |partition: &TopicPartition| !paused.contains(partition) && matches!(consumer.lag(partition), Ok(0));
    let assigned = consumer.assignment().into_iter().filter(at_end);
    assigned.filter_map(|name| Some((name.clone(), consumer.position(&name).ok()?.offset.0))).collect()
}

/// The group sees that the consumer is there; nothing is read.
fn show(consumer: &mut Consumer) -> Polled {
    let paused = consumer.paused();
    let going: Vec<_> = consumer.assignment().into_iter().filter(|name| !paused.contains(name)).collect();
    let _ = consumer.pause(&going);
    let polled = poll(consumer, Duration::ZERO, false);
    // What was given up meanwhile is not there to be resumed.
    let assignment = consumer.assignment();
    let still: Vec<_> = going.into_iter().filter(|name| assignment.contains(name)).collect();
    let _ = consumer.resume(&still);
    polled
}

/// Partitions as Python gives them.
type Names = Vec<(String, u32)>;

fn names(partitions: Names) -> Vec<TopicPartition> {
    partitions.into_iter().map(|(topic, partition)| TopicPartition::new(topic, partition)).collect()
}

fn tuples(partitions: &[TopicPartition]) -> Names {
    partitions.iter().map(|name| (name.topic.clone(), name.partition)).collect()
}

/// An offset as librdkafka has them: -2 the beginning, -1 the end.
fn spec(offset: i64) -> PyResult<OffsetSpec> {
    match offset {
        -2 => Ok(OffsetSpec::Earliest),
        -1 => Ok(OffsetSpec::Latest),
        0.. => Ok(OffsetSpec::Offset(Offset(offset))),
        _ => Err(PyValueError::new_err(format!("there is no offset {offset}"))),
    }
}

impl ConsumerCore {
    fn get(&self) -> PyResult<Arc<Open>> {
        let open = locked(&self.open).clone();
        let open = open.ok_or_else(|| PyRuntimeError::new_err("Consumer closed"))?;
        if open.process != std::process::id() {
            return Err(PyRuntimeError::new_err(
                "the consumer belongs to the process that made it, and this is a child",
            ));
        }
        Ok(open)
    }

    /// Has a job done on the consumer's thread, and calls the program's functions meanwhile.
    fn call<T: Send + 'static>(
        slf: &Bound<'_, Self>,
        job: impl FnOnce(&mut Consumer) -> T + Send + 'static,
    ) -> PyResult<T> {
        let open = slf.get().get()?;
        Self::call_on(slf, &open, job)
    }

    fn call_on<T: Send + 'static>(
        slf: &Bound<'_, Self>,
        open: &Open,
        job: impl FnOnce(&mut Consumer) -> T + Send + 'static,
    ) -> PyResult<T> {
        let (result, raised) = Self::call_and_note(slf, open, job)?;
        raised.map_or(Ok(result), Err)
    }

    /// What the job has returned, and what was raised meanwhile.
    fn call_and_note<T: Send + 'static>(
        slf: &Bound<'_, Self>,
        open: &Open,
        job: impl FnOnce(&mut Consumer) -> T + Send + 'static,
    ) -> PyResult<(T, Option<PyErr>)> {
        let py = slf.py();
        let (events, coming) = channel();
        let result = Arc::new(Mutex::new(None));
        let place = Arc::clone(&result);
        let run = Box::new(move |consumer: &mut Consumer| *locked(&place) = Some(job(consumer)));
        let gone = || PyRuntimeError::new_err("Consumer closed");
        open.asks.send(Ask::Job(run, events)).map_err(|_| gone())?;
        // A receiver cannot be shared between threads; behind a lock it can.
        let coming = Mutex::new(coming);
        let mut raised = None;
        loop {
            let event = py.detach(|| locked(&coming).recv_timeout(SLICE));
            match event {
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = py.check_signals() {
                        raised = raised.or(Some(error));
                        open.waker.wakeup();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Ok(Event::Rebalance(what, partitions)) => {
                    let called = slf.call_method1("_rebalance", (what, tuples(&partitions)));
                    raised = raised.or(called.err());
                    let _ = open.asks.send(Ask::GoOn);
                }
                Ok(Event::Done) => break,
            }
        }
        let result = locked(&result).take().ok_or_else(gone)?;
        Ok((result, raised))
    }

    /// Puts what was found into the buffer.
    fn take(&self, py: Python<'_>, open: &Open, polled: Polled) -> PyResult<()> {
        let mut state = locked(&self.state);
        for record in &polled.records {
            match record {
                Ok(record) => {
                    let at = state.index_of(record.topic(), record.partition());
                    let message = message_of(py, &mut state.names, &record)?;
                    state.buffer.push_back((Py::new(py, message)?, at, record.offset.0, record.leader_epoch().0));
                }
                Err(error) => {
                    let failure = Failure::from(&error);
                    drop(state);
                    let message = failed(py, open, &failure, None, -1001)?;
                    state = locked(&self.state);
                    state.buffer.push_back((message, usize::MAX, -1, -1));
                }
            }
        }
        let mut others = Vec::new();
        for (name, end) in polled.ends {
            let at = state.index_of(&name.topic, name.partition);
            if state.known[at].end_said != end {
                state.known[at].end_said = end;
                let text =
                    format!("Fetch from broker 1 reached end of partition at offset {end} (HighwaterMark {end})");
                others.push((Failure::new(-191, text), Some(name), end));
            }
        }
        drop(state);
        others.extend(polled.failure.map(|(failure, name)| (failure, name, -1001)));
        for (failure, name, offset) in others {
            let message = failed(py, open, &failure, name.as_ref(), offset)?;
            locked(&self.state).buffer.push_back((message, usize::MAX, -1, -1));
        }
        Ok(())
    }

    /// Gives out what stands in the buffer, `count` at most.
    fn pop(&self, count: usize, auto_store: bool) -> Vec<Py<Message>> {
        let mut state = locked(&self.state);
        let count = count.min(state.buffer.len());
        let State { buffer, known, .. } = &mut *state;
        let mut given = Vec::with_capacity(count);
        for (message, at, offset, epoch) in buffer.drain(..count) {
            if let Some(known) = known.get_mut(at) {
                (known.position, known.epoch) = (offset + 1, epoch);
                if auto_store {
                    (known.stored, known.is_committed) = (Some((offset + 1, epoch, String::new())), false);
                }
            }
            given.push(message);
        }
        given
    }

    /// What is due while a program polls: a commit, a sign of life.
    fn look(slf: &Bound<'_, Self>, open: &Open) -> PyResult<()> {
        let this = slf.get();
        let now = Instant::now();
        let (commits, shows) = {
            let mut state = locked(&this.state);
            let since = *state.auto_committed.get_or_insert(now);
            let commits = open.auto_commit_interval.is_some_and(|interval| now.duration_since(since) >= interval);
            if commits {
                state.auto_committed = Some(now);
            }
            let polled = state.polled.is_none_or(|polled| now.duration_since(polled) >= HEARTBEAT_INTERVAL);
            let shows = !state.buffer.is_empty() && polled;
            if shows {
                state.polled = Some(now);
            }
            (commits, shows)
        };
        if commits {
            slf.call_method0("_auto_commit")?;
        }
        if shows {
            let polled = Self::call_on(slf, open, show)?;
            this.take(slf.py(), open, polled)?;
        }
        Ok(())
    }

    fn next(slf: &Bound<'_, Self>, count: usize, timeout: f64) -> PyResult<Vec<Py<Message>>> {
        let (this, py) = (slf.get(), slf.py());
        let open = this.get()?;
        let deadline = Deadline::after(timeout)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        Self::look(slf, &open)?;
        loop {
            let has = locked(&this.state).buffer.len();
            if has >= count {
                return Ok(this.pop(count, open.auto_store));
            }
            let (wait, says_ends) = (deadline.slice(), open.says_ends);
            let (polled, raised) = Self::call_and_note(slf, &open, move |consumer| poll(consumer, wait, says_ends))?;
            locked(&this.state).polled = Some(Instant::now());
            let is_idle = polled.is_unsubscribed;
            this.take(py, &open, polled)?;
            if let Some(error) = raised {
                return Err(error);
            }
            slf.call_method0("_tick")?;
            let has = locked(&this.state).buffer.len();
            if deadline.is_over() {
                return Ok(this.pop(count, open.auto_store));
            }
            if is_idle && has == 0 {
                py.detach(|| std::thread::sleep(deadline.slice()));
                py.check_signals()?;
            }
        }
    }
}

/// A record as a message.
fn message_of(
    py: Python<'_>,
    names: &mut HashMap<String, Py<PyString>>,
    record: &edgelog::clients::ConsumerRecord<'_>,
) -> PyResult<Message> {
    let topic = if let Some(name) = names.get(record.topic()) {
        name.clone_ref(py)
    } else {
        let name = PyString::new(py, record.topic()).unbind();
        names.insert(record.topic().to_owned(), name.clone_ref(py));
        name
    };
    let bytes = |bytes: &[u8]| PyBytes::new(py, bytes).into_any().unbind();
    let mut headers = Vec::new();
    for header in record.headers() {
        let name = String::from_utf8_lossy(header.key).into_owned();
        headers.push((name, header.value.map(|value| PyBytes::new(py, value))));
    }
    Ok(Message {
        topic: Some(topic.into_any()),
        partition: record.partition() as i32,
        offset: record.offset.0,
        key: record.key.map(bytes),
        value: record.value.map(bytes),
        headers: if headers.is_empty() { None } else { Some(PyList::new(py, headers)?.into_any().unbind()) },
        timestamp: (1, record.timestamp.0),
        leader_epoch: record.leader_epoch().0,
        ..Message::empty()
    })
}

/// What happened instead of a record, as a message.
fn failed(
    py: Python<'_>,
    open: &Open,
    failure: &Failure,
    partition: Option<&TopicPartition>,
    offset: i64,
) -> PyResult<Py<Message>> {
    let error = open.errors.call1(py, (failure.code, &failure.text, failure.is_retriable, false))?;
    let text = error.bind(py).getattr("str").and_then(|text| text.call0()).and_then(|text| text.extract::<String>());
    let text = text.unwrap_or_else(|_| failure.text.clone());
    let message = Message {
        topic: partition.map(|name| PyString::new(py, &name.topic).into_any().unbind()),
        partition: partition.map_or(-1, |name| name.partition as i32),
        offset,
        value: Some(PyBytes::new(py, text.as_bytes()).into_any().unbind()),
        error: Some(error),
        ..Message::empty()
    };
    Py::new(py, message)
}

#[pymethods]
impl ConsumerCore {
    #[new]
    #[pyo3(signature = (*args, **kwargs))]
    fn new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> ConsumerCore {
        let _ = (args, kwargs);
        ConsumerCore::default()
    }

    /// Opens it on a store.
    #[pyo3(signature = (store, keys, *, errors, auto_store=true, auto_commit_interval_ms=None, says_ends=false))]
    #[expect(clippy::too_many_arguments, reason = "each is a named argument in Python")]
    fn _open(
        &self,
        py: Python<'_>,
        store: &Store,
        keys: BTreeMap<String, String>,
        errors: Py<PyAny>,
        auto_store: bool,
        auto_commit_interval_ms: Option<u64>,
        says_ends: bool,
    ) -> PyResult<()> {
        let handle = store.handle(py)?;
        let mut options = Consumer::options();
        for (key, value) in &keys {
            options = options.set(key, value).map_err(raised(py))?;
        }
        let consumer = py.detach(|| options.open(&handle)).map_err(raised(py))?;
        let waker = consumer.waker();
        let (asks, asked) = channel();
        let (asked, current) = (Arc::new(Mutex::new(asked)), Arc::new(Mutex::new(None)));
        let listener = (Arc::clone(&asked), Arc::clone(&current));
        let spawned = std::thread::Builder::new()
            .name("edgelog-consumer".to_owned())
            .spawn(move || run(consumer, &asked, &current));
        spawned.map_err(|error| Failure::new(local::FAIL, error.to_string()).raise(py))?;
        *locked(&self.open) = Some(Arc::new(Open {
            asks,
            waker,
            process: std::process::id(),
            says_ends,
            auto_store,
            auto_commit_interval: auto_commit_interval_ms.map(Duration::from_millis),
            errors,
            listener,
        }));
        Ok(())
    }

    fn _is_open(&self) -> bool {
        locked(&self.open).is_some()
    }

    /// Subscribes to topics, or to one pattern.
    fn _subscribe(slf: &Bound<'_, Self>, topics: Vec<String>) -> PyResult<()> {
        let open = slf.get().get()?;
        let (asks, current) = (Arc::clone(&open.listener.0), Arc::clone(&open.listener.1));
        let subscribed = Self::call_on(slf, &open, move |consumer| {
            let names: Vec<_> = topics.iter().map(String::as_str).collect();
            consumer.subscribe_with(&names, Listener { asks, current })
        })?;
        subscribed.map_err(raised(slf.py()))
    }

    fn _unsubscribe(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::call(slf, Consumer::unsubscribe)?;
        let mut state = locked(&slf.get().state);
        (state.buffer, state.known, state.index) = (VecDeque::new(), Vec::new(), HashMap::new());
        Ok(())
    }

    /// Reads these partitions and no others, from an offset where one is given.
    fn _assign(slf: &Bound<'_, Self>, partitions: Vec<(String, u32, Option<i64>)>) -> PyResult<()> {
        let wanted: Vec<_> = partitions.iter().map(|(topic, number, _)| TopicPartition::new(topic, *number)).collect();
        let kept = wanted.clone();
        let gone = Self::call(slf, move |consumer| {
            let before = consumer.assignment();
            let gone: Vec<_> = before.into_iter().filter(|name| !kept.contains(name)).collect();
            consumer.assign(&kept).map(|()| gone)
        })?;
        let gone = gone.map_err(raised(slf.py()))?;
        locked(&slf.get().state).forget(&tuples(&gone));
        for (topic, partition, offset) in partitions {
            if let Some(offset) = offset {
                Self::_seek(slf, topic, partition, offset)?;
            }
        }
        Ok(())
    }

    fn _assignment(slf: &Bound<'_, Self>) -> PyResult<Names> {
        Ok(tuples(&Self::call(slf, |consumer| consumer.assignment())?))
    }

    /// The next message, or None after `timeout` seconds.
    #[pyo3(signature = (timeout=-1.0))]
    fn _poll(slf: &Bound<'_, Self>, timeout: f64) -> PyResult<Option<Py<Message>>> {
        Ok(Self::next(slf, 1, timeout)?.pop())
    }

    /// Up to `count` messages: as many as come within `timeout` seconds.
    #[pyo3(signature = (count, timeout=-1.0))]
    fn _consume(slf: &Bound<'_, Self>, count: usize, timeout: f64) -> PyResult<Vec<Py<Message>>> {
        Self::next(slf, count, timeout)
    }

    /// The next poll goes on there.
    fn _seek(slf: &Bound<'_, Self>, topic: String, partition: u32, offset: i64) -> PyResult<()> {
        let (to, name) = (spec(offset)?, TopicPartition::new(topic.clone(), partition));
        let sought = Self::call(slf, move |consumer| consumer.seek(&name, to))?;
        sought.map_err(raised(slf.py()))?;
        let mut state = locked(&slf.get().state);
        state.unread(&topic, partition);
        let at = state.index_of(&topic, partition);
        state.known[at].end_said = -1;
        Ok(())
    }

    fn _pause(slf: &Bound<'_, Self>, partitions: Names) -> PyResult<()> {
        // What was read and not given out is read again afterwards.
        let back: Vec<_> = {
            let mut state = locked(&slf.get().state);
            let unread = partitions.iter().map(|(topic, number)| (topic, *number, state.unread(topic, *number)));
            let unread: Vec<_> = unread.filter_map(|(topic, number, at)| Some((topic.clone(), number, at?))).collect();
            unread.into_iter().map(|(topic, number, at)| (TopicPartition::new(topic, number), Offset(at))).collect()
        };
        let partitions = names(partitions);
        let paused = Self::call(slf, move |consumer| {
            for (name, offset) in &back {
                consumer.seek(name, OffsetSpec::Offset(*offset))?;
            }
            consumer.pause(&partitions)
        })?;
        paused.map_err(raised(slf.py()))
    }

    fn _resume(slf: &Bound<'_, Self>, partitions: Names) -> PyResult<()> {
        let partitions = names(partitions);
        Self::call(slf, move |consumer| consumer.resume(&partitions))?.map_err(raised(slf.py()))
    }

    /// The offset behind the record that was given out last, and its leader epoch; -1001 where there was none.
    fn _position(&self, topic: String, partition: u32) -> PyResult<(i64, i32)> {
        self.get()?;
        let state = locked(&self.state);
        let known = state.index.get(&(topic, partition)).and_then(|at| state.known.get(*at));
        Ok(known.map_or((-1001, -1), |known| (known.position, known.epoch)))
    }

    /// What the group has committed: offset, leader epoch, metadata.
    fn _committed(slf: &Bound<'_, Self>, partitions: Names) -> PyResult<Vec<Option<(i64, i32, String)>>> {
        let partitions = names(partitions);
        let found = Self::call(slf, move |consumer| {
            partitions.iter().map(|name| consumer.committed(name)).collect::<Result<Vec<_>, _>>()
        })?;
        let found = found.map_err(raised(slf.py()))?;
        let shown = found.into_iter().map(|found| {
            found.map(|found| (found.offset.0, found.leader_epoch.map_or(-1, |epoch| epoch.0), found.metadata))
        });
        Ok(shown.collect())
    }

    /// Commits these offsets; durable on return.
    fn _commit(slf: &Bound<'_, Self>, offsets: Vec<(String, u32, i64, i32, String)>) -> PyResult<()> {
        let named: Vec<_> = offsets
            .into_iter()
            .map(|(topic, partition, offset, epoch, metadata)| {
                let mut at = OffsetAndMetadata::new(Offset(offset)).with_metadata(metadata);
                at.leader_epoch = (epoch >= 0).then_some(LeaderEpoch(epoch));
                (TopicPartition::new(topic, partition), at)
            })
            .collect();
        Self::call(slf, move |consumer| consumer.commit_offsets(&named))?.map_err(raised(slf.py()))
    }

    /// What was stored and not committed, as `_commit` takes it. It counts as committed from here on.
    fn _take_stored(&self) -> Vec<(String, u32, i64, i32, String)> {
        let mut state = locked(&self.state);
        let stored = state.known.iter_mut().filter(|known| !known.is_committed).filter_map(|known| {
            let (offset, epoch, metadata) = known.stored.clone()?;
            known.is_committed = true;
            Some((known.topic.clone(), known.partition, offset, epoch, metadata))
        });
        stored.collect()
    }

    /// What `_take_stored` has given out is to be committed again, unless there is something newer.
    fn _put_stored(&self, offsets: Vec<(String, u32, i64, i32, String)>) {
        let mut state = locked(&self.state);
        for (topic, partition, offset, ..) in offsets {
            let at = state.index_of(&topic, partition);
            let known = &mut state.known[at];
            if known.stored.as_ref().is_some_and(|stored| stored.0 == offset) {
                known.is_committed = false;
            }
        }
    }

    /// Stores an offset for the next commit.
    fn _keep(&self, topic: &str, partition: u32, offset: i64, epoch: i32, metadata: String) {
        let mut state = locked(&self.state);
        let at = state.index_of(topic, partition);
        (state.known[at].stored, state.known[at].is_committed) = (Some((offset, epoch, metadata)), false);
    }

    /// Nothing is known of these partitions any more.
    fn _forget(&self, partitions: Names) {
        locked(&self.state).forget(&partitions);
    }

    fn _member_id(slf: &Bound<'_, Self>) -> PyResult<Option<String>> {
        Self::call(slf, |consumer| consumer.member_id().map(str::to_owned))
    }

    /// Leaves the group and ends. Commits nothing.
    fn _close(&self, py: Python<'_>) -> PyResult<()> {
        let open = locked(&self.open).take();
        let Some(open) = open else { return Ok(()) };
        if open.process != std::process::id() {
            return Ok(());
        }
        let (done, closed) = channel();
        open.waker.wakeup();
        if open.asks.send(Ask::Close(done)).is_err() {
            return Ok(());
        }
        let closed = Mutex::new(closed);
        let closed = py.detach(|| locked(&closed).recv());
        *locked(&self.state) = State::default();
        match closed {
            Ok(Err(failure)) => Err(failure.raise(py)),
            _ => Ok(()),
        }
    }

    /// The offset of the first record at or after each time; None where there is none.
    fn _offsets_for_times(slf: &Bound<'_, Self>, times: Vec<(String, u32, i64)>) -> PyResult<Vec<Option<i64>>> {
        let times: Vec<_> = times
            .into_iter()
            .map(|(topic, partition, time)| (TopicPartition::new(topic, partition), TimestampMs(time)))
            .collect();
        let found = Self::call(slf, move |consumer| consumer.offsets_for_times(&times))?;
        let found = found.map_err(raised(slf.py()))?;
        Ok(found.into_iter().map(|found| found.map(|found| found.offset.0)).collect())
    }

    /// Called by the consumer when its share of the group's partitions changes. Subclasses do what is to be done.
    fn _rebalance(&self, what: &str, partitions: Names) {
        let _ = what;
        locked(&self.state).forget(&partitions);
    }

    /// Called when a commit is due.
    fn _auto_commit(&self) {}

    /// Called while a poll waits.
    fn _tick(&self) {}
}
