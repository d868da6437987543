//! Readings in SQLite.

use std::path::Path;

use edgelog::{LeaderEpoch, Offset, OffsetAndEpoch, TopicPartition};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::reading::Batch;
use crate::sink::{Advance, Outcome, Sink};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS readings (
        device TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, temperature REAL NOT NULL,
        PRIMARY KEY (device, seq)
    );
    CREATE TABLE IF NOT EXISTS devices (device TEXT PRIMARY KEY, readings INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS positions (
        topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL, leader_epoch INTEGER NOT NULL,
        PRIMARY KEY (topic, partition)
    );";
const READING: &str = "
    INSERT INTO readings (device, seq, at, temperature) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (device, seq) DO UPDATE SET at = excluded.at, temperature = excluded.temperature";
const COUNT: &str = "
    INSERT INTO devices (device, readings) VALUES (?1, ?2)
    ON CONFLICT (device) DO UPDATE SET readings = readings + excluded.readings";
const POSITION: &str = "
    INSERT INTO positions (topic, partition, next_offset, leader_epoch) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (topic, partition) DO UPDATE
    SET next_offset = excluded.next_offset, leader_epoch = excluded.leader_epoch WHERE next_offset <= ?5";

pub struct Sqlite(Connection);

impl Sqlite {
    pub fn open(file: &Path) -> Outcome<Sqlite> {
        let connection = Connection::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A transaction has to survive a power cut before its records are committed: NORMAL would lose the last ones.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(TABLES)?;
        Ok(Sqlite(connection))
    }
}

impl Sink for Sqlite {
    fn position(&mut self, partition: &TopicPartition) -> Outcome<Option<OffsetAndEpoch>> {
        let sql = "SELECT next_offset, leader_epoch FROM positions WHERE topic = ?1 AND partition = ?2";
        let key = params![partition.topic, partition.partition];
        let position = self.0.query_row(sql, key, |row| {
            Ok(OffsetAndEpoch { offset: Offset(row.get(0)?), leader_epoch: LeaderEpoch(row.get(1)?) })
        });
        Ok(position.optional()?)
    }

    fn write(&mut self, batch: &Batch, positions: &[Advance]) -> Outcome<bool> {
        // What is dropped before its commit is rolled back.
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for Advance { partition, from, to } in positions {
            let (offset, epoch) = (to.offset.0, to.leader_epoch.0);
            let row = params![partition.topic, partition.partition, offset, epoch, from];
            if transaction.prepare_cached(POSITION)?.execute(row)? == 0 {
                return Ok(false);
            }
        }
        for ((device, seq), (at, temperature)) in &batch.readings {
            transaction.prepare_cached(READING)?.execute(params![device, seq, at, temperature])?;
        }
        for (device, count) in &batch.counts {
            transaction.prepare_cached(COUNT)?.execute(params![device, count])?;
        }
        transaction.commit()?;
        Ok(true)
    }
}
