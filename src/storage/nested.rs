//! How a data directory inside another one is opened.

use super::directory::{DirectoryStorageOptions, StoreMode};

/// It is a small one, and there may be thousands of them.
const MAP_BYTES_MAX: u64 = 64 << 20;
const OPEN_FILES_MAX: usize = 4;

impl DirectoryStorageOptions {
    /// Of a data directory below one that has these: open for writing, also where that one only reads.
    pub(super) fn nested(store_mode: StoreMode, file_mode: u32) -> DirectoryStorageOptions {
        DirectoryStorageOptions {
            store_mode,
            map_bytes_max: MAP_BYTES_MAX,
            open_files_max: OPEN_FILES_MAX,
            clean_files_max: OPEN_FILES_MAX,
            read_only: false,
            file_mode,
        }
    }
}
