//! A record, or an error, as a client gives it out.

use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

/// What a poll returns and a delivery report brings: a record, or what happened instead of one.
#[pyclass(module = "edgelog._edgelog", subclass)]
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) topic: Option<Py<PyAny>>,
    /// -1: none.
    pub(crate) partition: i32,
    /// -1001: none.
    pub(crate) offset: i64,
    pub(crate) key: Option<Py<PyAny>>,
    pub(crate) value: Option<Py<PyAny>>,
    pub(crate) headers: Option<Py<PyAny>>,
    pub(crate) error: Option<Py<PyAny>>,
    pub(crate) timestamp: (i64, i64),
    /// In seconds; negative: none.
    pub(crate) latency: f64,
    pub(crate) leader_epoch: i32,
    pub(crate) delivery_count: i16,
}

impl Message {
    /// One without anything.
    pub(crate) fn empty() -> Message {
        Message {
            partition: -1,
            offset: -1001,
            timestamp: (0, -1),
            latency: -1.0,
            leader_epoch: -1,
            delivery_count: -1,
            ..Message::default()
        }
    }
}

fn or_none(object: Option<&Py<PyAny>>, py: Python<'_>) -> Py<PyAny> {
    object.map_or_else(|| py.None(), |object| object.clone_ref(py))
}

fn given(object: Option<Bound<'_, PyAny>>) -> Option<Py<PyAny>> {
    object.filter(|object| !object.is_none()).map(Bound::unbind)
}

#[pymethods]
impl Message {
    #[new]
    #[pyo3(signature = (topic=None, partition=-1, offset=-1001, key=None, value=None, headers=None, error=None,
        timestamp=None, latency=-1.0, leader_epoch=-1, delivery_count=-1))]
    #[expect(clippy::too_many_arguments, reason = "the constructor of confluent_kafka has them")]
    fn new(
        topic: Option<Bound<'_, PyAny>>,
        partition: Option<i32>,
        offset: Option<i64>,
        key: Option<Bound<'_, PyAny>>,
        value: Option<Bound<'_, PyAny>>,
        headers: Option<Bound<'_, PyAny>>,
        error: Option<Bound<'_, PyAny>>,
        timestamp: Option<Bound<'_, PyAny>>,
        latency: Option<f64>,
        leader_epoch: Option<i32>,
        delivery_count: Option<i64>,
    ) -> PyResult<Message> {
        let wrong = |_| PyTypeError::new_err("timestamp must be a tuple of (int, int)");
        let timestamp = match timestamp.filter(|given| !given.is_none()) {
            Some(given) if given.is_instance_of::<PyTuple>() => given.extract().map_err(wrong)?,
            Some(_) => return Err(PyTypeError::new_err("timestamp must be a tuple of (int, int)")),
            None => (0, 0),
        };
        let delivery_count = i16::try_from(delivery_count.unwrap_or(-1))
            .map_err(|_| PyOverflowError::new_err("delivery_count does not fit into 16 bits"))?;
        Ok(Message {
            topic: given(topic),
            partition: partition.unwrap_or(-1).max(-1),
            offset: offset.filter(|offset| *offset >= 0).unwrap_or(-1001),
            key: given(key),
            value: given(value),
            headers: given(headers),
            error: given(error),
            timestamp,
            latency: latency.filter(|latency| *latency >= 0.0).unwrap_or(-1.0),
            leader_epoch: leader_epoch.unwrap_or(-1).max(-1),
            delivery_count: if delivery_count <= 0 { -1 } else { delivery_count },
        })
    }

    fn topic(&self, py: Python<'_>) -> Py<PyAny> {
        or_none(self.topic.as_ref(), py)
    }

    fn partition(&self) -> Option<i32> {
        (self.partition >= 0).then_some(self.partition)
    }

    fn offset(&self) -> Option<i64> {
        (self.offset >= 0).then_some(self.offset)
    }

    fn key(&self, py: Python<'_>) -> Py<PyAny> {
        or_none(self.key.as_ref(), py)
    }

    fn value(&self, py: Python<'_>) -> Py<PyAny> {
        or_none(self.value.as_ref(), py)
    }

    fn deserialized_key(&self, py: Python<'_>) -> Py<PyAny> {
        self.key(py)
    }

    fn deserialized_value(&self, py: Python<'_>) -> Py<PyAny> {
        self.value(py)
    }

    fn headers(&self, py: Python<'_>) -> Py<PyAny> {
        or_none(self.headers.as_ref(), py)
    }

    fn error(&self, py: Python<'_>) -> Py<PyAny> {
        or_none(self.error.as_ref(), py)
    }

    fn timestamp(&self) -> (i64, i64) {
        self.timestamp
    }

    fn latency(&self) -> Option<f64> {
        (self.latency >= 0.0).then_some(self.latency)
    }

    fn leader_epoch(&self) -> Option<i32> {
        (self.leader_epoch >= 0).then_some(self.leader_epoch)
    }

    fn delivery_count(&self) -> Option<i16> {
        (self.delivery_count > 0).then_some(self.delivery_count)
    }

    fn set_topic(&mut self, topic: Option<Bound<'_, PyAny>>) {
        self.topic = given(topic);
    }

    fn set_key(&mut self, key: Option<Bound<'_, PyAny>>) {
        self.key = given(key);
    }

    fn set_value(&mut self, value: Option<Bound<'_, PyAny>>) {
        self.value = given(value);
    }

    fn set_headers(&mut self, headers: Option<Bound<'_, PyAny>>) {
        self.headers = given(headers);
    }

    fn set_error(&mut self, error: Option<Bound<'_, PyAny>>) {
        self.error = given(error);
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.value.as_ref().map_or(Ok(0), |value| value.bind(py).len())
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = other.py();
        let Ok(other) = other.cast::<Message>() else { return Ok(false) };
        let (mine, theirs) = (self.parts(py)?, other.try_borrow()?.parts(py)?);
        mine.bind(py).eq(theirs.bind(py))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyType>, Py<PyTuple>)> {
        Ok((py.get_type::<Message>(), self.parts(py)?))
    }

    #[classattr]
    fn __hash__(py: Python<'_>) -> Py<PyAny> {
        py.None()
    }

    /// `Message[K, V]` is for type checkers.
    #[classmethod]
    fn __class_getitem__<'py>(class: &Bound<'py, PyType>, types: &Bound<'py, PyAny>) -> Bound<'py, PyType> {
        let _ = types;
        class.clone()
    }
}

impl Message {
    /// The arguments of a constructor that makes the same again.
    fn parts(&self, py: Python<'_>) -> PyResult<Py<PyTuple>> {
        let timestamp = self.timestamp.into_pyobject(py)?;
        let parts: [Py<PyAny>; 11] = [
            self.topic(py),
            self.partition.into_pyobject(py)?.into_any().unbind(),
            self.offset.into_pyobject(py)?.into_any().unbind(),
            self.key(py),
            self.value(py),
            self.headers(py),
            self.error(py),
            timestamp.into_any().unbind(),
            self.latency.into_pyobject(py)?.into_any().unbind(),
            self.leader_epoch.into_pyobject(py)?.into_any().unbind(),
            self.delivery_count.into_pyobject(py)?.into_any().unbind(),
        ];
        Ok(PyTuple::new(py, parts)?.unbind())
    }
}
