//! Gzip: one member or several, one behind the other.

use std::io::{ErrorKind, Read};

use edgelog_core::CompressionType;
use flate2::bufread::MultiGzDecoder;

use super::{CodecError, Output};

/// Output comes in pieces of this length, as it says nowhere how much there will be.
const PIECE_BYTES: usize = 8 << 10;

/// Reads all members.
pub(super) fn decompress(payload: &[u8], out: &mut Output<'_>) -> Result<(), CodecError> {
    let mut decoder = MultiGzDecoder::new(payload);
    let mut read = |buffer: &mut [u8]| loop {
        match decoder.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.map_err(|error| CodecError::corrupt(CompressionType::Gzip, error.to_string())),
        }
    };
    loop {
        let room = out.room().min(PIECE_BYTES);
        if room == 0 {
            // Also what comes last, the checksum, is verified only by reading on to the end.
            return match read(&mut [0])? {
                0 => Ok(()),
                more => Err(out.too_large((out.len() + more) as u64)),
            };
        }
        let got = read(out.grow(room)?)?;
        out.shrink(room - got);
        if got == 0 {
            return Ok(());
        }
    }
}
