//! How a group's partitions are shared among its members: Kafka's `uniform` and `range`.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::TopicPartition;

/// How a group's partitions are shared among its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Assignor {
    /// As evenly as can be, moving as few partitions as that takes.
    Uniform,
    /// Of each topic neighbouring partitions, in the order of the members: static ones by their instances' names, and
    /// behind them the others by their ids.
    Range,
}

/// A member, as an assignor sees it.
#[derive(Debug, Clone)]
pub(super) struct Applicant {
    /// What members are ordered by: whether they are not static, and the instance's name of a static one, else the
    /// member's id. Ids change with each start of a program, so that they are behind what lasts.
    pub(super) order: (bool, String),
    pub(super) topics: BTreeSet<String>,
    /// What it was to have before.
    pub(super) before: BTreeSet<TopicPartition>,
}

pub(super) type Targets = BTreeMap<String, BTreeSet<TopicPartition>>;

/// What each member is to have. Every partition of a topic that a member subscribes to is given to one of them.
pub(super) fn assign(
    assignor: Assignor,
    members: &BTreeMap<String, Applicant>,
    topics: &BTreeMap<String, BTreeSet<u32>>,
) -> Targets {
    match assignor {
        Assignor::Uniform => uniform(members, topics),
        Assignor::Range => range(members, topics),
    }
}

fn uniform(members: &BTreeMap<String, Applicant>, topics: &BTreeMap<String, BTreeSet<u32>>) -> Targets {
    let exists = |partition: &TopicPartition| {
        topics.get(&partition.topic).is_some_and(|numbers| numbers.contains(&partition.partition))
    };
    let mut taken = BTreeSet::new();
    let mut targets = Targets::new();
    for (id, member) in members {
        let keeps = |partition: &&TopicPartition| exists(partition) && member.topics.contains(&partition.topic);
        let kept: BTreeSet<_> =
            member.before.iter().filter(keeps).filter(|p| taken.insert((*p).clone())).cloned().collect();
        targets.insert(id.clone(), kept);
    }
    for (topic, numbers) in topics {
        for &number in numbers {
            let partition = TopicPartition::new(topic.as_str(), number);
            if taken.contains(&partition) {
                continue;
            }
            let subscribed = members.iter().filter(|(_, member)| member.topics.contains(topic)).map(|(id, _)| id);
            let Some(id) = subscribed.min_by_key(|id| (targets[*id].len(), *id)) else { continue };
            targets.get_mut(id).expect("every member has a target").insert(partition);
        }
    }
    while let Some((from, to, partition)) = next_move(members, &targets) {
        targets.get_mut(&from).expect("a member").remove(&partition);
        targets.get_mut(&to).expect("a member").insert(partition);
    }
    targets
}

/// The partition that a member with too many gives to one with at least two fewer. Each move makes the shares more
/// even, so that they end.
fn next_move(members: &BTreeMap<String, Applicant>, targets: &Targets) -> Option<(String, String, TopicPartition)> {
    let mut by_share: Vec<_> = targets.iter().map(|(id, target)| (target.len(), id)).collect();
    by_share.sort_unstable();
    for &(most, from) in by_share.iter().rev() {
        for &(least, to) in &by_share {
            if least + 2 > most {
                break;
            }
            let takes = |partition: &&TopicPartition| members[to].topics.contains(&partition.topic);
            // The last ones: those that came first stay where they are.
            if let Some(partition) = targets[from].iter().rev().find(takes) {
                return Some((from.clone(), to.clone(), partition.clone()));
            }
        }
    }
    None
}

fn range(members: &BTreeMap<String, Applicant>, topics: &BTreeMap<String, BTreeSet<u32>>) -> Targets {
    let mut targets: Targets = members.keys().map(|id| (id.clone(), BTreeSet::new())).collect();
    for (topic, numbers) in topics {
        let mut subscribed: Vec<_> = members.iter().filter(|(_, member)| member.topics.contains(topic)).collect();
        subscribed.sort_by(|(a_id, a), (b_id, b)| (&a.order, a_id).cmp(&(&b.order, b_id)));
        let count = subscribed.len();
        let mut rest = numbers.iter();
        for (n, (id, _)) in subscribed.into_iter().enumerate() {
            let share = numbers.len() / count + usize::from(n < numbers.len() % count);
            let partitions = rest.by_ref().take(share).map(|&number| TopicPartition::new(topic.as_str(), number));
            targets.get_mut(id).expect("every member has a target").extend(partitions);
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(topics: &[&str], before: &[(&str, u32)]) -> Applicant {
        Applicant {
            order: (true, String::new()),
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            before: before.iter().map(|&(topic, number)| TopicPartition::new(topic, number)).collect(),
        }
    }

    fn topics(counts: &[(&str, u32)]) -> BTreeMap<String, BTreeSet<u32>> {
        counts.iter().map(|&(topic, count)| (topic.to_owned(), (0..count).collect())).collect()
    }

    fn shares(targets: &Targets) -> Vec<(String, Vec<String>)> {
        let names = |target: &BTreeSet<TopicPartition>| target.iter().map(ToString::to_string).collect();
        targets.iter().map(|(id, target)| (id.clone(), names(target))).collect()
    }

    #[test]
    fn uniform_moves_no_more_than_evenness_takes() {
        let t7 = topics(&[("t", 7)]);
        let mut members = BTreeMap::from([("a".to_owned(), member(&["t"], &[]))]);
        let mut targets = assign(Assignor::Uniform, &members, &t7);
        assert_eq!(targets["a"].len(), 7);
        for (id, expected) in [("b", vec![3, 4]), ("c", vec![2, 2, 3])] {
            members.insert(id.to_owned(), member(&["t"], &[]));
            for (id, target) in &targets {
                members.get_mut(id).unwrap().before.clone_from(target);
            }
            let after = assign(Assignor::Uniform, &members, &t7);
            let mut counts: Vec<_> = after.values().map(BTreeSet::len).collect();
            counts.sort_unstable();
            assert_eq!(counts, expected);
            let moved: usize = targets.iter().map(|(id, before)| before.difference(&after[id]).count()).sum();
            assert_eq!(moved, after[id].len(), "only what the new member gets");
            targets = after;
        }
    }

    #[test]
    fn uniform_gives_members_only_topics_that_they_subscribe_to() {
        let members = BTreeMap::from([
            ("a".to_owned(), member(&["t", "u"], &[("t", 0), ("t", 1), ("gone", 0)])),
            ("b".to_owned(), member(&["u"], &[])),
        ]);
        let targets = assign(Assignor::Uniform, &members, &topics(&[("t", 3), ("u", 3), ("v", 1)]));
        assert_eq!(
            shares(&targets),
            [
                ("a".to_owned(), vec!["t-0".to_owned(), "t-1".into(), "t-2".into()]),
                ("b".to_owned(), vec!["u-0".to_owned(), "u-1".into(), "u-2".into()])
            ]
        );
    }

    #[test]
    fn range_gives_neighbours_in_the_order_of_names() {
        let mut members = BTreeMap::from([
            ("1".to_owned(), Applicant { order: (true, "z".to_owned()), ..member(&["t"], &[]) }),
            ("2".to_owned(), Applicant { order: (true, "y".to_owned()), ..member(&["t"], &[]) }),
        ]);
        let targets = assign(Assignor::Range, &members, &topics(&[("t", 5)]));
        assert_eq!(shares(&targets)[1].1, ["t-0", "t-1", "t-2"]);
        assert_eq!(shares(&targets)[0].1, ["t-3", "t-4"]);
        members.clear();
        assert!(assign(Assignor::Range, &members, &topics(&[("t", 5)])).is_empty());
    }
}
