//! Where a log goes: the name of its target topic, and which partition of it.

use super::config::PartitionRule;

/// Kafka's murmur2 with Java's seed, by which a key chooses its partition in every Kafka client.
pub(super) fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (n, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * n);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

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
        PartitionRule::Auto | PartitionRule::Device => {
            // As Java's partitioner: without the sign bit.
            (murmur2(device.as_bytes()) & 0x7fff_ffff) % (partitions.max(1) as u32)
        }
    };
    if wanted as usize >= partitions {
        return Err(format!("it has {partitions} partitions, and partition {wanted} is needed"));
    }
    Ok(wanted as i32)
}

/// `template` with `{device}` and `{topic}` filled in.
pub(super) fn remote_name(template: &str, device: &str, topic: &str) -> String {
    template.replace("{device}", device).replace("{topic}", topic)
}

/// Whether `name` matches `pattern`, in which `*` stands for any characters.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(prefix) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let suffix = pieces.pop().expect("a split has at least one piece");
    for piece in pieces {
        let Some(at) = name.find(piece) else { return false };
        name = &name[at + piece.len()..];
    }
    name.len() >= suffix.len() && name.ends_with(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Java's `Utils.murmur2` answers, from its own unit test.
    #[test]
    fn murmur2_is_java_s() {
        for (text, hash) in [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)]
        {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
        assert_eq!(murmur2(b"abc") as i32, 479_470_107);
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("cpu", "cpu", true),
            ("cpu", "cpu2", false),
            ("net.*", "net.eth0", true),
            ("net.*", "network", false),
            ("*", "anything", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("a*a", "a", false),
            ("*x", "x", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_partition_that_the_target_lacks_is_refused() {
        assert_eq!(choose(PartitionRule::Auto, true, "d", 2, 3), Ok(2));
        assert!(choose(PartitionRule::Auto, true, "d", 3, 3).unwrap_err().contains("3 partitions"));
        // -973,932,308 without its sign bit is 1,173,551,340.
        assert_eq!(choose(PartitionRule::Auto, false, "21", 2, 7), Ok(1_173_551_340 % 7));
        assert!(choose(PartitionRule::Fixed(1), false, "d", 0, 1).is_err());
    }
}
