//! The searches: every cut once, every cut during the recovery from a cut, random schedules, every fault at every call.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::disk::{Core, Fault, Image, Quirks, Rng, SimDisk};
use super::oracle::{Clean, Model, TIME_BASE};
use super::workload::{Op, World};

/// What a search went through, and what it found.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) cuts: usize,
    pub(crate) images: usize,
    pub(crate) opens: usize,
    /// What was violated, with how often and where first.
    pub(crate) violations: BTreeMap<String, (usize, String)>,
}

impl Outcome {
    pub(crate) fn add(&mut self, what: &str, place: impl FnOnce() -> String) {
        let entry = self.violations.entry(class_of(what)).or_insert_with(|| (0, format!("{what}\n{}", place())));
        entry.0 += 1;
    }

    pub(crate) fn print(&self, name: &str) {
        println!(
            "{name}: {} cuts, {} images, {} opens, {} kinds of violation",
            self.cuts,
            self.images,
            self.opens,
            self.violations.len()
        );
    }

    pub(crate) fn assert_none(&self) {
        let mut text = String::new();
        for (what, (count, place)) in &self.violations {
            let _ = writeln!(text, "{count} times {what}\n  first: {place}\n");
        }
        assert!(self.violations.is_empty(), "{text}");
    }
}

/// The message without its numbers: what tells one kind of violation from another.
fn class_of(what: &str) -> String {
    let line = what.lines().next().unwrap_or_default();
    line.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(150).collect::<String>().replace("##", "#")
}

/// Runs `work`; a panic is a violation too.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
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
pub(crate) enum Depth {
    /// Open and check.
    Open,
    /// And lose power again at once: what was served is durable.
    Again,
    /// And append, close and open once more.
    Full,
}

/// Opens the store on what a cut has left, and holds it to `model`. Returns how many opens that took.
pub(crate) fn verify(core: &Core, model: &Model, seq: u32, image: Image, depth: Depth) -> Result<usize, String> {
    let mut world = World::on(SimDisk::from_core(core.image(image)));
    world.model = model.clone();
    world.seq = seq;
    world.clock.set(TIME_BASE + i64::from(seq));
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
pub(crate) struct Recorded {
    pub(crate) cuts: Vec<(Core, Arc<Model>)>,
    pub(crate) seq: u32,
}

/// Runs `ops` once, with a snapshot at every effect.
pub(crate) fn record(ops: &[Op], quirks: Quirks) -> Result<Recorded, String> {
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

/// Every effect of the run is cut, with the chosen images and `randoms` random ones each.
pub(crate) fn single_cuts(run: &Recorded, randoms: u64, stop_at_first: bool) -> Outcome {
    let mut outcome = Outcome::default();
    for (n, (core, model)) in run.cuts.iter().enumerate() {
        outcome.cuts += 1;
        let random = (0..randoms).map(|r| Image::Random(n as u64 * 1000 + r));
        let images = Image::CHOSEN.into_iter().chain([Image::Kill]).chain(random);
        for (i, image) in images.enumerate() {
            outcome.images += 1;
            let depth = [Depth::Full, Depth::Open, Depth::Again][(n + i) % 3];
            match guarded(|| verify(core, model, run.seq, image, depth)) {
                Ok(opens) => outcome.opens += opens,
                Err(what) => outcome.add(&what, || {
                    format!("cut {n} during {}, {image:?}, {depth:?}\n{}", model.what, core.image(image).listing())
                }),
            }
        }
        if stop_at_first && !outcome.violations.is_empty() {
            break;
        }
    }
    outcome
}

/// Every cut of the run once, and then every cut during the recovery from it and the first operations after.
pub(crate) fn double_cuts(run: &Recorded, step: usize, images: u64) -> Outcome {
    const FIRST: [Image; 6] =
        [Image::AllLost, Image::AllKept, Image::Kill, Image::Random(1), Image::Random(2), Image::Alternate];
    let mut outcome = Outcome::default();
    for (n, (core, model)) in run.cuts.iter().enumerate().step_by(step) {
        let first = match FIRST[(n / step) % FIRST.len()] {
            Image::Random(seed) => Image::Random(seed + n as u64 * 2),
            other => other,
        };
        let mut world = World::on(SimDisk::from_core(core.image(first)));
        world.model = Model::clone(model);
        world.seq = run.seq;
        world.clock.set(TIME_BASE + i64::from(run.seq));
        world.record();
        let recovered = guarded(|| {
            world.open()?;
            world.append_everywhere()?;
            world.apply(&Op::Tick { advance: 2000 })?;
            world.append_everywhere()
        });
        if let Err(what) = recovered {
            outcome.add(&what, || format!("cut {n} during {}, {first:?}, no second cut", model.what));
            continue;
        }
        let second_run = watched(&mut world);
        for (m, (core, model)) in second_run.cuts.iter().enumerate() {
            outcome.cuts += 1;
            for i in 0..images {
                let at = n as u64 + m as u64 * images + i;
                let image = match at % 4 {
                    0 => Image::AllLost,
                    1 => Image::CHOSEN[(at / 4) as usize % Image::CHOSEN.len()],
                    _ => Image::Random(at * 7919),
                };
                outcome.images += 1;
                match guarded(|| verify(core, model, second_run.seq, image, Depth::Open)) {
                    Ok(opens) => outcome.opens += opens,
                    Err(what) => outcome.add(&what, || {
                        let text = core.image(image).listing();
                        format!("cut {n} {first:?}, then cut {m} during {}, {image:?}\n{text}", model.what)
                    }),
                }
            }
        }
    }
    outcome
}

/// A schedule of operations, kills, cuts and failing flushes, all from one seed.
pub(crate) fn schedule(seed: u64) -> Vec<Op> {
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
            13..15 => ops.push(Op::FailFlush { after: rng.below(4) as u8 }),
            _ => ops.push(super::workload::random_op(&mut rng)),
        }
    }
    ops.push(Op::Cut { after: rng.below(20) as u16, image: Image::Random(seed) });
    ops
}

/// Runs a schedule; `Err` says which operation found what.
pub(crate) fn run_schedule(ops: &[Op], quirks: Quirks) -> Result<usize, String> {
    let mut world = World::new(quirks);
    let mut opens = 1;
    world.open()?;
    let mut pending: Option<Image> = None;
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
            }
            Op::FailFlush { after } => {
                world.disk.fail_flush_after(u64::from(after));
                world.tolerant = true;
            }
            _ => guarded(|| world.apply(op)).map_err(at)?,
        }
        if world.disk.is_dead() {
            let image = pending.take().unwrap_or(Image::AllLost);
            // Now and then the power goes again while the store recovers.
            let again = (n % 3 == 0).then_some((n as u64 % 17, image));
            opens += crash(&mut world, image, again).map_err(at)?;
        } else if world.store.is_none() || (world.tolerant && world.disk.fault_hit()) {
            // A flush failed: nobody trusts this process any more.
            opens += crash(&mut world, Image::Kill, None).map_err(at)?;
        }
    }
    let image = pending.unwrap_or(Image::AllLost);
    opens += crash(&mut world, image, None).map_err(|e| format!("{e}\n  at the end"))?;
    world.append_everywhere()?;
    world.apply(&Op::Reopen)?;
    world.disk.kill();
    Ok(opens)
}

fn crash(world: &mut World, image: Image, again: Option<(u64, Image)>) -> Result<usize, String> {
    let mut opens = 0;
    let mut again = again;
    let mut core = world.disk.snapshot().image(image);
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
pub(crate) fn shrink(ops: &[Op], quirks: Quirks) -> (Vec<Op>, String) {
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

/// Runs schedules `seeds`; the first failure is shrunk.
pub(crate) fn schedules(seeds: impl Iterator<Item = u64>, quirks: Quirks, failures_max: usize) -> Outcome {
    let mut outcome = Outcome::default();
    for seed in seeds {
        let ops = schedule(seed);
        outcome.cuts += 1;
        match guarded(|| run_schedule(&ops, quirks)) {
            Ok(opens) => outcome.opens += opens,
            Err(what) => {
                outcome.add(&what, || {
                    let (ops, what) = shrink(&ops, quirks);
                    let lines: Vec<String> = ops.iter().map(|op| format!("    {op:?}")).collect();
                    let lines = lines.join("\n");
                    format!("seed {seed}, shrunk to:\n{lines}\n  {what}")
                });
                if outcome.violations.len() >= failures_max {
                    break;
                }
            }
        }
    }
    outcome
}

/// Every call of a workload fails once, one run each; then the process dies, the next one goes on, and the power goes.
pub(crate) fn faults(ops: &[Op], fault: Fault, step: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let calls = {
        let mut world = World::new(Quirks::default());
        world.disk.log_calls();
        let _ = world.open();
        for op in ops {
            let _ = world.apply(op);
        }
        let calls = world.disk.take_calls();
        world.disk.kill();
        calls
    };
    let indexes = calls.iter().enumerate().filter(|(_, call)| fault.applies_to(**call)).map(|(at, _)| at);
    for at in indexes.step_by(step) {
        outcome.cuts += 1;
        match guarded(|| run_with_fault(ops, at as u64, fault)) {
            Ok(opens) => outcome.opens += opens,
            Err(what) => {
                let around = &calls[at.saturating_sub(4)..(at + 4).min(calls.len())];
                outcome.add(&what, || format!("{fault:?} at call {at}, {:?} among {around:?}", calls[at]));
            }
        }
    }
    outcome
}

pub(crate) fn run_with_fault(ops: &[Op], at: u64, fault: Fault) -> Result<usize, String> {
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
                // Room is there again: whoever is still open goes on.
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

/// A run on a disk that breaks its word: how many violations a search finds.
pub(crate) fn canary(quirks: Quirks, ops: &[Op], schedule_count: u64) -> usize {
    let singles = match guarded(|| record(ops, quirks)) {
        Ok(run) => single_cuts(&run, 2, true).violations.len(),
        Err(_) => 1,
    };
    if singles > 0 {
        return singles;
    }
    (0..schedule_count).filter(|&seed| guarded(|| run_schedule(&schedule(seed), quirks)).is_err()).take(1).count()
}
