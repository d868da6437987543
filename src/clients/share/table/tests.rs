//! The lock table against a model that says of every record what it is, through random histories.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits =
    Limits { lock_ms: 10, deliveries: 3, in_flight: 8, backoff_ms: 4, backoff_ms_max: 6, has_dead_letters: false };

#[derive(Debug, Clone)]
enum Step {
    Grow(i64),
    Acquire(u64, usize),
    Acknowledge(u64, i64, AckType),
    Leave(u64),
    Pass(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let ack = prop_oneof![Just(AckType::Accept), Just(AckType::Release), Just(AckType::Reject), Just(AckType::Renew)];
    prop_oneof![
        (1..4_i64).prop_map(Step::Grow),
        (0..3_u64, 1..5_usize).prop_map(|(owner, max)| Step::Acquire(owner, max)),
        (0..3_u64, 0..12_i64, ack.clone()).prop_map(|(owner, n, ack)| Step::Acknowledge(owner, n, ack)),
        (0..3_u64, 0..4_i64, ack).prop_map(|(owner, n, ack)| Step::Acknowledge(owner, n, ack)),
        (0..3_u64).prop_map(Step::Leave),
        (1..12_i64).prop_map(Step::Pass),
        Just(Step::Restart),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Is {
    Free { from: i64 },
    Held { by: u64, until: i64 },
    Done,
}

/// Every record: what it is and how often it came.
#[derive(Debug, Default)]
struct Model {
    records: BTreeMap<i64, (Is, u16)>,
    end: i64,
    now: i64,
}

impl Model {
    fn start(&self) -> i64 {
        let open = self.records.iter().find(|(_, (is, ..))| *is != Is::Done);
        open.map_or(self.records.len() as i64, |(offset, _)| *offset)
    }

    fn admit(&mut self) {
        while (self.records.len() as i64) < self.end.min(self.start() + LIMITS.in_flight as i64) {
            self.records.insert(self.records.len() as i64, (Is::Free { from: i64::MIN }, 0));
        }
    }

    fn give_back(&mut self, ends: impl Fn(u64, i64) -> bool) {
        let now = self.now;
        for (is, count) in self.records.values_mut() {
            if matches!(*is, Is::Held { by, until } if ends(by, until)) {
                *is = if *count >= LIMITS.deliveries { Is::Done } else { free(now, *count) };
            }
        }
    }
}

fn free(now: i64, count: u16) -> Is {
    // 4 behind the first delivery, then the most that is allowed.
    Is::Free { from: now + if count == 1 { 4 } else { 6 } }
}

fn same(table: &LockTable, model: &Model) {
    assert_eq!(table.start().0, model.start(), "the start offset");
    for (offset, (is, count)) in model.records.range(model.start()..) {
        let slot = table.get(Offset(*offset)).unwrap_or_else(|| panic!("{offset} is known"));
        let found = match slot.state {
            DeliveryState::Available => Is::Free { from: slot.at_ms },
            DeliveryState::Acquired => Is::Held { by: slot.owner, until: slot.at_ms },
            _ => Is::Done,
        };
        assert_eq!((found, slot.count), (*is, *count), "offset {offset}");
    }
}

fn run(steps: Vec<Step>) {
    let (mut table, mut model) = (LockTable::new(Offset(0), LIMITS), Model::default());
    for step in steps {
        match step {
            Step::Grow(by) => model.end += by,
            Step::Pass(ms) => model.now += ms,
            Step::Leave(owner) => {
                let mut changes = Vec::new();
                table.plan_given_back(Some(owner), model.now, &mut changes);
                table.apply(&changes, model.now);
                model.give_back(|by, _| by == owner);
            }
            Step::Acquire(owner, max) => {
                let (mut changes, mut taken, now) = (Vec::new(), Vec::new(), model.now);
                table.plan_given_back(None, now, &mut changes);
                table.apply(&changes, now);
                model.give_back(|_, until| until <= now);
                table.admit(Offset(model.end));
                model.admit();
                table.acquire(owner, now, max, &mut taken);
                let free = |(_, (is, ..)): &(&i64, &mut (Is, u16))| matches!(is, Is::Free { from } if *from <= now);
                let mut expected = Vec::new();
                for (offset, (is, count)) in model.records.iter_mut().filter(free).take(max) {
                    (*is, *count) = (Is::Held { by: owner, until: now + LIMITS.lock_ms }, *count + 1);
                    expected.push((Offset(*offset), *count));
                }
                assert_eq!(taken, expected);
            }
            Step::Acknowledge(owner, n, ack) => {
                let (offset, now) = (model.start() + n, model.now);
                let planned = table.plan(owner, Offset(offset), ack, now);
                let held = model
                    .records
                    .get_mut(&offset)
                    .filter(|(is, ..)| matches!(is, Is::Held { by, until } if *by == owner && now < *until));
                assert_eq!(planned.is_some(), held.is_some(), "{owner} holds {offset}");
                table.apply(planned.as_slice(), now);
                let Some((is, count)) = held else { continue };
                *is = match ack {
                    AckType::Renew => Is::Held { by: owner, until: now + LIMITS.lock_ms },
                    AckType::Release if *count < LIMITS.deliveries => free(now, *count),
                    _ => Is::Done,
                };
            }
            Step::Restart => {
                let mut written = Vec::new();
                table.written(&mut written);
                let start = table.start();
                table = LockTable::new(start, LIMITS);
                for change in written {
                    table.restore(change);
                }
                for (is, count) in model.records.values_mut().filter(|(is, ..)| *is != Is::Done) {
                    // The wait is over with the process, and a delivery that was not answered does not count.
                    *count -= u16::from(matches!(is, Is::Held { .. }));
                    *is = Is::Free { from: i64::MIN };
                }
                table.admit(Offset(model.records.len() as i64));
            }
        }
        same(&table, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn the_lock_table_is_what_the_model_says(steps in prop::collection::vec(step(), 1..80)) {
        run(steps);
    }
}
