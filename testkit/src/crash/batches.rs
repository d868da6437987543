//! Record batches in bytes, found the obvious way.

use edgelog::edgelog_core::RecordBatch;

/// A batch that holds, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub position: usize,
    pub size: usize,
    pub base_offset: i64,
    pub last_offset: i64,
    pub crc: u32,
}

impl Found {
    /// Which batch it is, wherever it stands.
    pub fn identity(self) -> (i64, u32) {
        (self.base_offset, self.crc)
    }
}

/// The batch that begins at `position`, if one does and its CRC holds.
pub fn batch_at(bytes: &[u8], position: usize) -> Option<Found> {
    let rest = bytes.get(position..)?;
    if rest.get(16) != Some(&2) {
        return None;
    }
    let batch = RecordBatch::parse(rest).ok()?;
    batch.verify_crc().ok()?;
    Some(Found {
        position,
        size: batch.size(),
        base_offset: batch.base_offset().0,
        last_offset: batch.last_offset().0,
        crc: u32::from_be_bytes(*rest[17..].first_chunk()?),
    })
}

/// Every batch that holds, wherever it begins.
pub fn batches_in(bytes: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut position = 0;
    while let Some(skip) = bytes.get(position + 16..).and_then(|rest| rest.iter().position(|&byte| byte == 2)) {
        position += skip;
        match batch_at(bytes, position) {
            Some(batch) => {
                position += batch.size;
                found.push(batch);
            }
            None => position += 1,
        }
    }
    found
}
