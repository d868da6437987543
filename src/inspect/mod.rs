//! Looking at a store from outside: what its bytes are, whether they hold, making them whole, and taking them
//! elsewhere.
//!
//! * [`check`] looks at every byte and says what is wrong and where (`edgelog fsck`).
//! * [`dump`] shows what one file holds, as `kafka-dump-log` does (`edgelog dump`).
//! * [`repair`] makes a damaged store whole again, and [`salvage`] looks for records in what it kept aside (`edgelog
//!   repair`).
//! * [`export_partition`] and [`export_records`] take logs elsewhere (`edgelog export`), and
//!   [`import_partitions`] takes them in (`edgelog import`).
//!
//! All but [`repair`], [`salvage`] and [`import_partitions`] only read, take no lock, and work next to a live writer.
//! They read by system calls, never through maps, in stretches of bounded size: a bad disk is an error and never a
//! signal, and memory does not grow with the files.
//!
//! ```
//! # fn main() -> edgelog::Result<()> {
//! # let dir = std::env::temp_dir().join(format!("edgelog-doc-inspect-{}", std::process::id()));
//! # let store = edgelog::Store::open(&dir)?;
//! # store.create_topic(&edgelog::NewTopic::new("telemetry"))?;
//! # store.log("telemetry", 0)?.append(edgelog::NewRecord::value(b"21.5"))?;
//! # store.close()?;
//! use std::ops::ControlFlow;
//!
//! use edgelog::inspect::{self, Selection};
//!
//! let storage = inspect::open_directory(&dir)?;
//! let report = inspect::check(&storage, &Selection::all(), &mut |_| ControlFlow::Continue(()))?;
//! for finding in &report.findings {
//!     println!("{}: {finding}", finding.severity);
//! }
//! assert!(report.is_sound());
//! # let _ = std::fs::remove_dir_all(&dir);
//! # Ok(())
//! # }
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::storage::{DirectoryStorage, DirectoryStorageOptions, Storage, StoreMode};

mod check;
mod dump;
mod export;
mod export_report;
mod facts;
mod import;
mod indexes;
mod log_check;
mod plan;
mod repair;
mod report;
mod segment_check;
mod shared;
#[cfg(test)]
mod tests;

pub use check::{HiddenCheck, check, check_ends, check_hidden, check_within};
pub use dump::{DumpItem, DumpOptions, DumpReport, DumpText, dump};
pub use export::{Export, export_directory, export_partition, export_records, unreadable_segment};
pub use export_report::{ExportRange, ExportReport};
pub use facts::Selection;
pub use import::import_partitions;
pub use repair::{RepairAction, RepairReport, SalvageReport, repair, salvage};
pub use report::{CheckReport, CheckedLog, Finding, Progress, Severity};

/// The data directory `path`, for the reading tools: nothing in it can be changed through it, and nothing is mapped.
///
/// # Errors
/// [`Error::Storage`] where there is no such directory.
pub fn open_directory(path: impl AsRef<Path>) -> Result<Arc<dyn Storage>> {
    open_with(path.as_ref(), true)
}

/// The data directory `path`, for [`repair`] and [`salvage`].
///
/// # Errors
/// [`Error::Storage`] where there is no such directory.
pub fn open_directory_for_repair(path: impl AsRef<Path>) -> Result<Arc<dyn Storage>> {
    let path = path.as_ref();
    // Never creates one: what is to be repaired is there.
    open_with(path, true)?;
    open_with(path, false)
}

fn open_with(path: &Path, read_only: bool) -> Result<Arc<dyn Storage>> {
    let options =
        DirectoryStorageOptions { store_mode: StoreMode::File, read_only, ..DirectoryStorageOptions::default() };
    let name = path.display().to_string();
    let storage = DirectoryStorage::open(path, options).map_err(Error::storage("open data directory", &name))?;
    Ok(Arc::new(storage))
}

/// Lets a writer that may be at work in another process go on for a moment. Under a fuzzer there is none.
fn pause(duration: Duration) {
    if cfg!(not(fuzzing)) {
        std::thread::sleep(duration);
    }
}
