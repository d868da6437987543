//! A consumer's membership of a group.

use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;

use super::assignor::Assignor;
use super::coordinator::{Assignment, Partitions, Refused, Subscribed};
use super::error::{ConsumerError, Result};
use super::host::{Group, OffsetAndMetadata};
use super::members::State;
use super::waker::Waker;
use crate::log::Log;
use crate::store::random_id;

/// How a consumer is a member.
#[derive(Debug, Clone)]
pub(crate) struct MemberOptions {
    pub(crate) instance: Option<String>,
    pub(crate) assignor: Assignor,
    pub(crate) poll_interval_max: Duration,
}

/// A consumer's membership of a group. Dropping it leaves the group.
#[derive(Debug)]
pub(crate) struct Membership {
    group: Group,
    id: String,
    options: MemberOptions,
    seen: u64,
}

impl Membership {
    /// Joins the group, with the topics that the consumer subscribes to.
    pub(crate) fn join(
        group: &Group,
        options: MemberOptions,
        subscribed: Subscribed,
        waker: &Waker,
    ) -> Result<Membership> {
        let id = format!("{:x}", random_id());
        let membership = Membership { group: group.clone(), id, options, seen: u64::MAX };
        membership.join_again(subscribed, waker)?;
        Ok(membership)
    }

    /// Joins, or joins again after the membership was lost.
    pub(crate) fn join_again(&self, subscribed: Subscribed, waker: &Waker) -> Result<()> {
        let members = &self.group.shared.members;
        let deadline = self.deadline();
        let joined = members.change(&self.id, |state| {
            let MemberOptions { instance, assignor, .. } = &self.options;
            state.coordinator.join(&self.id, instance.as_deref(), *assignor, subscribed, deadline)?;
            state.wakers.retain(|(id, _)| *id != self.id);
            state.wakers.push((self.id.clone(), waker.clone()));
            Ok(())
        });
        joined.map_err(|refused| self.explain(refused))
    }

    fn deadline(&self) -> u64 {
        let interval = u64::try_from(self.options.poll_interval_max.as_millis()).unwrap_or(u64::MAX);
        self.group.shared.members.now_ms().saturating_add(interval)
    }

    fn explain(&self, refused: Refused) -> ConsumerError {
        match refused {
            Refused::UnknownMember => ConsumerError::FencedMember { interval: self.options.poll_interval_max },
            Refused::UnreleasedInstance => {
                ConsumerError::UnreleasedInstance { instance: self.options.instance.clone().unwrap_or_default() }
            }
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether the group has changed since the last heartbeat.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.group.shared.members.news.load(Ordering::Acquire) != self.seen
    }

    /// Says what the consumer subscribes to and has, and learns what it has now. `None` where it is no member any more.
    pub(crate) fn heartbeat(&mut self, subscribed: &Subscribed, owned: &Partitions) -> Option<Assignment> {
        let members = &self.group.shared.members;
        let (deadline, now) = (self.deadline(), members.now_ms());
        let seen = members.news.load(Ordering::Acquire);
        let answer = members.change(&self.id, |state| {
            // It is heard of before the others' time is looked at.
            let answer = state.coordinator.heartbeat(&self.id, subscribed, owned, deadline);
            if state.coordinator.expire(now) {
                state.wakers.retain(|(id, _)| state.coordinator.has(id));
            }
            answer
        });
        self.seen = seen;
        answer.ok()
    }

    /// Commits for this member, unless it is none any more.
    pub(crate) fn commit(&self, offsets: &[(&Log, OffsetAndMetadata)]) -> Result<()> {
        self.group.commit_if(offsets, || {
            let state = self.group.shared.members.state.lock();
            if state.coordinator.has(&self.id) { Ok(state) } else { Err(self.explain(Refused::UnknownMember)) }
        })
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let members = &self.group.shared.members;
        let now = members.now_ms();
        members.change(&self.id, |state| {
            state.coordinator.leave(&self.id, now);
            state.wakers.retain(|(id, _)| *id != self.id);
        });
    }
}

impl Group {
    /// Commits for a consumer that has chosen its partitions itself, unless the group has members.
    pub(crate) fn commit_alone(&self, offsets: &[(&Log, OffsetAndMetadata)]) -> Result<()> {
        self.commit_if(offsets, || -> Result<MutexGuard<'_, State>> {
            let state = self.shared.members.state.lock();
            if state.coordinator.is_empty() {
                return Ok(state);
            }
            Err(ConsumerError::GroupHasMembers { name: self.name().to_owned() })
        })
    }
}
