//! Where a log goes: the name of its target topic, and which partition of it.

use edgelog_core::partition_for_key;

use super::config::PartitionRule;

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
        PartitionRule::Auto | PartitionRule::Device => partition_for_key(device.as_bytes(), partitions as u32),
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
