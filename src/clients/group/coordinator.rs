//! Who has which partition of a group, as KIP-848 has it: a state machine without files, threads or clocks.
//!
//! # Rules
//!
//! 1. A partition has one owner at a time: a member is given it only when no other member has it, or has yet to give it
//!    up.
//! 2. A member that has more than it is to have gets the smaller set first. Only when it has said that it gave the
//!    others up is it given new ones. What it keeps it goes on with meanwhile.
//! 3. Every change of members, subscriptions or partitions raises the group's epoch. A member has reached it when it
//!    has all that it is to have.
//! 4. A member that is not heard of in time is removed, and its partitions are free. It learns that with its next
//!    heartbeat, and joins again.
//! 5. A static member that leaves keeps its partitions until it comes back under its instance's name, or its time is
//!    over.

use std::collections::{BTreeMap, BTreeSet};

use super::assignor::{Applicant, Assignor, assign};
use crate::log::TopicPartition;

/// How long a static member's partitions wait for it, in milliseconds: Kafka's `group.consumer.session.timeout.ms`.
const STATIC_LEAVE_MS: u64 = 45_000;

pub(crate) type Partitions = BTreeSet<TopicPartition>;
/// The topics that a member subscribes to, with the numbers of their partitions as it sees them.
pub(crate) type Subscribed = BTreeMap<String, BTreeSet<u32>>;

#[derive(Debug)]
pub(super) struct Coordinator {
    /// Counts changes: Kafka's group epoch.
    epoch: u32,
    members: BTreeMap<String, Member>,
    /// Who has a partition, or has yet to give it up.
    owners: BTreeMap<TopicPartition, String>,
    /// Counts what other members may want to look at.
    news: u64,
}

#[derive(Debug)]
struct Member {
    instance: Option<String>,
    assignor: Assignor,
    subscribed: Subscribed,
    epoch: u32,
    /// What it is to have in the end.
    target: Partitions,
    /// What it has by the last answer.
    assigned: Partitions,
    /// What it is to give up, and has not yet.
    revoking: Partitions,
    /// It is removed unless it is heard of until then.
    deadline_ms: u64,
    has_left: bool,
}

/// The answer to a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) epoch: u32,
    pub(crate) partitions: Partitions,
}

/// Why a member is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It was removed, or never joined: Kafka's `UNKNOWN_MEMBER_ID`.
    UnknownMember,
    /// Its instance's name is in use: Kafka's `UNRELEASED_INSTANCE_ID`.
    UnreleasedInstance,
}

impl Coordinator {
    pub(super) fn new() -> Coordinator {
        Coordinator { epoch: 1, members: BTreeMap::new(), owners: BTreeMap::new(), news: 0 }
    }

    pub(super) fn news(&self) -> u64 {
        self.news
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.members.get(id).is_some_and(|member| !member.has_left)
    }

    /// A member joins. One that comes back under its instance's name has what it had.
    pub(super) fn join(
        &mut self,
        id: &str,
        instance: Option<&str>,
        assignor: Assignor,
        subscribed: Subscribed,
        deadline_ms: u64,
    ) -> Result<(), Refused> {
        let same = |(_, member): &(&String, &Member)| instance.is_some() && member.instance.as_deref() == instance;
        let before = self.members.iter().find(same).map(|(id, member)| (id.clone(), member.has_left));
        let mut member = Member {
            instance: instance.map(str::to_owned),
            assignor,
            subscribed,
            epoch: 0,
            target: Partitions::new(),
            assigned: Partitions::new(),
            revoking: Partitions::new(),
            deadline_ms,
            has_left: false,
        };
        match before {
            Some((_, false)) => return Err(Refused::UnreleasedInstance),
            Some((old, true)) => {
                let left = self.members.remove(&old).expect("just found");
                let same_topics = left.subscribed == member.subscribed;
                (member.epoch, member.target, member.assigned) = (left.epoch, left.target, left.assigned);
                for owner in self.owners.values_mut().filter(|owner| **owner == old) {
                    id.clone_into(owner);
                }
                self.members.insert(id.to_owned(), member);
                if !same_topics {
                    self.change();
                }
            }
            None => {
                self.members.insert(id.to_owned(), member);
                self.change();
            }
        }
        Ok(())
    }

    /// A member says that it is there, what it subscribes to and which partitions it has. The answer says which it has
    /// now.
    pub(super) fn heartbeat(
        &mut self,
        id: &str,
        subscribed: &Subscribed,
        owned: &Partitions,
        deadline_ms: u64,
    ) -> Result<Assignment, Refused> {
        let member = self.members.get_mut(id).filter(|member| !member.has_left).ok_or(Refused::UnknownMember)?;
        member.deadline_ms = deadline_ms;
        if member.subscribed != *subscribed {
            member.subscribed.clone_from(subscribed);
            self.change();
        }
        let member = self.members.get_mut(id).expect("it is there");
        let given_up: Vec<_> = member.revoking.difference(owned).cloned().collect();
        for partition in given_up {
            member.revoking.remove(&partition);
            self.owners.remove(&partition);
            self.news += 1;
        }
        if member.revoking.is_empty() {
            let surplus: Partitions = member.assigned.difference(&member.target).cloned().collect();
            if surplus.is_empty() {
                for partition in &member.target {
                    let owner = self.owners.entry(partition.clone()).or_insert_with(|| id.to_owned());
                    if owner == id {
                        member.assigned.insert(partition.clone());
                    }
                }
            } else {
                member.assigned.retain(|partition| !surplus.contains(partition));
                // What it never took up is free at once.
                for partition in surplus.iter().filter(|partition| !owned.contains(partition)) {
                    self.owners.remove(partition);
                    self.news += 1;
                }
                member.revoking = surplus.intersection(owned).cloned().collect();
            }
            if member.assigned == member.target && member.revoking.is_empty() {
                member.epoch = self.epoch;
            }
        }
        Ok(Assignment { epoch: member.epoch, partitions: member.assigned.clone() })
    }

    /// A member leaves. A static one keeps its partitions for a while.
    pub(super) fn leave(&mut self, id: &str, now_ms: u64) {
        match self.members.get_mut(id) {
            Some(member) if member.instance.is_some() => {
                member.has_left = true;
                member.deadline_ms = now_ms + STATIC_LEAVE_MS;
                member.revoking.clear();
                let kept = member.assigned.clone();
                self.owners.retain(|partition, owner| owner != id || kept.contains(partition));
            }
            Some(_) => self.remove(id),
            None => {}
        }
    }

    /// Removes the members whose time is over. Whether there were any.
    pub(super) fn expire(&mut self, now_ms: u64) -> bool {
        let over: Vec<_> =
            self.members.iter().filter(|(_, member)| now_ms > member.deadline_ms).map(|(id, _)| id.clone()).collect();
        for id in &over {
            self.remove(id);
        }
        !over.is_empty()
    }

    fn remove(&mut self, id: &str) {
        self.members.remove(id);
        self.owners.retain(|_, owner| owner != id);
        self.change();
    }

    /// Members, subscriptions or partitions have changed: who is to have what is decided again.
    fn change(&mut self) {
        self.epoch += 1;
        self.news += 1;
        let mut topics = Subscribed::new();
        for member in self.members.values() {
            for (topic, numbers) in &member.subscribed {
                // Members look at different times: a partition that one sees is there.
                topics.entry(topic.clone()).or_default().extend(numbers);
            }
        }
        let applicant = |(id, member): (&String, &Member)| {
            let order = (member.instance.is_none(), member.instance.clone().unwrap_or_else(|| id.clone()));
            let topics = member.subscribed.keys().cloned().collect();
            (id.clone(), Applicant { order, topics, before: member.target.clone() })
        };
        let applicants = self.members.iter().map(applicant).collect();
        let assignor = self.members.values().next().map_or(Assignor::Uniform, |member| member.assignor);
        for (id, target) in assign(assignor, &applicants, &topics) {
            self.members.get_mut(&id).expect("a member").target = target;
        }
    }

    /// Whether every member has all that it is to have.
    #[cfg(test)]
    pub(super) fn is_stable(&self) -> bool {
        self.members.values().all(|member| member.assigned == member.target && member.revoking.is_empty())
    }
}

#[cfg(test)]
mod tests;
