//! Readings in PostgreSQL.

use edgelog::{LeaderEpoch, Offset, OffsetAndEpoch, TopicPartition};
use postgres::error::SqlState;
use postgres::{Client, NoTls};

use crate::reading::Batch;
use crate::sink::{Advance, Outcome, Sink};

const TABLES: &str = "
    SET client_min_messages = warning;
    CREATE TABLE IF NOT EXISTS readings (
        device text NOT NULL, seq bigint NOT NULL, at bigint NOT NULL, temperature double precision NOT NULL,
        PRIMARY KEY (device, seq)
    );
    CREATE TABLE IF NOT EXISTS devices (device text PRIMARY KEY, readings bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS positions (
        topic text NOT NULL, partition bigint NOT NULL, next_offset bigint NOT NULL, leader_epoch integer NOT NULL,
        PRIMARY KEY (topic, partition)
    );";
// One statement for all rows: the server may be far away.
const READINGS: &str = "
    INSERT INTO readings (device, seq, at, temperature)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::double precision[])
    ON CONFLICT (device, seq) DO UPDATE SET at = excluded.at, temperature = excluded.temperature";
const COUNTS: &str = "
    INSERT INTO devices (device, readings) SELECT * FROM unnest($1::text[], $2::bigint[])
    ON CONFLICT (device) DO UPDATE SET readings = devices.readings + excluded.readings";
const POSITION: &str = "
    INSERT INTO positions (topic, partition, next_offset, leader_epoch) VALUES ($1, $2, $3, $4)
    ON CONFLICT (topic, partition) DO UPDATE
    SET next_offset = excluded.next_offset, leader_epoch = excluded.leader_epoch WHERE positions.next_offset <= $5";

pub struct Postgresql(Client);

impl Postgresql {
    pub fn open(url: &str) -> Outcome<Postgresql> {
        // Over a network, connect by TLS: the crates postgres-native-tls and postgres-openssl.
        let mut client = Client::connect(url, NoTls)?;
        // A transaction has to survive a power cut before its records are committed, also where the server's own
        // configuration would rather be fast.
        client.batch_execute("SET synchronous_commit = on")?;
        create_tables(&mut client)?;
        Ok(Postgresql(client))
    }
}

/// `IF NOT EXISTS` does not see what an open transaction creates: the statement waits for its commit, and is refused
/// then. The transaction may be that of a process that was killed, which goes on in the server.
fn create_tables(client: &mut Client) -> Outcome<()> {
    loop {
        match client.batch_execute(TABLES) {
            // There is one more table now than before, so that this ends.
            Err(error) if exists(error.code()) => {}
            other => return Ok(other?),
        }
    }
}

fn exists(code: Option<&SqlState>) -> bool {
    code == Some(&SqlState::UNIQUE_VIOLATION) || code == Some(&SqlState::DUPLICATE_TABLE)
}

impl Sink for Postgresql {
    fn position(&mut self, partition: &TopicPartition) -> Outcome<Option<OffsetAndEpoch>> {
        let sql = "SELECT next_offset, leader_epoch FROM positions WHERE topic = $1 AND partition = $2";
        let row = self.0.query_opt(sql, &[&partition.topic, &i64::from(partition.partition)])?;
        Ok(row.map(|row| OffsetAndEpoch { offset: Offset(row.get(0)), leader_epoch: LeaderEpoch(row.get(1)) }))
    }

    fn write(&mut self, batch: &Batch, positions: &[Advance]) -> Outcome<bool> {
        // What is dropped before its commit is rolled back.
        let mut transaction = self.0.transaction()?;
        // First: of two processes that write one position, the second waits here for the first, and then sees it. A
        // process that was killed may still be the first one: its last transaction goes on in the server.
        for Advance { partition, from, to } in positions {
            let number = i64::from(partition.partition);
            let (offset, epoch) = (to.offset.0, to.leader_epoch.0);
            if transaction.execute(POSITION, &[&partition.topic, &number, &offset, &epoch, from])? == 0 {
                return Ok(false);
            }
        }
        let (devices, seqs): (Vec<&str>, Vec<i64>) =
            batch.readings.keys().map(|(device, seq)| (device.as_str(), *seq)).unzip();
        let (times, temperatures): (Vec<i64>, Vec<f64>) = batch.readings.values().copied().unzip();
        transaction.execute(READINGS, &[&devices, &seqs, &times, &temperatures])?;
        let (devices, counts): (Vec<&str>, Vec<i64>) =
            batch.counts.iter().map(|(device, count)| (device.as_str(), *count)).unzip();
        transaction.execute(COUNTS, &[&devices, &counts])?;
        transaction.commit()?;
        Ok(true)
    }
}
