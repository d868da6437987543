//! What the searches of producers and groups have in common: the power goes at every recorded effect, and again during
//! the recovery from that.

use std::sync::Arc;

use crate::testing::disk::{Core, Image, LookedAt, SimDisk};

/// How many cuts there were, how many images of them, and how many disks that is that differ.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) cuts: usize,
    pub(super) images: usize,
    pub(super) disks: usize,
}

/// Looks at what each cut of a run may leave, by `verify`; for one cut in sixteen also at what a second cut leaves
/// during `verify`'s own recovery. What `verify` returns lives until the power has gone. `Err` is the first violation.
pub(super) fn verify_cuts<K, T>(
    seed: u64,
    cuts: &[(Core, Arc<K>)],
    seen: &mut Seen,
    verify: impl Fn(&SimDisk, &K) -> Result<T, String>,
) -> Result<(), String> {
    let mut looked_at = LookedAt::nothing();
    for (n, (core, known)) in cuts.iter().enumerate() {
        seen.cuts += 1;
        let chosen = Image::CHOSEN[(n + seed as usize) % Image::CHOSEN.len()];
        for image in [Image::AllLost, chosen, Image::Random(seed * 10_000 + n as u64)] {
            seen.images += 1;
            let again = (n + seed as usize) % 16 == 0 && image == chosen;
            let left = core.image(image);
            if !looked_at.is_new(known, &left) && !again {
                continue;
            }
            seen.disks += 1;
            let found = |what| format!("seed {seed}, cut {n}, {image:?}: {what}");
            let second = after(left, again, |disk| verify(disk, known)).map_err(found)?;
            for (m, second) in second.iter().enumerate().step_by(3) {
                seen.images += 1;
                seen.disks += 1;
                let image = Image::CHOSEN[m % Image::CHOSEN.len()];
                let found = |what| format!("seed {seed}, cut {n} and then {m}, {image:?}: {what}");
                after(second.image(image), false, |disk| verify(disk, known)).map_err(found)?;
            }
        }
    }
    Ok(())
}

/// What a power cut has left, looked at by `verify`. With `again`, returns the disk as it is at each effect of that.
fn after<T>(left: Core, again: bool, verify: impl FnOnce(&SimDisk) -> Result<T, String>) -> Result<Vec<Core>, String> {
    let disk = SimDisk::from_core(left);
    if again {
        disk.record();
    }
    let verified = verify(&disk);
    let cuts = if again { disk.take_cuts() } else { Vec::new() };
    disk.kill();
    verified.map(|_| cuts)
}

/// `EDGELOG_CLIENT_SCHEDULES`, or so many: fewer where the build has debug assertions.
pub(super) fn schedules(with_assertions: u64, without: u64) -> u64 {
    let asked = std::env::var("EDGELOG_CLIENT_SCHEDULES").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(if cfg!(debug_assertions) { with_assertions } else { without })
}

/// Holds a search to finding each of these bugs, switched on one at a time.
#[cfg(edgelog_canary)]
pub(super) fn find_each<T>(bugs: &[crate::canary::Bug], search: impl Fn() -> Result<T, String>) {
    let mut missed = Vec::new();
    for &bug in bugs {
        crate::canary::switch_on(Some(bug));
        match search() {
            Err(found) => println!("{bug:?}: {}", found.chars().take(200).collect::<String>()),
            Ok(_) => missed.push(bug),
        }
        crate::canary::switch_on(None);
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
