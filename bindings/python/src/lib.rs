//! The native half of the Python package `edgelog`: the store and the clients, as thin as Python allows.
//!
//! What a person calls is written in Python, next to this crate in `python/edgelog`. Here stand the paths of every
//! record (`produce`, `poll`, `Message`) and what has to wait without Python's lock. No call waits longer than
//! [`wait::SLICE`] without looking for signals.

mod consumer;
mod error;
mod fields;
mod message;
mod partitioners;
mod producer;
mod store;
mod wait;

use pyo3::prelude::*;

/// `edgelog._edgelog`.
#[pymodule]
fn _edgelog(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<store::Store>()?;
    module.add_class::<message::Message>()?;
    module.add_class::<producer::ProducerCore>()?;
    module.add_class::<consumer::ConsumerCore>()?;
    module.add_function(wrap_pyfunction!(partitioners::murmur2, module)?)?;
    module.add_function(wrap_pyfunction!(partitioners::consistent, module)?)?;
    module.add_function(wrap_pyfunction!(partitioners::fnv1a, module)?)
}
