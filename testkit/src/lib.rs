//! What the tests of edgelog's packages share.
//!
//! The library's own tests are another build of the library, with traits of its own: they include the simulated disk
//! once more, as a module (`src/testing.rs`).

// Read by those who write tests, and published nowhere: what the pages of an API have is noise here.
#![allow(missing_docs, clippy::missing_errors_doc, clippy::return_self_not_must_use, clippy::new_without_default)]
// `Random::next`, of what is no iterator.
#![allow(clippy::should_implement_trait)]

mod child;
pub mod crash;
pub mod faults;
mod files;
mod place;
mod processors;
mod random;
mod temp_dir;

pub use child::{Watched, run_again, say, wait_until};
pub use files::{Files, batches_len, files_of, storage_of};
pub use place::{Place, ticking};
pub use processors::on_every_processor;
pub use random::Random;
pub use temp_dir::{TempDir, copy_dir};
