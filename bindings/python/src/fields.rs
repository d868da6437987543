//! Keys, values and headers, as Python gives them.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

/// Bytes of a key or a value: `bytes`, or `str` as UTF-8, or none.
pub(crate) fn bytes_of<'py>(
    object: Option<&Bound<'py, PyAny>>,
    argument: usize,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let Some(object) = object.filter(|object| !object.is_none()) else { return Ok(None) };
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Some(bytes.clone()));
    }
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(Some(text.encode_utf8()?));
    }
    let name = object.get_type().name()?.to_string();
    Err(PyTypeError::new_err(if matches!(&*name, "bytearray" | "memoryview") {
        format!("argument {argument} must be read-only bytes-like object, not {name}")
    } else {
        format!("a bytes-like object is required, not '{name}'")
    }))
}

/// A header: its name, and its value.
pub(crate) type Header<'py> = (Vec<u8>, Option<Bound<'py, PyBytes>>);

/// The headers of a record: a list of pairs, or a dict.
pub(crate) fn headers_of<'py>(object: Option<&Bound<'py, PyAny>>) -> PyResult<Vec<Header<'py>>> {
    let Some(object) = object.filter(|object| !object.is_none()) else { return Ok(Vec::new()) };
    let mut headers = Vec::new();
    if let Ok(dict) = object.cast::<PyDict>() {
        for (name, value) in dict.iter() {
            headers.push(header(&name, &value)?);
        }
        return Ok(headers);
    }
    let Ok(list) = object.cast::<PyList>() else {
        let name = object.get_type().name()?;
        let text = format!("expected headers to be dict or list of (key, value) tuples, not {name}");
        return Err(PyTypeError::new_err(text));
    };
    for pair in list.iter() {
        let pair = pair.cast_into::<PyTuple>().ok().filter(|pair| pair.len() == 2);
        let Some(pair) = pair else {
            return Err(PyTypeError::new_err("Headers are expected to be a list of (key, value) tuples"));
        };
        headers.push(header(&pair.get_item(0)?, &pair.get_item(1)?)?);
    }
    Ok(headers)
}

fn header<'py>(name: &Bound<'py, PyAny>, value: &Bound<'py, PyAny>) -> PyResult<Header<'py>> {
    let name = name.str()?.encode_utf8()?.as_bytes().to_vec();
    if value.is_none() {
        return Ok((name, None));
    }
    let value = bytes_of(Some(value), 8).map_err(|_| {
        let name = value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("expected header value to be None, binary, or unicode string, not {name}"))
    })?;
    Ok((name, value))
}
