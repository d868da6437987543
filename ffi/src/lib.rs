//! edgelog's C ABI. `README.md` of this crate is its contract; `include/edgelog.h` is made from these sources, so
//! what a C programmer has to know stands in the comments of the exported items.
//!
//! A module is a noun of the header. What crosses the boundary crosses it in `boundary` (pointers, ownership, panics)
//! and `result` (errors); the others convert their arguments there and go on in safe Rust.

#![allow(non_camel_case_types)] // The header's names are C's.
#![allow(clippy::doc_markdown)] // Doc comments are the header's, which has no use for backticks around C's names.
#![allow(clippy::missing_safety_doc)] // The header's conventions are the contract of every function alike.
#![allow(clippy::missing_errors_doc)] // As above: `edgelog_result` lists what can be answered.

#[cfg(panic = "abort")]
compile_error!("edgelog's C ABI catches panics at its boundary: build it with panic = \"unwind\"");

mod abi;
mod boundary;
mod record;

// The nouns, in the order in which the header has them (blank lines keep rustfmt from sorting them).
mod types;

mod result;

mod last_error;

mod version;

mod options;

mod store;

mod recovery;

mod topics;

mod log;

mod batch_builder;

mod reader;

mod batch;

mod logging;

pub use abi::*;
pub use batch::*;
pub use batch_builder::*;
pub use last_error::*;
pub use log::*;
pub use logging::*;
pub use options::*;
pub use reader::*;
pub use recovery::*;
pub use result::*;
pub use store::*;
pub use topics::*;
pub use types::*;
pub use version::*;
