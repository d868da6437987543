//! The header of a batch that is sent: it gets the producer's id, epoch and sequence, the bytes behind it stay as they
//! are.

use bytes::BytesMut;
use edgelog_core::{HEADER_LEN, NO_LEADER_EPOCH, Offset, restamped_crc, stamp_base};

// Places in the header that are set here; all but the CRC are covered by the CRC.
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;

const TRANSACTIONAL: i16 = 1 << 4;

/// Whose batch it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// Makes the batch this producer's, in a transaction or not, with base offset 0 as a broker wants it. The payload is
/// not read: the CRC follows from the change of the header alone, and damage stays visible to the broker.
pub(super) fn set_producer_state(batch: &mut BytesMut, producer: Producer, base_sequence: i32, in_transaction: bool) {
    let (header, payload) = batch.split_at_mut(HEADER_LEN);
    let header: &mut [u8; HEADER_LEN] = header.try_into().expect("split at the header's length");
    let before = *header;
    stamp_base(header, Offset(0), NO_LEADER_EPOCH);
    let own = i16::from_be_bytes([before[ATTRIBUTES], before[ATTRIBUTES + 1]]);
    let attributes = if in_transaction { own | TRANSACTIONAL } else { own };
    header[ATTRIBUTES..ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
    header[PRODUCER_ID..PRODUCER_ID + 8].copy_from_slice(&producer.id.to_be_bytes());
    header[PRODUCER_EPOCH..PRODUCER_EPOCH + 2].copy_from_slice(&producer.epoch.to_be_bytes());
    header[BASE_SEQUENCE..BASE_SEQUENCE + 4].copy_from_slice(&base_sequence.to_be_bytes());
    let crc = restamped_crc(&before, header, payload.len() as u64);
    header[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgelog_core::{LeaderEpoch, TimestampMs};
    use edgelog_core::{RecordBatch, RecordBatchBuilder};

    #[test]
    fn a_stamped_batch_has_a_true_crc_and_the_same_payload() {
        for len in [0, 1, 100, 70_000, 70_001] {
            let mut builder = RecordBatchBuilder::new(vec![0; len + 200]);
            builder.append(TimestampMs(5), Some(b"k"), Some(&vec![7; len]), &[]).unwrap();
            builder.append(TimestampMs(6), None, None, &[]).unwrap();
            if len % 2 == 1 {
                // A named producer's own numbers go no further than the log.
                builder.set_producer(1 << 60, 3, 12);
            }
            let mut bytes = BytesMut::from(&*builder.finish());
            stamp_base(&mut bytes, Offset(12_345), LeaderEpoch(3));
            let stored = bytes.clone();

            set_producer_state(&mut bytes, Producer { id: 77, epoch: 4 }, 99, true);
            let batch = RecordBatch::parse(&bytes).unwrap();
            batch.verify_crc().unwrap();
            assert_eq!((batch.base_offset(), batch.partition_leader_epoch()), (Offset(0), LeaderEpoch(-1)));
            assert_eq!((batch.producer_id(), batch.producer_epoch(), batch.base_sequence()), (77, 4, 99));
            assert!(batch.is_transactional());
            assert_eq!(bytes[HEADER_LEN..], stored[HEADER_LEN..]);

            // Damage that was there before is there after.
            let mut damaged = stored.clone();
            let last = damaged.len() - 1;
            damaged[last] ^= 1;
            set_producer_state(&mut damaged, Producer { id: 77, epoch: 4 }, 99, true);
            assert!(RecordBatch::parse(&damaged).unwrap().verify_crc().is_err());
        }
    }
}
