#![no_main]
//! Whole sequences of operations, faults, kills and power cuts on the simulated disk of `testkit/`, held against
//! the model there: the schedules are the fuzzer's, and coverage leads it where random ones do not come.

use edgelog::Durability;
use edgelog_testkit::crash::disk::{Fault, Image, Quirks};
use edgelog_testkit::crash::search;
use edgelog_testkit::crash::workload::{LOGS, Op, TOPICS};
use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// More operations make an execution slow and find no more.
const OPS_MAX: usize = 48;

#[derive(Debug)]
struct Input {
    ops: Vec<Op>,
    /// A call that fails, and how.
    fault: Option<(u16, Fault)>,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Input> {
        let fault = match u.int_in_range(0..=7)? {
            0 => Some((u.int_in_range(0..=600)?, Fault::Full)),
            1 => Some((u.int_in_range(0..=600)?, Fault::StaysFull)),
            2 => Some((u.int_in_range(0..=600)?, Fault::Io)),
            _ => None,
        };
        let mut ops = vec![Op::Create { topic: u.choose_index(TOPICS.len())? }];
        while !u.is_empty() && ops.len() < OPS_MAX {
            ops.push(op(u, fault.is_some())?);
        }
        Ok(Input { ops, fault })
    }
}

fn op(u: &mut Unstructured<'_>, one_fault_only: bool) -> Result<Op> {
    let log = u.choose_index(LOGS.len())?;
    Ok(match u.int_in_range(0..=if one_fault_only { 10 } else { 13 })? {
        0..=2 => {
            let records = u.int_in_range(1..=8)?;
            let durability = [Durability::Sync, Durability::Os, Durability::Interval][u.choose_index(3)?];
            // A batch fits into a segment.
            let len = u.int_in_range(4..=2600 / u16::from(records))?;
            Op::Append { log, records, len, durability, concurrent: u.arbitrary()? }
        }
        3 => Op::Flush { log },
        4 => Op::FlushAll,
        5 => Op::Tick { advance: u.int_in_range(0..=3000)? },
        6 => Op::Truncate { log, back: u.int_in_range(0..=80)? },
        7 => Op::DeleteRecords { log, keep: u.int_in_range(0..=80)? },
        8 => Op::Create { topic: u.choose_index(TOPICS.len())? },
        9 => Op::Delete { topic: u.choose_index(TOPICS.len())? },
        10 => Op::Reopen,
        11 => Op::Kill,
        12 => {
            let image = match Image::CHOSEN.get(u.int_in_range(0..=Image::CHOSEN.len())?) {
                Some(&chosen) => chosen,
                None => Image::Random(u64::from(u.arbitrary::<u32>()?)),
            };
            Op::Cut { after: u.int_in_range(0..=60)?, image }
        }
        _ => Op::Fail { after: u.int_in_range(0..=6)?, fault: Fault::Flush, goes_on: false },
    })
}

fuzz_target!(|input: Input| {
    let outcome = match input.fault {
        Some((at, fault)) => search::run_with_fault(&input.ops, u64::from(at), fault).map(drop),
        None => search::run_schedule(&input.ops, Quirks::default()).map(drop),
    };
    if let Err(what) = outcome {
        panic!("{what}\n{:#?}", input.ops);
    }
});
