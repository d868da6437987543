//! Subscribing, and how a consumer's share of the group's partitions follows.

use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use super::config::ConsumerConfig;
use super::pattern::Pattern;
use super::subscription::Subscription;
use super::{Consumer, Listener, RebalanceListener};
use crate::clients::group::{ConsumerError, Membership, Partitions, Result, Subscribed};
use crate::log::TopicPartition;

#[derive(Debug, Clone, Copy)]
enum Change {
    Assigned,
    Revoked,
    Lost,
}

impl Consumer {
    /// Reads these topics, in turn with the other members of its group. A name that begins with `^` is a pattern, and
    /// has to be the only one: `^cpu\..*` is all topics whose whole names fit it. Topics that do not exist yet are
    /// looked for again, see `metadata.max.age.ms`. Kafka's own topics, which begin with `__`, fit no pattern.
    ///
    /// It replaces what was subscribed to before. The partitions come with the next poll.
    ///
    /// # Errors
    /// [`ConsumerError::NoGroup`]; [`ConsumerError::SubscriptionConflict`] while partitions are assigned;
    /// [`ConsumerError::InvalidPattern`]; [`ConsumerError::UnreleasedInstance`].
    pub fn subscribe(&mut self, topics: &[&str]) -> Result<()> {
        self.group_for("subscribe")?;
        if matches!(self.subscription, Subscription::Assigned) {
            return Err(ConsumerError::SubscriptionConflict);
        }
        if topics.is_empty() {
            self.unsubscribe();
            return Ok(());
        }
        self.subscription = match topics.iter().find(|topic| topic.starts_with('^')) {
            Some(pattern) if topics.len() > 1 => {
                let reason = "a pattern has to be all that is subscribed to; its parts can be separated by '|'";
                return Err(ConsumerError::InvalidPattern { pattern: (*pattern).to_owned(), reason });
            }
            Some(pattern) => Subscription::Pattern(Pattern::parse(pattern)?),
            None => Subscription::Topics(topics.iter().map(|&topic| topic.to_owned()).collect()),
        };
        self.looked = None;
        if self.membership.is_none() {
            let subscribed = self.subscribed()?;
            let group = self.group_for("subscribe")?.clone();
            let joined = Membership::join(&group, self.member_options(), subscribed, &self.waker);
            match joined {
                Ok(membership) => self.membership = Some(membership),
                Err(error) => {
                    self.subscription = Subscription::None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// As [`subscribe`](Consumer::subscribe), with a listener that is called when its partitions change.
    ///
    /// # Errors
    /// As [`subscribe`](Consumer::subscribe).
    pub fn subscribe_with(&mut self, topics: &[&str], listener: impl RebalanceListener + 'static) -> Result<()> {
        self.subscribe(topics)?;
        self.listener = Some(Listener(Box::new(listener)));
        Ok(())
    }

    /// Reads nothing from here on, and leaves its group. Commits nothing.
    pub fn unsubscribe(&mut self) {
        self.membership = None;
        self.assigned.clear();
        self.subscription = Subscription::None;
        self.next = 0;
    }

    /// The topics of the subscription that there are, with their partitions.
    fn subscribed(&self) -> Result<Subscribed> {
        let wanted = |name: &str| match &self.subscription {
            Subscription::Topics(topics) => topics.contains(name),
            Subscription::Pattern(pattern) => !name.starts_with("__") && pattern.matches(name),
            Subscription::None | Subscription::Assigned => false,
        };
        let topics = self.store.topics()?.into_iter().filter(|topic| wanted(&topic.name));
        let mut subscribed: Subscribed =
            topics.map(|topic| (topic.name, topic.partition_ids.into_iter().collect())).collect();
        if let Subscription::Topics(topics) = &self.subscription {
            for topic in topics {
                subscribed.entry(topic.clone()).or_default();
            }
        }
        Ok(subscribed)
    }

    /// So often it looks for topics, and says that it is there.
    pub(super) fn look_interval(&self) -> Duration {
        let ConsumerConfig { metadata_age_max, poll_interval_max, .. } = self.config;
        metadata_age_max.min(super::HEARTBEAT_INTERVAL).min(poll_interval_max / 3)
    }

    /// Looks at its group where that has changed, or where it is time to.
    pub(super) fn look_at_group(&mut self) -> Result<()> {
        if !self.subscription.is_to_topics() {
            return Ok(());
        }
        let is_due = self.looked.is_none_or(|looked| looked.elapsed() >= self.look_interval());
        let has_news = self.membership.as_ref().is_none_or(Membership::has_news);
        if !is_due && !has_news {
            return Ok(());
        }
        let subscribed = self.subscribed()?;
        // Giving up and taking, and what giving up has made free.
        for _ in 0..3 {
            if !self.reconcile(&subscribed)? {
                break;
            }
        }
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// One heartbeat, and what follows from it. Whether there may be more to do.
    fn reconcile(&mut self, subscribed: &Subscribed) -> Result<bool> {
        let owned: Partitions = self.assigned.iter().map(|assigned| (*assigned.name).clone()).collect();
        let Some(membership) = &mut self.membership else { return Err(ConsumerError::NotSubscribed) };
        let Some(assignment) = membership.heartbeat(subscribed, &owned) else {
            let lost: Vec<_> = owned.into_iter().collect();
            membership.join_again(subscribed.clone(), &self.waker)?;
            self.assigned.clear();
            self.next = 0;
            self.notify(Change::Lost, &lost);
            return Ok(true);
        };
        let revoked: Vec<_> = owned.difference(&assignment.partitions).cloned().collect();
        if !revoked.is_empty() {
            if self.config.auto_commit {
                if let Err(error) = self.commit_sync() {
                    tracing::warn!(%error, "the positions of partitions that are given up could not be committed");
                }
            }
            self.notify(Change::Revoked, &revoked);
            self.assigned.retain(|assigned| !revoked.contains(&assigned.name));
            self.next = 0;
            return Ok(true);
        }
        let opened = self.open_new(&assignment.partitions)?;
        if opened.is_empty() {
            return Ok(false);
        }
        let added: Vec<_> = opened.iter().map(|assigned| (*assigned.name).clone()).collect();
        self.assigned.extend(opened);
        self.notify(Change::Assigned, &added);
        Ok(true)
    }

    /// Calls the listener. It may use the consumer meanwhile, but not poll.
    fn notify(&mut self, change: Change, partitions: &[TopicPartition]) {
        if partitions.is_empty() {
            return;
        }
        let Some(Listener(mut listener)) = self.listener.take() else { return };
        self.is_notifying = true;
        // Where it panics, the consumer is as it was, and so is the listener.
        let called = panic::catch_unwind(AssertUnwindSafe(|| match change {
            Change::Assigned => listener.on_partitions_assigned(self, partitions),
            Change::Revoked => listener.on_partitions_revoked(self, partitions),
            Change::Lost => listener.on_partitions_lost(self, partitions),
        }));
        self.is_notifying = false;
        // Where it has subscribed with another one, that counts.
        self.listener.get_or_insert(Listener(listener));
        if let Err(panic) = called {
            panic::resume_unwind(panic);
        }
    }
}
