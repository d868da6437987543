//! Segments that Kafka wrote before 0.11: their messages are named, and the files stay as they are.

use std::io;

use edgelog_core::{DecodeError, HEADER_LEN, Offset, OldMessage, Position};

use crate::error::{Error, Result};
use crate::segment::{Cursor, Segment};
use crate::storage::StorageFile;

/// A message's lengths are looked for in so many bytes: keys are shorter.
const LOOK_BYTES: usize = 64 << 10;
const MAGIC_AT: usize = 16;
/// Where the message's size stands.
const SIZE_AT: std::ops::Range<usize> = 8..12;

/// The place behind the messages of format 0 or 1 that stand at `position` of `file`, of which `len` bytes are looked
/// at, and the offset behind them; `None` where something else stands there. Reads by system calls alone: a writer may
/// trim the file meanwhile.
///
/// # Errors
/// Those of reading the file.
pub(super) fn behind_old_messages(
    file: &dyn StorageFile,
    position: Position,
    len: Position,
) -> io::Result<Option<(Position, Offset)>> {
    let (mut at, mut behind) = (position, None);
    let mut bytes = vec![0; HEADER_LEN];
    while at < len {
        let read = file.read_at(&mut bytes, u64::from(at))?;
        let Some(message) = OldMessage::peek(&bytes[..read]) else {
            // Room without records has no size: no message is that short.
            let may_be_one = bytes[MAGIC_AT] < 2 && bytes[SIZE_AT] != [0; 4];
            if bytes.len() < LOOK_BYTES && may_be_one {
                // A long key, perhaps: the value's length is behind it.
                bytes.resize(LOOK_BYTES, 0);
                continue;
            }
            break;
        };
        bytes.truncate(HEADER_LEN);
        // A message that runs past the file's end is the last one, and not whole.
        let end = u32::try_from(message.size).ok().and_then(|size| at.checked_add(size));
        at = end.map_or(len, |end| end.min(len));
        behind = Some((at, message.offset.saturating_add(1)));
    }
    Ok(behind)
}

/// Refuses a log in which a message of format 0 or 1 stands at `position` of `segment`: to a recovery it would look
/// like the end of the log, and it would cut what follows.
///
/// # Errors
/// [`Error::UnsupportedMessageFormat`]. Where the bytes cannot be read, recovery judges them as any others.
pub(super) fn refuse_old_messages(
    cursor: &mut Cursor,
    segment: &Segment,
    position: Position,
    len: Position,
) -> Result<()> {
    if position >= len {
        return Ok(());
    }
    let message = cursor.bytes(segment, position, len, LOOK_BYTES).ok().and_then(OldMessage::peek);
    match message {
        None => Ok(()),
        Some(OldMessage { magic, .. }) => {
            let source = DecodeError::OldFormat { magic };
            Err(Error::UnsupportedMessageFormat { file: segment.path(), position, source })
        }
    }
}
