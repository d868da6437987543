//! Sending: `produce` hands a record to the library's producer, and `poll` and `flush` call what waits for its answer.
//!
//! 1. The producer's own thread never runs Python: it puts an answer into `Queue::ready`, and the thread that calls
//!    `poll`, `flush` or `close` calls the program's functions.
//! 2. No lock of this file is held while Python runs.
//! 3. Without a store there is a broker out of reach: a record waits in `Queue::waiting` until its time is over.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use edgelog::TimestampMs;
use edgelog::clients::{DeliveryResult, Producer, ProducerRecord};
use edgelog::edgelog_core::Header;
use pyo3::exceptions::{PyBufferError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use crate::error::{Failure, local, raised};
use crate::fields::{bytes_of, headers_of};
use crate::message::Message;
use crate::partitioners::KeyHash;
use crate::store::Store;
use crate::wait::{Deadline, SLICE};

/// What a delivery report says of its record, beyond the answer.
#[derive(Debug)]
struct Sent {
    topic: Py<PyString>,
    key: Option<Py<PyBytes>>,
    value: Option<Py<PyBytes>>,
    partition: i32,
    callback: Py<PyAny>,
}

#[derive(Debug)]
enum Answer {
    Acknowledged { partition: i32, offset: i64, leader_epoch: i32, timestamp: i64 },
    Failed(Failure),
}

#[derive(Debug)]
struct Report {
    /// `None`: the program asked for no report.
    sent: Option<Sent>,
    began: Instant,
    latency: Duration,
    answer: Answer,
}

#[derive(Debug, Default)]
struct Reports {
    ready: VecDeque<Report>,
    /// Records for a broker out of reach, with the end of their time; in this order.
    waiting: VecDeque<(Instant, Report)>,
}

#[derive(Debug, Default)]
struct Queue {
    reports: Mutex<Reports>,
    bell: Condvar,
    /// Records that were taken and whose report was not served.
    outstanding: AtomicUsize,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On the producer's own thread.
    fn answered(&self, sent: Option<Sent>, began: Instant, outcome: DeliveryResult, only_errors: bool) {
        let answer = match outcome {
            Ok(_) if only_errors => {
                self.outstanding.fetch_sub(1, Ordering::AcqRel);
                return;
            }
            Ok(metadata) => Answer::Acknowledged {
                partition: metadata.partition() as i32,
                offset: metadata.offset.map_or(-1001, |offset| offset.0),
                leader_epoch: metadata.leader_epoch.0,
                timestamp: metadata.timestamp.0,
            },
            Err(error) => Answer::Failed(Failure::from(&error)),
        };
        self.lock().ready.push_back(Report { sent, began, latency: began.elapsed(), answer });
        self.bell.notify_all();
    }

    /// Answers those whose time is over, and says when the next one's is.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut reports = self.lock();
        while reports.waiting.front().is_some_and(|(end, _)| *end <= now) {
            if let Some((_, mut report)) = reports.waiting.pop_front() {
                report.latency = now.duration_since(report.began);
                reports.ready.push_back(report);
            }
        }
        reports.waiting.front().map(|(end, _)| *end)
    }

    /// Waits for a report, `wait` at most.
    fn wait(&self, wait: Duration) {
        let next = self.expire(Instant::now());
        let wait = next.map_or(wait, |end| wait.min(end.saturating_duration_since(Instant::now())));
        {
            let reports = self.lock();
            if reports.ready.is_empty() {
                let (reports, _) = self.bell.wait_timeout(reports, wait).unwrap_or_else(PoisonError::into_inner);
                drop(reports);
            }
        }
        self.expire(Instant::now());
    }
}

/// What `open` has set.
#[derive(Debug)]
struct Open {
    /// `None`: a broker out of reach.
    producer: Option<Producer>,
    store: Option<Arc<edgelog::Store>>,
    queue: Arc<Queue>,
    outstanding_max: usize,
    record_bytes_max: usize,
    timeout: Duration,
    only_errors: bool,
    hash: Option<KeyHash>,
    default_callback: Option<Py<PyAny>>,
    /// Called as `errors(code, text, retriable, raise)`; returns what to raise or what a report says.
    errors: Py<PyAny>,
    /// Called while the program waits, for what else there is to serve; returns how many events that were.
    tick: Option<Py<PyAny>>,
}

/// The native part of a producer.
#[pyclass(module = "edgelog._edgelog", subclass, frozen)]
#[derive(Debug, Default)]
pub(crate) struct ProducerCore {
    open: Mutex<Option<Arc<Open>>>,
}

fn closed() -> PyErr {
    PyRuntimeError::new_err("Producer has been closed")
}

impl Open {
    fn error(&self, py: Python<'_>, failure: &Failure, raise: bool) -> PyResult<Py<PyAny>> {
        self.errors.call1(py, (failure.code, &failure.text, failure.is_retriable, raise))
    }

    fn raise(&self, py: Python<'_>, failure: &Failure) -> PyErr {
        match self.error(py, failure, true) {
            Ok(error) => PyErr::from_value(error.into_bound(py)),
            Err(error) => error,
        }
    }

    /// Serves reports until there are none, or the program's function raises.
    fn serve(&self, py: Python<'_>) -> PyResult<usize> {
        let mut served = 0;
        if let Some(tick) = &self.tick {
            served += tick.call0(py)?.extract::<usize>(py)?;
        }
        self.queue.expire(Instant::now());
        // What comes meanwhile is served by the next call: a function that produces could keep this one for ever.
        let ready = self.queue.lock().ready.len();
        for _ in 0..ready {
            let Some(report) = self.queue.lock().ready.pop_front() else { break };
            self.queue.outstanding.fetch_sub(1, Ordering::AcqRel);
            served += 1;
            self.report(py, report)?;
        }
        Ok(served)
    }

    fn report(&self, py: Python<'_>, report: Report) -> PyResult<()> {
        let Some(sent) = report.sent else { return Ok(()) };
        if self.only_errors && matches!(report.answer, Answer::Acknowledged { .. }) {
            return Ok(());
        }
        let mut message = Message {
            topic: Some(sent.topic.into_any()),
            partition: sent.partition,
            key: sent.key.map(Py::into_any),
            value: sent.value.map(Py::into_any),
            latency: report.latency.as_secs_f64(),
            ..Message::empty()
        };
        let error = match report.answer {
            Answer::Acknowledged { partition, offset, leader_epoch, timestamp } => {
                message.partition = partition;
                message.offset = offset;
                message.leader_epoch = leader_epoch;
                message.timestamp = (1, timestamp);
                py.None()
            }
            Answer::Failed(failure) => {
                let error = self.error(py, &failure, false)?;
                message.error = Some(error.clone_ref(py));
                error
            }
        };
        sent.callback.call1(py, (error, message))?;
        Ok(())
    }

    fn outstanding(&self) -> usize {
        self.queue.outstanding.load(Ordering::Acquire)
    }

    /// Takes one record. An error here means that it was not taken.
    fn produce(&self, py: Python<'_>, record: &Record<'_, '_>) -> PyResult<Result<(), Failure>> {
        if self.outstanding() >= self.outstanding_max {
            return Err(PyBufferError::new_err("Local: Queue full"));
        }
        let (key, value) =
            (record.key.as_ref().map(PyBytesMethodsExt::bytes), record.value.as_ref().map(PyBytesMethodsExt::bytes));
        let size = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        if size > self.record_bytes_max {
            return Ok(Err(Failure::new(10, format!("a record has {size} bytes"))));
        }
        let callback = record.callback.map(|callback| callback.clone().unbind());
        let callback = callback.or_else(|| self.default_callback.as_ref().map(|callback| callback.clone_ref(py)));
        let sent = callback.map(|callback| Sent {
            topic: record.topic.clone().unbind(),
            key: record.key.as_ref().map(|key| key.clone().unbind()),
            value: record.value.as_ref().map(|value| value.clone().unbind()),
            partition: record.partition,
            callback,
        });
        let began = Instant::now();
        self.queue.outstanding.fetch_add(1, Ordering::AcqRel);
        let Some(producer) = &self.producer else {
            let failure = Failure::new(local::MSG_TIMED_OUT, "Local: Message timed out");
            let report = Report { sent, began, latency: Duration::ZERO, answer: Answer::Failed(failure) };
            let end = began.checked_add(self.timeout).unwrap_or(began);
            self.queue.lock().waiting.push_back((end, report));
            return Ok(Ok(()));
        };
        let topic = record.topic.to_cow()?;
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| Header { key: name, value: value.as_ref().map(PyBytesMethodsExt::bytes) })
            .collect();
        let mut sending = ProducerRecord::new(&topic, &[]).with_headers(&headers);
        (sending.key, sending.value) = (key, value);
        sending.timestamp = (record.timestamp > 0).then_some(TimestampMs(record.timestamp));
        sending.partition = u32::try_from(record.partition).ok();
        if let (None, Some(hash), Some(store)) = (sending.partition, self.hash, &self.store) {
            let count = store.topic(&topic).map_or(1, |topic| topic.partitions);
            sending.partition = hash.partition(key, count);
        }
        let (queue, only_errors) = (Arc::clone(&self.queue), self.only_errors);
        let taken =
            py.detach(|| producer.send_with(sending, move |outcome| queue.answered(sent, began, outcome, only_errors)));
        match taken {
            Ok(()) => Ok(Ok(())),
            Err(error) => {
                self.queue.outstanding.fetch_sub(1, Ordering::AcqRel);
                let failure = Failure::from(&error);
                if failure.code == local::QUEUE_FULL {
                    return Err(PyBufferError::new_err("Local: Queue full"));
                }
                Ok(Err(failure))
            }
        }
    }
}

/// A record to produce, as Python gave it.
struct Record<'a, 'py> {
    topic: &'a Bound<'py, PyString>,
    key: Option<Bound<'py, PyBytes>>,
    value: Option<Bound<'py, PyBytes>>,
    partition: i32,
    timestamp: i64,
    headers: Vec<crate::fields::Header<'py>>,
    callback: Option<&'a Bound<'py, PyAny>>,
}

impl<'a, 'py> Record<'a, 'py> {
    /// Of what a program gives for it.
    fn new(
        topic: &'a Bound<'py, PyString>,
        value: Option<&Bound<'py, PyAny>>,
        key: Option<&Bound<'py, PyAny>>,
        partition: i32,
        timestamp: i64,
        headers: Option<&Bound<'py, PyAny>>,
        callback: Option<&'a Bound<'py, PyAny>>,
    ) -> PyResult<Record<'a, 'py>> {
        let (value, key) = (bytes_of(value, 2)?, bytes_of(key, 3)?);
        let headers = headers_of(headers)?;
        let callback = callback.filter(|callback| !callback.is_none());
        Ok(Record { topic, key, value, partition, timestamp, headers, callback })
    }
}

trait PyBytesMethodsExt {
    fn bytes(&self) -> &[u8];
}

impl PyBytesMethodsExt for Bound<'_, PyBytes> {
    fn bytes(&self) -> &[u8] {
        pyo3::types::PyBytesMethods::as_bytes(self)
    }
}

impl ProducerCore {
    fn get(&self) -> PyResult<Arc<Open>> {
        self.lock().clone().ok_or_else(closed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl ProducerCore {
    #[new]
    #[pyo3(signature = (*args, **kwargs))]
    fn new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> ProducerCore {
        let _ = (args, kwargs);
        ProducerCore::default()
    }

    /// Opens it: on a store, or for a broker out of reach.
    #[pyo3(signature = (store, keys, *, errors, outstanding_max=100_000, record_bytes_max=1_000_000, timeout_ms=300_000,
        only_errors=false, partitioner=None, on_delivery=None, tick=None))]
    #[expect(clippy::too_many_arguments, reason = "each is a named argument in Python")]
    fn _open(
        &self,
        py: Python<'_>,
        store: Option<&Store>,
        keys: BTreeMap<String, String>,
        errors: Py<PyAny>,
        outstanding_max: usize,
        record_bytes_max: usize,
        timeout_ms: u64,
        only_errors: bool,
        partitioner: Option<&str>,
        on_delivery: Option<Py<PyAny>>,
        tick: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let handle = store.map(|store| store.handle(py)).transpose()?;
        let producer = match &handle {
            Some(handle) => {
                let mut builder = Producer::builder(handle);
                for (key, value) in &keys {
                    builder = builder.set(key, value).map_err(raised(py))?;
                }
                Some(py.detach(|| builder.open()).map_err(raised(py))?)
            }
            None => None,
        };
        let open = Open {
            producer,
            store: handle,
            queue: Arc::default(),
            outstanding_max,
            record_bytes_max,
            timeout: Duration::from_millis(timeout_ms),
            only_errors,
            hash: partitioner.and_then(KeyHash::named),
            default_callback: on_delivery,
            errors,
            tick,
        };
        *self.lock() = Some(Arc::new(open));
        Ok(())
    }

    /// Whether it is open.
    fn _is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// Takes a record. What became of it is said to `on_delivery` by a later `poll` or `flush`.
    #[pyo3(signature = (topic, value=None, key=None, partition=-1, callback=None, on_delivery=None, timestamp=0,
        headers=None))]
    #[expect(clippy::too_many_arguments, reason = "confluent_kafka's produce has them")]
    fn produce(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        partition: i32,
        callback: Option<&Bound<'_, PyAny>>,
        on_delivery: Option<&Bound<'_, PyAny>>,
        timestamp: i64,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let topic = topic_of(topic)?;
        let open = self.get()?;
        let record = Record::new(topic, value, key, partition, timestamp, headers, callback.or(on_delivery))?;
        open.produce(py, &record)?.map_err(|failure| open.raise(py, &failure))
    }

    /// As `produce`; returns what it would raise for the record, or None.
    #[pyo3(signature = (topic, value, key, partition, callback, timestamp, headers))]
    #[expect(clippy::too_many_arguments, reason = "those of produce")]
    fn _try_produce(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        partition: i32,
        callback: Option<&Bound<'_, PyAny>>,
        timestamp: i64,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<(i32, String)>> {
        let topic = topic_of(topic)?;
        let open = self.get()?;
        let record = Record::new(topic, value, key, partition, timestamp, headers, callback)?;
        match open.produce(py, &record) {
            Ok(Ok(())) => Ok(None),
            Ok(Err(failure)) => Ok(Some((failure.code, failure.text))),
            Err(error) if error.is_instance_of::<PyBufferError>(py) => {
                Ok(Some((local::QUEUE_FULL, "Local: Queue full".to_owned())))
            }
            Err(error) => Err(error),
        }
    }

    /// Calls what waits for answers that have come; where there are none, waits for one, `timeout` seconds at most.
    #[pyo3(signature = (timeout=-1.0))]
    fn poll(&self, py: Python<'_>, timeout: f64) -> PyResult<usize> {
        let open = self.get()?;
        let deadline = Deadline::after(timeout)?;
        loop {
            let served = open.serve(py)?;
            if served > 0 || deadline.is_over() {
                return Ok(served);
            }
            py.detach(|| open.queue.wait(deadline.slice()));
            py.check_signals()?;
        }
    }

    /// Waits until every record is answered and every answer was said, `timeout` seconds at most. Returns how many are
    /// left.
    #[pyo3(signature = (timeout=-1.0))]
    fn flush(&self, py: Python<'_>, timeout: f64) -> PyResult<usize> {
        let open = self.get()?;
        let deadline = Deadline::after(timeout)?;
        loop {
            open.serve(py)?;
            let left = open.outstanding();
            if left == 0 || deadline.is_over() {
                return Ok(left);
            }
            let slice = deadline.slice();
            let flushed = py.detach(|| {
                let Some(producer) = &open.producer else {
                    open.queue.wait(slice);
                    return Ok(true);
                };
                producer.flush_timeout(slice)
            });
            flushed.map_err(raised(py))?;
            py.check_signals()?;
        }
    }

    /// Discards records that were not appended: each is answered with an error.
    #[pyo3(signature = (in_queue=true, in_flight=true, blocking=true))]
    fn purge(&self, py: Python<'_>, in_queue: bool, in_flight: bool, blocking: bool) -> PyResult<()> {
        let _ = (in_flight, blocking);
        let open = self.get()?;
        if !in_queue {
            return Ok(());
        }
        if let Some(producer) = &open.producer {
            py.detach(|| producer.purge()).map_err(raised(py))?;
            return Ok(());
        }
        let mut reports = open.queue.lock();
        while let Some((_, mut report)) = reports.waiting.pop_front() {
            report.latency = report.began.elapsed();
            report.answer = Answer::Failed(Failure::new(local::PURGE_QUEUE, "Local: Purged in queue"));
            reports.ready.push_back(report);
        }
        drop(reports);
        open.queue.bell.notify_all();
        Ok(())
    }

    /// As `flush` without an end, and ends. Whether it was or is closed now.
    fn _close(&self, py: Python<'_>) -> PyResult<bool> {
        if self.lock().is_none() {
            return Ok(true);
        }
        let flushed = self.flush(py, -1.0);
        let open = self.lock().take();
        py.detach(|| {
            if let Some(producer) = open.as_ref().and_then(|open| open.producer.as_ref()) {
                // What failed was said to its callback.
                let _ = producer.close();
            }
        });
        drop(open);
        flushed.map(|_| true)
    }

    fn __len__(&self) -> usize {
        self.lock().as_ref().map_or(0, |open| open.outstanding())
    }

    fn __bool__(&self) -> bool {
        true
    }
}

impl Drop for ProducerCore {
    /// A producer that nothing refers to any more appends and flushes what it took.
    fn drop(&mut self) {
        let Some(open) = self.lock().take() else { return };
        let Some(producer) = open.producer.clone() else { return };
        // Its thread never waits for Python's lock, but others may.
        Python::try_attach(|py| py.detach(|| while matches!(producer.flush_timeout(SLICE), Ok(false)) {}));
    }
}

fn topic_of<'a, 'py>(topic: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyString>> {
    topic.cast::<PyString>().map_err(|_| {
        let name = if topic.is_none() {
            "None".to_owned()
        } else {
            topic.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
        };
        PyTypeError::new_err(format!("argument 1 must be str, not {name}"))
    })
}
