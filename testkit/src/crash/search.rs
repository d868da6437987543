//! The searches: every cut once, every cut during the recovery from a cut, random schedules, every fault at every call.

use edgelog::edgelog_core::TimestampMs;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use edgelog::Store;

use super::disk::{Core, Fault, Image, LookedAt, Quirks, Rng, SimDisk};
use super::oracle::{Clean, Model, TIME_BASE, check_attached};
use super::workload::{Op, TOPICS, World, options};
use crate::processors::on_every_processor;

/// What a search went through, and what it found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many of what.
    pub counts: BTreeMap<&'static str, usize>,
    /// What was violated: how often, and where first.
    pub violations: BTreeMap<String, (usize, usize, String)>,
}

impl Outcome {
    pub fn count(&mut self, what: &'static str, more: usize) {
        *self.counts.entry(what).or_default() += more;
    }

    pub fn add(&mut self, at: usize, what: &str, place: impl FnOnce() -> String) {
        let entry = self.violations.entry(class_of(what)).or_insert_with(|| (0, at, format!("{what}\n{}", place())));
        entry.0 += 1;
    }

    fn merge(&mut self, other: Outcome) {
        for (what, count) in other.counts {
            self.count(what, count);
        }
        for (class, (count, at, place)) in other.violations {
            let entry = self.violations.entry(class).or_insert((0, usize::MAX, String::new()));
            entry.0 += count;
            if at < entry.1 {
                (entry.1, entry.2) = (at, place);
            }
        }
    }

    pub fn print(&self, name: &str, begun: Instant) {
        let counts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let (counts, kinds, seconds) = (counts.join(", "), self.violations.len(), begun.elapsed().as_secs());
        println!("{name}: {counts}; {kinds} kinds of violation; {seconds} s");
    }

    pub fn assert_none(&self) {
        let mut text = String::new();
        for (what, (count, _, place)) in &self.violations {
            let _ = writeln!(text, "{count} times {what}\n  first: {place}\n");
        }
        assert!(self.violations.is_empty(), "{text}");
    }
}

/// Shares pieces of work, by number, among the machine's processors.
pub fn shared(count: usize, step: usize, work: impl Fn(usize, &mut Outcome) + Sync) -> Outcome {
    let next = AtomicUsize::new(0);
    #[cfg(edgelog_canary)]
    let bug = edgelog::canary::switched_on();
    let outcomes = on_every_processor(|_, _| {
        #[cfg(edgelog_canary)]
        edgelog::canary::switch_on(bug);
        let mut outcome = Outcome::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed) * step;
            if at >= count {
                return outcome;
            }
            work(at, &mut outcome);
        }
    });
    let mut all = Outcome::default();
    for outcome in outcomes {
        all.merge(outcome);
    }
    all
}

/// The message without its numbers: violations of one kind have the same.
fn class_of(what: &str) -> String {
    let line = what.lines().next().unwrap_or_default().replace(TOPICS[0], "a").replace(TOPICS[1], "b");
    line.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(150).collect::<String>().replace("##", "#")
}

/// Runs `work`; a panic is a violation too.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

/// How much is tried on each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Open and check.
    Open,
    /// And lose power again at once: what was served is durable.
    Again,
    /// And append, close and open once more.
    Full,
}

/// Opens the store on what a cut has `left`, and holds it to `model`. Returns how many opens that took.
pub fn verify(left: Core, model: &Model, seq: u32, depth: Depth) -> Result<usize, String> {
    let mut world = World::on(SimDisk::from_core(left));
    world.model = model.clone();
    world.seq = seq;
    world.clock.set(TimestampMs(TIME_BASE + i64::from(seq)));
    world.open()?;
    if depth == Depth::Open {
        world.disk.kill();
        return Ok(1);
    }
    let again = world.disk.snapshot().image(Image::AllLost);
    let (after, clean) = (world.model.clone(), world.model.clean);
    let mut second = World::on(SimDisk::from_core(again));
    second.model = after;
    if clean == Clean::Must {
        second.model.clean = Clean::May;
    }
    second.seq = seq;
    second.open().map_err(|e| format!("cut again right after opening: {e}"))?;
    second.disk.kill();
    if depth == Depth::Again {
        world.disk.kill();
        return Ok(2);
    }
    world.append_everywhere().map_err(|e| format!("appending at once: {e}"))?;
    world.apply(&Op::Tick { advance: 30 }).map_err(|e| format!("housekeeping at once: {e}"))?;
    world.apply(&Op::Reopen).map_err(|e| format!("closing and opening again: {e}"))?;
    world.disk.kill();
    Ok(3)
}

/// A run that was watched: where it can be cut, and what holds there.
pub struct Recorded {
    pub cuts: Vec<(Core, Arc<Model>)>,
    pub seq: u32,
}

/// Runs `ops` once, with a snapshot at every effect.
pub fn record(ops: &[Op], quirks: Quirks) -> Result<Recorded, String> {
    let mut world = World::new(quirks);
    world.record();
    world.open()?;
    for (n, op) in ops.iter().enumerate() {
        guarded(|| world.apply(op)).map_err(|e| format!("operation {n}, {op:?}: {e}"))?;
    }
    world.apply(&Op::Reopen)?;
    Ok(watched(&mut world))
}

fn watched(world: &mut World) -> Recorded {
    let trail = world.trail.take().expect("a recorded run");
    let cuts = world.disk.take_cuts();
    let cuts = cuts.into_iter().map(|core| (core.clone(), Arc::clone(&trail[core.mark]))).collect();
    world.disk.kill();
    Recorded { cuts, seq: world.seq }
}

/// Who is attached when the power goes: what they see was appended, and what they see as durable is.
fn attached_at(core: &Core, model: &Model) -> Result<Model, String> {
    let disk = SimDisk::from_core(core.image(Image::Kill));
    let clock = edgelog::clock::ManualClock::new(TimestampMs(TIME_BASE));
    let attached: Store = options(&clock).attach_on(disk).map_err(|e| format!("attaching: {e}"))?;
    let durable = check_attached(&attached, model)?;
    let mut model = model.clone();
    // What is about to be removed by choice is durable no more.
    if !matches!(model.what, "truncate" | "delete topic") {
        for ((topic, partition), end) in durable {
            let log = model.log_mut(&topic, partition);
            log.durable = log.durable.max(end);
        }
    }
    Ok(model)
}

/// Every effect of the run is cut, with the chosen images and `randoms` random ones each.
pub fn single_cuts(run: &Recorded, randoms: u64) -> Outcome {
    shared(run.cuts.len(), 1, |n, outcome| cut_once(run, n, randoms, outcome))
}

fn cut_once(run: &Recorded, n: usize, randoms: u64, outcome: &mut Outcome) {
    let (core, model) = &run.cuts[n];
    outcome.count("cuts", 1);
    outcome.count("attached readers", 1);
    let model = match guarded(|| attached_at(core, model)) {
        Ok(model) => model,
        Err(what) => {
            return outcome.add(n, &what, || format!("at effect {n}, {}\n{}", model.what, core.listing()));
        }
    };
    let random = (0..randoms).map(|r| Image::Random(n as u64 * 1000 + r));
    let images = Image::CHOSEN.into_iter().chain([Image::Kill]).chain(random);
    for (i, image) in images.enumerate() {
        outcome.count("images", 1);
        let depth = [Depth::Full, Depth::Open, Depth::Again][(n + i) % 3];
        match guarded(|| verify(core.image(image), &model, run.seq, depth)) {
            Ok(opens) => outcome.count("opens", opens),
            Err(what) => outcome.add(n, &what, || {
                format!("cut {n} during {}, {image:?}, {depth:?}\n{}", model.what, core.image(image).listing())
            }),
        }
    }
}

/// Every cut of the run, in so many images each, and then every cut during the recovery from it and the first
/// operations after.
pub fn double_cuts(run: &Recorded, step: usize, firsts: usize, images: u64) -> Outcome {
    shared(run.cuts.len() * firsts, step, |at, outcome| {
        let (n, turn) = (at / firsts, at % firsts);
        cut_twice(run, n, n / step + turn, images, outcome);
    })
}

fn cut_twice(run: &Recorded, n: usize, turn: usize, images: u64, outcome: &mut Outcome) {
    const FIRST: [Image; 6] =
        [Image::AllLost, Image::AllKept, Image::Kill, Image::Random(1), Image::Random(2), Image::Alternate];
    let (core, model) = &run.cuts[n];
    let first = match FIRST[turn % FIRST.len()] {
        Image::Random(seed) => Image::Random(seed + (n + turn) as u64 * 2),
        other => other,
    };
    outcome.count("first cuts", 1);
    let mut world = World::on(SimDisk::from_core(core.image(first)));
    world.model = Model::clone(model);
    world.seq = run.seq;
    world.clock.set(TimestampMs(TIME_BASE + i64::from(run.seq)));
    cut_again(world, n + turn, images, outcome, &|| format!("cut {n} during {}, {first:?}", model.what));
}

/// Opens the store, appends, does what is due, appends again; and all of that is cut at every effect.
fn cut_again(mut world: World, n: usize, images: u64, outcome: &mut Outcome, at: &dyn Fn() -> String) {
    world.record();
    let recovered = guarded(|| {
        world.open()?;
        world.append_everywhere()?;
        world.apply(&Op::Tick { advance: 2000 })?;
        world.append_everywhere()
    });
    if let Err(what) = recovered {
        return outcome.add(n, &what, || format!("{}, no second cut", at()));
    }
    let second_run = watched(&mut world);
    let mut looked_at = LookedAt::nothing();
    for (m, (core, model)) in second_run.cuts.iter().enumerate() {
        outcome.count("second cuts", 1);
        for i in 0..images {
            let number = n as u64 + m as u64 * images + i;
            let image = match number % 4 {
                0 => Image::AllLost,
                1 => Image::CHOSEN[(number / 4) as usize % Image::CHOSEN.len()],
                _ => Image::Random(number * 7919),
            };
            outcome.count("images", 1);
            let left = core.image(image);
            if !looked_at.is_new(model, &left) {
                outcome.count("looked at before", 1);
                continue;
            }
            match guarded(|| verify(left, model, second_run.seq, Depth::Open)) {
                Ok(opens) => outcome.count("opens", opens),
                Err(what) => outcome.add(n, &what, || {
                    let text = core.image(image).listing();
                    format!("{}, then cut {m} during {}, {image:?}\n{text}", at(), model.what)
                }),
            }
        }
    }
}

/// A schedule of operations, kills, cuts and failing flushes, all from one seed.
pub fn schedule(seed: u64) -> Vec<Op> {
    let mut rng = Rng::new(seed);
    let mut ops = vec![Op::Create { topic: rng.below(3) }, Op::Create { topic: rng.below(3) }];
    let count = 8 + rng.below(40);
    while ops.len() < count {
        match rng.below(100) {
            0..10 => {
                let image = if rng.chance(60) { Image::Random(rng.next() >> 20) } else { Image::CHOSEN[rng.below(10)] };
                ops.push(Op::Cut { after: rng.below(30) as u16, image });
            }
            10..13 => ops.push(Op::Kill),
            13..15 => ops.push(Op::Fail { after: rng.below(4) as u8, fault: Fault::Flush, goes_on: false }),
            _ => ops.push(super::workload::random_op(&mut rng)),
        }
    }
    ops.push(Op::Cut { after: rng.below(20) as u16, image: Image::Random(seed) });
    ops
}

/// What a schedule came to.
#[derive(Debug)]
pub struct Ran {
    pub opens: usize,
    /// The cuts, by the numbers of their operations, that came as early as they say. With a later one instead of
    /// any other, the schedule is the same.
    pub reached: Vec<usize>,
}

/// Runs a schedule; `Err` says which operation found what.
pub fn run_schedule(ops: &[Op], quirks: Quirks) -> Result<Ran, String> {
    let mut world = World::new(quirks);
    let (mut opens, mut reached) = (1, Vec::new());
    world.open()?;
    let mut pending: Option<Image> = None;
    let mut pending_at = 0;
    // Whether a process that met an error is trusted any further.
    let mut patient = false;
    for (n, op) in ops.iter().enumerate() {
        let at = |e: String| format!("{e}\n  at operation {n}, {op:?}");
        // A cut that was not reached happens before the next.
        let crash_now = match op {
            Op::Cut { .. } => pending.take(),
            Op::Kill => Some(pending.take().unwrap_or(Image::Kill)),
            _ => None,
        };
        if let Some(image) = crash_now {
            opens += crash(&mut world, image, None).map_err(at)?;
        }
        match *op {
            Op::Cut { after, image } => {
                world.disk.cut_after(u64::from(after) + 1);
                pending = Some(image);
                pending_at = n;
            }
            Op::Fail { after, fault, goes_on } => {
                world.disk.fail_in(u64::from(after), fault);
                world.tolerant = true;
                patient = goes_on;
            }
            _ => guarded(|| world.apply(op)).map_err(at)?,
        }
        if world.disk.is_dead() {
            let image = pending.take().unwrap_or(Image::AllLost);
            reached.push(pending_at);
            // Now and then the power goes again while the store recovers.
            let again = (n % 3 == 0).then_some((n as u64 % 17, image));
            opens += crash(&mut world, image, again).map_err(at)?;
        } else if world.store.is_none() || (world.tolerant && !patient && world.disk.fault_hit()) {
            // A flush failed: this process is not trusted any more. Now and then the power goes while the next one
            // recovers.
            let again = (n % 2 == 0).then_some((n as u64 * 5 % 19, pending.unwrap_or(Image::Random(n as u64))));
            opens += crash(&mut world, Image::Kill, again).map_err(at)?;
        }
    }
    let image = pending.unwrap_or(Image::AllLost);
    opens += crash(&mut world, image, None).map_err(|e| format!("{e}\n  at the end"))?;
    world.append_everywhere()?;
    world.apply(&Op::Reopen)?;
    world.disk.kill();
    Ok(Ran { opens, reached })
}

fn crash(world: &mut World, image: Image, again: Option<(u64, Image)>) -> Result<usize, String> {
    let mut opens = 0;
    let mut again = again;
    let mut core = world.disk.snapshot();
    // What an error left in the log has to be found.
    if world.store.is_some() && !world.disk.fault_hit() {
        world.model = attached_at(&core, &world.model)?;
    }
    core = core.image(image);
    if let Image::Random(seed) = image {
        if seed % 5 == 0 {
            // A device without a clock is back in 1970.
            world.time_base = 0;
        }
    }
    loop {
        world.restart(core);
        world.tolerant = false;
        if let Some((after, _)) = again {
            world.disk.cut_after(after + 1);
        }
        guarded(|| world.open())?;
        opens += 1;
        match again.take() {
            Some((_, image)) if world.disk.is_dead() || world.store.is_none() => {
                core = world.disk.snapshot().image(image);
            }
            Some((_, image)) => {
                // Not reached: it happens here.
                core = world.disk.snapshot().image(image);
            }
            None => return Ok(opens),
        }
    }
}

/// Takes operations away for as long as the schedule still fails, and says what is left.
pub fn shrink(ops: &[Op], quirks: Quirks) -> (Vec<Op>, String) {
    let mut ops = ops.to_vec();
    let mut failure = guarded(|| run_schedule(&ops, quirks)).err().unwrap_or_default();
    let mut chunk = ops.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + chunk).min(ops.len()));
            match guarded(|| run_schedule(&fewer, quirks)) {
                Err(what) if class_of(&what) == class_of(&failure) => (ops, failure) = (fewer, what),
                _ => at += chunk,
            }
        }
        chunk /= 2;
    }
    (ops, failure)
}

/// Runs so many schedules, from seed `first` on; the first failure of each kind is shrunk.
pub fn schedules(first: u64, count: usize, make: fn(u64) -> Vec<Op>, quirks: Quirks) -> Outcome {
    shared(count, 1, |n, outcome| {
        let seed = first + n as u64;
        let ops = make(seed);
        outcome.count("schedules", 1);
        outcome.count("operations", ops.len());
        match guarded(|| run_schedule(&ops, quirks)) {
            Ok(ran) => outcome.count("opens", ran.opens),
            Err(what) => outcome.add(n, &what, || {
                let (ops, what) = shrink(&ops, quirks);
                let lines: Vec<String> = ops.iter().map(|op| format!("    {op:?}")).collect();
                let lines = lines.join("\n");
                format!("EDGELOG_CRASH_FIRST={seed} EDGELOG_CRASH_SCHEDULES=1, shrunk to:\n{lines}\n  {what}")
            }),
        }
    })
}

/// A schedule in which several faults meet the same process, which goes on.
pub fn faulty_schedule(seed: u64) -> Vec<Op> {
    const FAULTS: [Fault; 6] = [Fault::Full, Fault::Full, Fault::Short, Fault::Io, Fault::Flush, Fault::StaysFull];
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut ops = schedule(seed);
    for _ in 0..2 + rng.below(8) {
        let fault = FAULTS[rng.below(FAULTS.len())];
        let fail = Op::Fail { after: rng.below(40) as u8, fault, goes_on: rng.chance(80) };
        ops.insert(2 + rng.below(ops.len() - 2), fail);
    }
    ops
}

/// Which calls a workload makes.
fn calls_of(ops: &[Op]) -> Vec<super::disk::Call> {
    let mut world = World::new(Quirks::default());
    world.disk.log_calls();
    let _ = world.open();
    for op in ops {
        let _ = world.apply(op);
    }
    let calls = world.disk.take_calls();
    world.disk.kill();
    calls
}

/// Every call of a workload fails once, one run each; then the process dies, the next one goes on, and the power goes.
pub fn faults(ops: &[Op], fault: Fault, step: usize) -> Outcome {
    let calls = calls_of(ops);
    let indexes: Vec<usize> = (0..calls.len()).filter(|&at| fault.applies_to(calls[at])).collect();
    shared(indexes.len(), step, |n, outcome| {
        let at = indexes[n];
        outcome.count("faults", 1);
        match guarded(|| run_with_fault(ops, at as u64, fault)) {
            Ok(opens) => outcome.count("opens", opens),
            Err(what) => {
                let around = &calls[at.saturating_sub(4)..(at + 4).min(calls.len())];
                outcome.add(n, &what, || format!("{fault:?} at call {at}, {:?} among {around:?}", calls[at]));
            }
        }
    })
}

/// The worst that a flush does: it fails once, its pages are clean in the cache and not on the device, and every later
/// one succeeds. The process is started again on the same machine, acknowledges more, and the power goes: at every
/// effect from the opening on. The flushes are those of the operations from number `from` on.
pub fn flush_fails_then_power(ops: &[Op], from: usize, step: usize, images: u64) -> Outcome {
    let calls = calls_of(ops);
    let before = if from == 0 { 0 } else { calls_of(&ops[..from]).len() };
    let indexes: Vec<usize> = (before..calls.len()).filter(|&at| Fault::Flush.applies_to(calls[at])).collect();
    shared(indexes.len(), step, |n, outcome| {
        let at = indexes[n] as u64;
        outcome.count("failed flushes", 1);
        let mut world = World::new(Quirks::default());
        world.tolerant = true;
        world.disk.fail_at(at, Fault::Flush);
        let met = guarded(|| {
            world.open()?;
            for op in ops {
                if world.disk.fault_hit() {
                    break;
                }
                if *op != Op::Reopen {
                    world.apply(op)?;
                    continue;
                }
                // Where the close fails, it is the next process that opens the store.
                world.close()?;
                if world.store.is_none() && !world.disk.fault_hit() {
                    world.open()?;
                }
            }
            Ok(())
        });
        if let Err(what) = met {
            return outcome.add(n, &what, || format!("a flush fails at call {at}"));
        }
        world.restart(world.disk.snapshot().image(Image::Kill));
        world.tolerant = false;
        if world.model.clean == Clean::Must {
            world.model.clean = Clean::May;
        }
        cut_again(world, n, images, outcome, &|| format!("a flush fails at call {at}, killed"));
    })
}

pub fn run_with_fault(ops: &[Op], at: u64, fault: Fault) -> Result<usize, String> {
    let mut world = World::new(Quirks::default());
    world.tolerant = true;
    world.disk.fail_at(at, fault);
    world.open()?;
    let mut after = 0;
    for (n, op) in ops.iter().enumerate() {
        let place = |e: String| format!("{e}\n  at operation {n}, {op:?}");
        if fault == Fault::StaysFull && world.disk.fault_hit() {
            after += 1;
            if after == 12 {
                // There is room again: a store that is still open goes on.
                world.disk.heal();
            }
        }
        guarded(|| world.apply(op)).map_err(place)?;
        if world.store.is_none() {
            guarded(|| world.open()).map_err(place)?;
        }
    }
    world.disk.heal();
    let room_only = matches!(fault, Fault::Full | Fault::StaysFull);
    if room_only && world.store.is_some() {
        world.tolerant = false;
        guarded(|| world.append_everywhere_but_failed()).map_err(|e| format!("with room again: {e}"))?;
    }
    // The process dies; what the next one finds and adds has to outlast the power.
    crash(&mut world, Image::Kill, None).map_err(|e| format!("after the fault, killed: {e}"))?;
    world.append_everywhere().map_err(|e| format!("after the fault, killed, appending: {e}"))?;
    crash(&mut world, [Image::AllLost, Image::Random(at)][at as usize % 2], None)
        .map_err(|e| format!("after the fault, killed, and then a power cut: {e}"))?;
    world.disk.kill();
    Ok(3)
}

/// Where the searches find the first violation; `None` where there is none. Bounded, so that a bug that hides costs
/// half a minute: random schedules first, then every single cut, faults at every call, and every eighth double cut.
pub fn find_violation(quirks: Quirks, ops: &[Op], schedule_count: u64) -> Option<String> {
    for seed in 0..schedule_count {
        if let Err(what) = guarded(|| run_schedule(&schedule(seed), quirks)) {
            return Some(format!("after {} random schedules: {}", seed + 1, class_of(&what)));
        }
    }
    for seed in 0..schedule_count / 4 {
        if let Err(what) = guarded(|| run_schedule(&faulty_schedule(seed), quirks)) {
            return Some(format!("after {} schedules with several faults: {}", seed + 1, class_of(&what)));
        }
    }
    let few = &ops[..ops.len().min(90)];
    let calls = calls_of(few);
    let mut faults = 0;
    for fault in [Fault::Full, Fault::Io] {
        for at in (0..calls.len()).filter(|&at| fault.applies_to(calls[at])) {
            faults += 1;
            if let Err(what) = guarded(|| run_with_fault(few, at as u64, fault)) {
                return Some(format!("after {faults} faults: {}", class_of(&what)));
            }
        }
    }
    if quirks == Quirks::default() {
        let outcome = flush_fails_then_power(few, 0, 4, 2);
        if let Some(class) = outcome.violations.keys().next() {
            return Some(format!("by flushes that fail once: {class}"));
        }
    }
    let run = match guarded(|| record(ops, quirks)) {
        Ok(run) => run,
        Err(what) => return Some(format!("without any cut: {}", class_of(&what))),
    };
    let mut outcome = Outcome::default();
    for n in 0..run.cuts.len() {
        cut_once(&run, n, 4, &mut outcome);
        if let Some(class) = outcome.violations.keys().next() {
            return Some(format!("after {} images of single cuts: {class}", outcome.counts["images"]));
        }
    }
    let mut outcome = Outcome::default();
    for n in (0..run.cuts.len()).step_by(8) {
        cut_twice(&run, n, n / 8, 2, &mut outcome);
        if let Some(class) = outcome.violations.keys().next() {
            return Some(format!("after {} images of double cuts: {class}", outcome.counts["images"]));
        }
    }
    None
}
