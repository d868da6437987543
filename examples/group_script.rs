//! Runs scripts of what members of groups do, and prints what they see.
//!
//!     cargo run --example group_script DIR SCRIPT
//!
//! `tests/kafka/groups.txt` has them, and says what their steps are. Each script gets a data directory of its own below
//! DIR. Of a consumer group, one JSON line at each stable point says which partitions each member has, and which it was
//! given and gave up since the point before. Of a share group there is a line for each step that shows something.
//! `tests/kafka/Groups.java` prints the same of Kafka's consumers, and `tests/kafka/groups.py` compares them.
//!
//! New partitions of a consumer group come as they do in fact, by another program: their directories are put there
//! while no process writes the store. So the store is written for that moment alone, and the consumers are attached.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edgelog::clients::{AckType, Consumer, ConsumerError, RebalanceListener, ShareConsumer, ShareRecord, ShareRecords};
use edgelog::{NewRecord, NewTopic, Offset, Store, TopicPartition};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: group_script DIR SCRIPT";
const AT_ONCE: usize = 3;
/// Nothing that a script waits for takes longer.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A member that crashes is not heard of any more, and is removed after so long.
const POLL_INTERVAL_MAX: &str = "5000";
/// So often consumers look for new partitions.
const METADATA_AGE_MAX: &str = "20";
/// A group is stable when so many rounds of polls in a row, each longer than a look for partitions, change nothing.
const QUIET_ROUNDS: u32 = 3;
const POLL: Duration = Duration::from_millis(25);
/// A share group that has nothing for a member within so long has nothing.
const NONE: Duration = Duration::from_millis(100);

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (dir, script) = (arguments.next().ok_or(USAGE)?, arguments.next().ok_or(USAGE)?);
    let text = std::fs::read_to_string(script)?;
    let mut scripts: Vec<Vec<&str>> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with("consumers ") || line.starts_with("shares ") {
            scripts.push(Vec::new());
        }
        scripts.last_mut().ok_or("a step of no script")?.push(line);
    }
    // They wait most of their time.
    let (dir, left) = (Path::new(&dir), Mutex::new(scripts.iter()));
    let next = || left.lock().expect("no holder panics").next();
    let some = || {
        while let Some(script) = next() {
            run(dir, script).map_err(|error| format!("{}: {error}", script[0]))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(some)).collect();
        let ended = threads.into_iter().map(|thread| thread.join().expect("no script panics"));
        ended.collect::<std::result::Result<(), String>>()
    })?;
    Ok(())
}

fn run(dir: &Path, script: &[&str]) -> Result<()> {
    let (first, steps) = script.split_first().ok_or("an empty script")?;
    let mut running = Running::begin(dir, first)?;
    for line in steps.iter().filter(|line| !line.starts_with("differs ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        running.step(words[0], &words[1..]).map_err(|error| format!("{line}: {error}"))?;
    }
    Ok(())
}

/// The script that runs.
enum Running {
    Consumers(Consumers),
    Shares(Shares),
}

impl Running {
    fn begin(dir: &Path, line: &str) -> Result<Running> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (kind, more) = words.split_first().ok_or("an empty line begins no group")?;
        match *kind {
            "consumers" => Ok(Running::Consumers(Consumers::begin(dir, more)?)),
            _ => Ok(Running::Shares(Shares::begin(dir, more)?)),
        }
    }

    fn step(&mut self, step: &str, words: &[&str]) -> Result<()> {
        match self {
            Running::Consumers(group) => group.step(step, words),
            Running::Shares(group) => group.step(step, words),
        }
    }
}

/// A name, and keys with their values.
fn name_and_keys(words: &[&str]) -> Result<(String, Vec<(String, String)>)> {
    let (&name, keys) = words.split_first().ok_or("a name is missing")?;
    let pair = |word: &&str| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    Ok((name.to_owned(), keys.iter().filter_map(pair).collect()))
}

/// What became of a member's partitions since the last stable point.
#[derive(Debug, Default)]
struct Events {
    assigned: Vec<String>,
    revoked: Vec<String>,
    lost: Vec<String>,
}

struct Listener(Arc<Mutex<Events>>);

impl Listener {
    fn note(&self, which: fn(&mut Events) -> &mut Vec<String>, partitions: &[TopicPartition]) {
        let mut events = self.0.lock().expect("no listener panics");
        which(&mut events).extend(partitions.iter().map(ToString::to_string));
    }
}

impl RebalanceListener for Listener {
    fn on_partitions_assigned(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) {
        self.note(|events| &mut events.assigned, partitions);
    }

    fn on_partitions_revoked(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) {
        self.note(|events| &mut events.revoked, partitions);
    }

    fn on_partitions_lost(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) {
        self.note(|events| &mut events.lost, partitions);
    }
}

struct Member {
    consumer: Consumer,
    topics: BTreeSet<String>,
    is_static: bool,
    events: Arc<Mutex<Events>>,
}

/// A consumer group and its members.
struct Consumers {
    name: String,
    keys: Vec<(String, String)>,
    dir: PathBuf,
    store: Option<Arc<Store>>,
    topics: BTreeMap<String, u32>,
    members: BTreeMap<String, Member>,
    /// Static members that have left: what they subscribe to, and what waits for them.
    away: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>,
    /// They do not poll any more.
    crashed: Vec<Consumer>,
    point: u32,
}

impl Consumers {
    fn begin(dir: &Path, words: &[&str]) -> Result<Consumers> {
        let (name, keys) = name_and_keys(words)?;
        let dir = dir.join(&name);
        Ok(Consumers {
            name,
            keys,
            dir,
            store: None,
            topics: BTreeMap::new(),
            members: BTreeMap::new(),
            away: BTreeMap::new(),
            crashed: Vec::new(),
            point: 0,
        })
    }

    fn step(&mut self, step: &str, words: &[&str]) -> Result<()> {
        match (step, words) {
            ("topic", [topic, partitions]) => self.create(topic, partitions.parse()?),
            ("partitions", [topic, partitions]) => self.grow(topic, partitions.parse()?),
            ("join", [member, topics, rest @ ..]) => self.join(member, topics, rest == ["static"]),
            ("leave", [member]) => self.leave(member),
            ("crash", [member]) => {
                self.crashed.push(self.members.remove(*member).ok_or("no such member")?.consumer);
                Ok(())
            }
            ("subscribe", [name, topics]) => {
                let member = self.members.get_mut(*name).ok_or("no such member")?;
                member.topics = topics.split(',').map(str::to_owned).collect();
                member.consumer.subscribe(&topics.split(',').collect::<Vec<_>>())?;
                Ok(())
            }
            ("stable", [_]) => self.stable(),
            _ => Err("no such step".into()),
        }
    }

    fn create(&mut self, topic: &str, partitions: u32) -> Result<()> {
        let store = Store::open(&self.dir)?;
        store.create_topic(&NewTopic::new(topic).partitions(partitions))?;
        store.close()?;
        self.topics.insert(topic.to_owned(), partitions);
        Ok(())
    }

    /// Puts directories of more partitions there, as one copies them from elsewhere.
    fn grow(&mut self, topic: &str, partitions: u32) -> Result<()> {
        for partition in self.topics[topic]..partitions {
            let dir = self.dir.join(format!("{topic}-{partition}"));
            std::fs::create_dir(&dir)?;
            std::fs::write(dir.join("00000000000000000000.log"), [])?;
        }
        Store::open(&self.dir)?.close()?;
        self.topics.insert(topic.to_owned(), partitions);
        Ok(())
    }

    fn join(&mut self, name: &str, topics: &str, is_static: bool) -> Result<()> {
        let store = match &self.store {
            Some(store) => store,
            None => self.store.insert(Arc::new(Store::attach(&self.dir)?)),
        };
        let mut options = Consumer::options()
            .set("group.id", &self.name)?
            .set("auto.offset.reset", "earliest")?
            .set("max.poll.interval.ms", POLL_INTERVAL_MAX)?
            .set("metadata.max.age.ms", METADATA_AGE_MAX)?;
        for (key, value) in &self.keys {
            options = options.set(key, value)?;
        }
        if is_static {
            options = options.set("group.instance.id", name)?;
        }
        let mut consumer = options.open(store)?;
        let events = Arc::default();
        consumer.subscribe_with(&topics.split(',').collect::<Vec<_>>(), Listener(Arc::clone(&events)))?;
        let topics = topics.split(',').map(str::to_owned).collect();
        self.members.insert(name.to_owned(), Member { consumer, topics, is_static, events });
        self.away.remove(name);
        Ok(())
    }

    fn leave(&mut self, name: &str) -> Result<()> {
        let member = self.members.remove(name).ok_or("no such member")?;
        if member.is_static {
            let kept = member.consumer.assignment().iter().map(ToString::to_string).collect();
            self.away.insert(name.to_owned(), (member.topics, kept));
        }
        member.consumer.close()?;
        Ok(())
    }

    /// Polls until every partition has its owner and polls change nothing any more.
    fn stable(&mut self) -> Result<()> {
        let deadline = Instant::now() + WAIT_MAX;
        let (mut before, mut quiet) = (None, 0);
        while quiet < QUIET_ROUNDS {
            for member in self.members.values_mut() {
                member.consumer.poll(POLL)?;
            }
            let now = self.owned();
            let is_whole = now.values().flatten().cloned().collect::<BTreeSet<_>>() == self.to_own();
            quiet = if is_whole && before.as_ref() == Some(&now) { quiet + 1 } else { 0 };
            if Instant::now() > deadline {
                return Err(format!("not stable after {WAIT_MAX:?}: {now:?}").into());
            }
            before = Some(now);
        }
        self.point += 1;
        println!("{}", self.line(&self.owned()));
        Ok(())
    }

    fn owned(&self) -> BTreeMap<String, Vec<String>> {
        let names = |consumer: &Consumer| consumer.assignment().iter().map(ToString::to_string).collect();
        self.members.iter().map(|(name, member)| (name.clone(), names(&member.consumer))).collect()
    }

    /// The partitions of all topics that members subscribe to, but for those that wait for a member.
    fn to_own(&self) -> BTreeSet<String> {
        let present = self.members.values().map(|member| &member.topics);
        let topics = present.chain(self.away.values().map(|(topics, _)| topics)).flatten();
        let partitions = topics.flat_map(|topic| (0..self.topics[topic]).map(move |n| format!("{topic}-{n}")));
        partitions.filter(|name| !self.away.values().any(|(_, kept)| kept.contains(name))).collect()
    }

    fn line(&self, owned: &BTreeMap<String, Vec<String>>) -> String {
        let mut line = format!("{{\"script\": {:?}, \"point\": {}", self.name, self.point);
        let mut put = |what: &str, of: &BTreeMap<String, Vec<String>>| {
            let _ = write!(line, ", {what:?}: {of:?}");
        };
        put("owned", owned);
        let taken = self.members.iter().map(|(name, member)| {
            let mut events = std::mem::take(&mut *member.events.lock().expect("no listener panics"));
            events.assigned.sort_unstable();
            events.revoked.sort_unstable();
            events.lost.sort_unstable();
            (name.clone(), events)
        });
        let taken: BTreeMap<String, Events> = taken.collect();
        let of = |which: fn(&Events) -> &Vec<String>| {
            taken.iter().map(|(name, events)| (name.clone(), which(events).clone())).collect()
        };
        put("assigned", &of(|events| &events.assigned));
        put("revoked", &of(|events| &events.revoked));
        put("lost", &of(|events| &events.lost));
        line + "}"
    }
}

/// A share group and its members.
struct Shares {
    name: String,
    keys: Vec<(String, String)>,
    store: Arc<Store>,
    topic: String,
    members: BTreeMap<String, ShareConsumer>,
    point: u32,
}

/// Offsets with their delivery counts.
type Delivered = Vec<(i64, u16)>;

impl Shares {
    fn begin(dir: &Path, words: &[&str]) -> Result<Shares> {
        let (name, keys) = name_and_keys(words)?;
        let store = Arc::new(Store::open(dir.join(&name))?);
        Ok(Shares { name, keys, store, topic: String::new(), members: BTreeMap::new(), point: 0 })
    }

    fn step(&mut self, step: &str, words: &[&str]) -> Result<()> {
        let seen = match (step, words) {
            ("topic", [topic, partitions]) => {
                self.store.create_topic(&NewTopic::new(*topic).partitions(partitions.parse()?))?;
                (*topic).clone_into(&mut self.topic);
                return Ok(());
            }
            ("produce", [records]) => {
                let log = self.store.log(&self.topic, 0)?;
                let mut batch = log.batch();
                for _ in 0..records.parse()? {
                    batch.push(NewRecord::value(b"a job"))?;
                }
                log.append_batch(&mut batch)?;
                return Ok(());
            }
            ("open", [member, mode, records]) => return self.open(member, mode, records),
            ("take", [member, count]) => take(self.member(member)?, count.parse()?)?,
            ("work", [member, answer, count]) => work(self.member(member)?, ack_type(answer)?, count.parse()?)?,
            ("none", [member, rest @ ..]) => {
                let wait = rest.first().map_or(Ok(NONE), |ms| ms.parse().map(Duration::from_millis))?;
                text(offsets(&self.member(member)?.poll(wait)?)?)
            }
            ("answer", [member, answer, offsets]) => self.answer(member, answer, offsets)?,
            ("commit", [member]) => outcome(&self.member(member)?.commit_sync())?,
            ("close", [member]) => outcome(&self.members.remove(*member).ok_or("no such member")?.close())?,
            // A consumer whose thread ends without a close.
            ("crash", [member]) => {
                self.members.remove(*member).ok_or("no such member")?;
                return Ok(());
            }
            _ => return Err("no such step".into()),
        };
        self.point += 1;
        let did = [&[step], words].concat().join(" ");
        let (name, point) = (&self.name, self.point);
        println!("{{\"script\": {name:?}, \"point\": {point}, \"step\": {did:?}, \"seen\": {seen}}}");
        Ok(())
    }

    fn member(&mut self, name: &str) -> Result<&mut ShareConsumer> {
        self.members.get_mut(name).ok_or_else(|| "no such member".into())
    }

    fn open(&mut self, member: &str, mode: &str, records: &str) -> Result<()> {
        let mut options = ShareConsumer::options()
            .set("group.id", &self.name)?
            .set("share.acknowledgement.mode", mode)?
            .set("max.poll.records", records)?;
        for (key, value) in &self.keys {
            options = options.set(key, value)?;
        }
        let mut consumer = options.open(&self.store)?;
        consumer.subscribe(&[&self.topic])?;
        self.members.insert(member.to_owned(), consumer);
        Ok(())
    }

    /// Says what became of records: their offsets, with commas, and from-to.
    fn answer(&mut self, member: &str, answer: &str, offsets: &str) -> Result<String> {
        let partition = TopicPartition::new(self.topic.as_str(), 0);
        let consumer = self.member(member)?;
        for range in offsets.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            for offset in first.parse()?..=last.parse()? {
                match consumer.acknowledge_offset(&partition, Offset(offset), ack_type(answer)?) {
                    Ok(()) => {}
                    Err(ConsumerError::InvalidRecordState { .. }) => return Ok("\"refused\"".to_owned()),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok("\"ok\"".to_owned())
    }
}

fn ack_type(word: &str) -> Result<AckType> {
    match word {
        "accept" => Ok(AckType::Accept),
        "release" => Ok(AckType::Release),
        "reject" => Ok(AckType::Reject),
        "renew" => Ok(AckType::Renew),
        _ => Err(format!("{word}: accept, release, reject or renew is allowed").into()),
    }
}

fn outcome(committed: &std::result::Result<(), ConsumerError>) -> Result<String> {
    match committed {
        Ok(()) => Ok("\"ok\"".to_owned()),
        Err(ConsumerError::InvalidRecordState { .. }) => Ok("\"InvalidRecordState\"".to_owned()),
        Err(error) => Err(error.to_string().into()),
    }
}

/// Polls until there are records.
fn take(consumer: &mut ShareConsumer, count: usize) -> Result<String> {
    let (deadline, mut seen) = (Instant::now() + WAIT_MAX, Vec::new());
    while seen.len() < count && Instant::now() < deadline {
        match consumer.poll(POLL) {
            Ok(records) => seen.extend(offsets(&records)?),
            Err(ConsumerError::Unacknowledged { .. }) if seen.is_empty() => return Ok("\"refused\"".to_owned()),
            // It has to answer first.
            Err(ConsumerError::Unacknowledged { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(text(seen))
}

/// Polls and gives each record the same answer, until it has had so many, and once more.
fn work(consumer: &mut ShareConsumer, answer: AckType, count: usize) -> Result<String> {
    let (deadline, mut seen) = (Instant::now() + WAIT_MAX, Vec::new());
    let mut is_last = false;
    while !is_last && Instant::now() < deadline {
        is_last = seen.len() >= count;
        let records = consumer.poll(if is_last { NONE } else { POLL })?;
        for record in records.iter() {
            consumer.acknowledge(&record?, answer)?;
        }
        consumer.commit_sync()?;
        seen.extend(offsets(&records)?);
    }
    Ok(text(seen))
}

fn offsets(records: &ShareRecords) -> Result<Delivered> {
    let of = |record: ShareRecord<'_>| (record.record().offset.0, record.delivery_count());
    Ok(records.iter().map(|record| record.map(of)).collect::<std::result::Result<_, _>>()?)
}

/// In order: what several polls return, they may return in another one.
fn text(mut seen: Delivered) -> String {
    seen.sort_unstable();
    let seen: Vec<_> = seen.into_iter().map(|(offset, count)| [offset, i64::from(count)]).collect();
    format!("{seen:?}")
}
