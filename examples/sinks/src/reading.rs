//! A reading, as telemetry has it, and the readings that go into a database together.

use std::collections::BTreeMap;
use std::error::Error;

use edgelog::clients::ConsumerRecord;
use serde::Deserialize;

/// No device has a longer name.
const DEVICE_BYTES_MAX: usize = 100;

/// `{"device": "boiler", "seq": 7, "at": 1700000000000, "temperature": 21.5}`
#[derive(Debug, Deserialize)]
pub struct Reading {
    pub device: String,
    /// Counts the device's readings: the two together name one.
    pub seq: i64,
    /// In milliseconds since 1970.
    pub at: i64,
    pub temperature: f64,
}

impl Reading {
    /// The reading in a record. What a database would refuse is refused here: it would refuse it with each try, and all
    /// other readings of its transaction.
    ///
    /// # Errors
    /// What is wrong with the record. It will not change by another try.
    pub fn parse(record: &ConsumerRecord<'_>) -> Result<Reading, Box<dyn Error>> {
        let value = record.value.ok_or("the record has no value")?;
        let reading: Reading = serde_json::from_slice(value)?;
        let device = &reading.device;
        if device.is_empty() || device.len() > DEVICE_BYTES_MAX {
            let given = device.len();
            return Err(format!("device has {given} bytes, and 1 to {DEVICE_BYTES_MAX} are allowed").into());
        }
        if device.chars().any(char::is_control) {
            return Err(format!("device is {device:?}, and may not have control characters").into());
        }
        Ok(reading)
    }
}

/// What one poll has brought, sorted: transactions that meet in a database take their rows in one order, and no two of
/// them wait for each other.
#[derive(Debug, Default)]
pub struct Batch {
    /// Time and temperature, by device and number. A reading that came twice is written once.
    pub readings: BTreeMap<(String, i64), (i64, f64)>,
    /// How many records there were of each device.
    pub counts: BTreeMap<String, i64>,
}

impl Batch {
    pub fn push(&mut self, reading: Reading) {
        *self.counts.entry(reading.device.clone()).or_default() += 1;
        self.readings.insert((reading.device, reading.seq), (reading.at, reading.temperature));
    }
}
