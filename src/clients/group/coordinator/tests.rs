//! The table of what a coordinator does, and random histories of it.

use super::*;

fn topics(counts: &[(&str, u32)]) -> Subscribed {
    counts.iter().map(|&(topic, count)| (topic.to_owned(), (0..count).collect())).collect()
}

/// A member as a consumer is one: what it has, and what it says.
#[derive(Debug, Default)]
struct Real {
    owned: Partitions,
    revoked: Vec<TopicPartition>,
}

#[derive(Debug)]
struct Group {
    coordinator: Coordinator,
    members: BTreeMap<String, Real>,
    subscribed: Subscribed,
}

impl Group {
    fn new(counts: &[(&str, u32)]) -> Group {
        Group { coordinator: Coordinator::new(), members: BTreeMap::new(), subscribed: topics(counts) }
    }

    fn join(&mut self, id: &str, instance: Option<&str>) -> Result<(), Refused> {
        self.coordinator.join(id, instance, Assignor::Uniform, self.subscribed.clone(), 1000)?;
        self.members.insert(id.to_owned(), Real::default());
        Ok(())
    }

    /// One heartbeat: gives up what it is to, and takes what it gets.
    fn beat(&mut self, id: &str) -> Result<Assignment, Refused> {
        let real = self.members.get_mut(id).unwrap();
        let answer = self.coordinator.heartbeat(id, &self.subscribed, &real.owned, 1000)?;
        real.revoked.extend(real.owned.difference(&answer.partitions).cloned());
        real.owned.clone_from(&answer.partitions);
        self.check();
        Ok(answer)
    }

    /// No partition has two owners at any time.
    fn check(&self) {
        let mut seen = Partitions::new();
        for (id, real) in &self.members {
            for partition in &real.owned {
                assert!(seen.insert(partition.clone()), "{partition} has two owners, {id} is one");
            }
        }
    }

    fn beat_until_stable(&mut self) {
        for _ in 0..10 {
            let ids: Vec<_> = self.members.keys().cloned().collect();
            for id in ids {
                self.beat(&id).unwrap();
            }
            if self.coordinator.is_stable() {
                return;
            }
        }
        panic!("it does not come to rest: {self:#?}");
    }

    fn counts(&self) -> Vec<usize> {
        self.members.values().map(|real| real.owned.len()).collect()
    }
}

#[test]
fn a_first_member_gets_all_and_its_epoch_is_two() {
    let mut group = Group::new(&[("t", 3)]);
    group.join("a", None).unwrap();
    let answer = group.beat("a").unwrap();
    assert_eq!((answer.epoch, answer.partitions.len()), (2, 3));
}

#[test]
fn a_joiner_gets_nothing_before_it_was_given_up_and_only_that_moves() {
    let mut group = Group::new(&[("t", 4)]);
    group.join("a", None).unwrap();
    group.beat_until_stable();
    group.join("b", None).unwrap();
    assert!(group.beat("b").unwrap().partitions.is_empty(), "the other member has all");
    assert_eq!(group.beat("a").unwrap().partitions.len(), 2, "it gets the smaller set");
    assert!(group.beat("b").unwrap().partitions.is_empty(), "it has not said that it gave them up");
    let answer = group.beat("a").unwrap();
    assert_eq!((answer.epoch, answer.partitions.len()), (3, 2));
    assert_eq!(group.beat("b").unwrap().partitions.len(), 2);
    assert_eq!((group.members["a"].revoked.len(), group.members["b"].revoked.len()), (2, 0));
}

#[test]
fn no_partition_that_stays_is_interrupted_with_eight_members_and_64_partitions() {
    let mut group = Group::new(&[("t", 32), ("u", 32)]);
    for n in 0..8 {
        group.join(&format!("m{n}"), None).unwrap();
        group.beat_until_stable();
    }
    assert_eq!(group.counts(), [8; 8]);
    let lost: usize = group.members.values().map(|real| real.revoked.len()).sum();
    // What each joiner ends up with is the least that has to move to it: 32, 21, 16, 12, 10, 9 and 8.
    assert_eq!(lost, 32 + 21 + 16 + 12 + 10 + 9 + 8);
    group.coordinator.leave("m3", 0);
    group.members.remove("m3");
    group.beat_until_stable();
    let after: usize = group.members.values().map(|real| real.revoked.len()).sum();
    assert!(after <= lost, "a leave takes nothing from those who stay");
}

#[test]
fn a_member_that_is_not_heard_of_loses_its_partitions_and_gets_an_error() {
    let mut group = Group::new(&[("t", 2)]);
    group.join("a", None).unwrap();
    group.join("b", None).unwrap();
    group.beat_until_stable();
    group.coordinator.heartbeat("b", &group.subscribed.clone(), &group.members["b"].owned.clone(), 5000).unwrap();
    assert!(!group.coordinator.expire(1000));
    assert!(group.coordinator.expire(1001), "a was heard of until 1000");
    assert_eq!(group.beat("a"), Err(Refused::UnknownMember));
    group.members.remove("a");
    group.beat_until_stable();
    assert_eq!(group.counts(), [2]);
}

#[test]
fn a_static_member_comes_back_to_its_partitions_without_a_new_epoch() {
    let mut group = Group::new(&[("t", 4)]);
    group.join("a", Some("one")).unwrap();
    group.join("b", Some("two")).unwrap();
    group.beat_until_stable();
    let (before, epoch) = (group.members["a"].owned.clone(), group.coordinator.epoch);
    assert_eq!(group.join("c", Some("one")), Err(Refused::UnreleasedInstance));
    group.coordinator.leave("a", 0);
    group.members.remove("a");
    assert!(!group.coordinator.has("a"));
    group.beat("b").unwrap();
    group.join("c", Some("one")).unwrap();
    assert_eq!(group.beat("c").unwrap().partitions, before);
    assert_eq!(group.coordinator.epoch, epoch);
    // One that does not come back is forgotten.
    group.coordinator.leave("c", 0);
    group.members.remove("c");
    group.coordinator.heartbeat("b", &group.subscribed.clone(), &group.members["b"].owned.clone(), 90_000).unwrap();
    assert!(!group.coordinator.expire(STATIC_LEAVE_MS) && group.coordinator.expire(STATIC_LEAVE_MS + 1));
    group.beat_until_stable();
    assert_eq!(group.counts(), [4]);
}

/// As Kafka has it: ids are random, and one that is less than an instance's name moves none of its partitions.
#[test]
fn range_gives_static_members_the_first_partitions() {
    let mut coordinator = Coordinator::new();
    for (id, instance) in [("0", None), ("2", Some("x")), ("1", Some("y"))] {
        coordinator.join(id, instance, Assignor::Range, topics(&[("t", 5)]), 1000).unwrap();
    }
    let target = |id: &str| coordinator.members[id].target.iter().map(|p| p.partition).collect::<Vec<_>>();
    assert_eq!([target("2"), target("1"), target("0")], [vec![0, 1], vec![2, 3], vec![4]]);
}

#[test]
fn new_partitions_and_topics_are_shared_and_deleted_ones_given_up() {
    let mut group = Group::new(&[("t", 2)]);
    group.join("a", None).unwrap();
    group.join("b", None).unwrap();
    group.beat_until_stable();
    group.subscribed = topics(&[("t", 4), ("u", 2)]);
    group.beat_until_stable();
    assert_eq!(group.counts(), [3, 3]);
    assert!(group.members.values().all(|real| real.revoked.len() <= 1), "{group:#?}");
    group.subscribed = topics(&[("u", 2)]);
    group.beat_until_stable();
    assert_eq!(group.counts(), [1, 1]);
}

#[test]
fn random_histories_never_give_a_partition_to_two_members_and_come_to_rest() {
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..300 {
        let mut group = Group::new(&[("t", 5)]);
        let mut next = 0;
        for _ in 0..60 {
            let ids: Vec<_> = group.members.keys().cloned().collect();
            match random(10) {
                0 | 1 if ids.len() < 6 => {
                    next += 1;
                    group.join(&format!("m{next:02}"), None).unwrap();
                }
                2 if !ids.is_empty() => {
                    let id = &ids[random(ids.len() as u64) as usize];
                    group.coordinator.leave(id, 0);
                    group.members.remove(id);
                }
                3 => group.subscribed = topics(&[("t", 1 + random(6) as u32), ("u", 1 + random(3) as u32)]),
                _ if !ids.is_empty() => {
                    let _ = group.beat(&ids[random(ids.len() as u64) as usize]);
                }
                _ => {}
            }
        }
        group.beat_until_stable();
        let all: usize = group.counts().iter().sum();
        let expected: usize = group.subscribed.values().map(BTreeSet::len).sum();
        assert_eq!(all, if group.members.is_empty() { 0 } else { expected });
    }
}
