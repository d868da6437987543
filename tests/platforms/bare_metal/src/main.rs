//! Builds a batch in a fixed buffer and reads it back, on a processor without operating system and allocator.

#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use edgelog_core::{Header, RecordBatch, RecordBatchBuilder, TimestampMs};

/// The first record's timestamp, ms since 1970.
const BASE_TIMESTAMP: i64 = 1_700_000_000_000;
const RECORDS: i64 = 20;

#[entry]
fn main() -> ! {
    let mut builder = RecordBatchBuilder::new([0_u8; 2048]);
    for n in 0..RECORDS {
        let value = [n as u8; 33];
        builder
            .append(TimestampMs(BASE_TIMESTAMP + n * 10), Some(b"sensor"), Some(&value), &[Header::new("unit", b"mV")])
            .expect("2 KiB hold twenty records of 33 bytes");
    }
    let size = builder.size();
    let bytes = builder.finish();

    let batch = RecordBatch::parse(bytes).expect("our own batch parses");
    batch.verify_crc().expect("our own CRC holds");
    assert_eq!(batch.record_count(), 20);
    let mut read = 0;
    for record in batch.records().expect("an uncompressed batch lends its records") {
        let record = record.expect("our own record decodes");
        assert_eq!(record.offset, read);
        assert_eq!(record.timestamp, BASE_TIMESTAMP + read * 10);
        assert_eq!(record.key, Some(&b"sensor"[..]));
        assert_eq!(record.value, Some(&[read as u8; 33][..]));
        assert!(record.headers().eq([Header::new("unit", b"mV")]));
        read += 1;
    }
    assert_eq!(read, RECORDS);

    // It must be able to see damage there, too.
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(RecordBatch::parse(bytes).and_then(|batch| batch.verify_crc()).is_err());

    hprintln!("{} records in {} bytes written and read back", read, size);
    debug::exit(debug::EXIT_SUCCESS);
    unreachable!("the emulator has ended")
}

/// Says what broke and ends the emulator with status 1.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    hprintln!("{}", info);
    debug::exit(debug::EXIT_FAILURE);
    loop {
        cortex_m::asm::nop();
    }
}
