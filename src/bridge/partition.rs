//! Where a log goes: the name of its target topic, and which partition of it, or which partitions of it by the keys of
//! its records.

use edgelog_core::partition_for_key;

use super::config::PartitionRule;
use crate::clients::Partitioner;

/// The partition of `partitions` that a log goes to, where it has none yet. `owned` says that the target topic is this
/// device's alone.
pub(super) fn choose(
    rule: PartitionRule,
    owned: bool,
    device: &str,
    local: u32,
    partitions: usize,
) -> Result<i32, String> {
    let wanted = match rule {
        PartitionRule::Fixed(partition) => partition,
        PartitionRule::Same => local,
        PartitionRule::Auto if owned => local,
        // The log's position is committed for one partition, whichever its records go to.
        PartitionRule::Auto | PartitionRule::Device | PartitionRule::Key(_) => {
            partition_for_key(device.as_bytes(), partitions as u32)
        }
    };
    if wanted as usize >= partitions {
        let found = if partitions <= 1 { "only 0".to_owned() } else { format!("0 to {}", partitions - 1) };
        return Err(format!("it has no partition {wanted}: there is {found}"));
    }
    Ok(wanted as i32)
}

/// The partitions of a target over which the records of a log are spread by their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByKey {
    partitioner: Partitioner,
    partitions: u32,
}

impl ByKey {
    /// For a target of so many partitions; `None` where keys choose nothing.
    pub(super) fn of(rule: PartitionRule, partitions: usize) -> Option<ByKey> {
        let PartitionRule::Key(partitioner) = rule else { return None };
        Some(ByKey { partitioner, partitions: u32::try_from(partitions).unwrap_or(u32::MAX) })
    }

    /// How many there are; 1 and more.
    pub(super) fn partitions(self) -> u32 {
        self.partitions.max(1)
    }

    /// The partition that a key chooses; `None` where it may be any.
    pub(super) fn partition_of(self, key: Option<&[u8]>) -> Option<i32> {
        self.partitioner.partition(key?, self.partitions()).map(|partition| partition as i32)
    }

    /// The partition that records without a key go to behind those in `partition`, one batch in each.
    pub(super) fn after(self, partition: i32) -> i32 {
        ((partition.unsigned_abs() + 1) % self.partitions()) as i32
    }
}

/// `template` with `{device}` and `{topic}` filled in.
pub(super) fn remote_name(template: &str, device: &str, topic: &str) -> String {
    template.replace("{device}", device).replace("{topic}", topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_chooses_as_the_clients_of_kafka_do() {
        let partition = |partitioner, key| ByKey::of(PartitionRule::Key(partitioner), 1000).unwrap().partition_of(key);
        assert_eq!(partition(Partitioner::Murmur2, Some(b"21")), Some(340));
        // 0xCBF43926 is the check value of CRC-32.
        assert_eq!(partition(Partitioner::ConsistentRandom, Some(b"123456789")), Some((0xCBF4_3926_u32 % 1000) as i32));
        assert_eq!(partition(Partitioner::Murmur2, Some(b"")), Some(275_646_681 % 1000));
        assert_eq!(partition(Partitioner::ConsistentRandom, Some(b"")), None);
        assert_eq!(
            (partition(Partitioner::Murmur2, None), partition(Partitioner::ConsistentRandom, None)),
            (None, None)
        );
        assert_eq!(ByKey::of(PartitionRule::Device, 3), None);
        let three = ByKey::of(PartitionRule::Key(Partitioner::ConsistentRandom), 3).unwrap();
        assert_eq!([0, 1, 2].map(|partition| three.after(partition)), [1, 2, 0]);
    }

    #[test]
    fn a_partition_that_the_target_lacks_is_refused() {
        assert_eq!(choose(PartitionRule::Auto, true, "d", 2, 3), Ok(2));
        assert!(choose(PartitionRule::Auto, true, "d", 3, 3).unwrap_err().contains("no partition 3: there is 0 to 2"));
        // -973,932,308 without its sign bit is 1,173,551,340.
        assert_eq!(choose(PartitionRule::Auto, false, "21", 2, 7), Ok(1_173_551_340 % 7));
        assert!(choose(PartitionRule::Fixed(1), false, "d", 0, 1).is_err());
    }
}
