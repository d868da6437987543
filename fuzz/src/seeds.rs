//! Writes the seeds from which the targets start, into `corpus/`: `cargo run --bin seeds` in this folder. What they are
//! made of is the engine's own and the codecs' own; a target reads its bytes as `arbitrary` does, from both ends.

use std::fs;
use std::path::Path;

use edgelog::edgelog_core::{HEADER_LEN, RecordBatchBuilder, TimestampMs, encode_one};
use edgelog_fuzz::Files;

fn write(target: &str, name: &str, bytes: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&dir).expect("a folder of this package");
    fs::write(dir.join(name), bytes).expect("as above");
}

/// Values that are the same everywhere, with no order to them.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The first choice of an enum with `variants` ones, as `arbitrary` reads it: the top bits of a number of four bytes.
fn choice(variant: u64, variants: u64) -> [u8; 4] {
    ((((variant << 32) + (1 << 31)) / variants) as u32).to_le_bytes()
}

fn main() {
    let mut one = vec![0; 512];
    let size =
        encode_one(&mut one, TimestampMs(1_700_000_000_000), Some(b"key"), Some(b"value"), &[]).expect("it fits");
    one.truncate(size);
    let mut builder = RecordBatchBuilder::new(vec![0; 4096]);
    for n in 0..5 {
        builder
            .append(TimestampMs(1_700_000_000_000 + n), None, Some(b"the same value over and over"), &[])
            .expect("it fits");
    }
    let payload = builder.payload().to_vec();
    let five = builder.finish().to_vec();
    for (name, batch) in [("one-record", &one), ("five-records", &five)] {
        write("record_batch", &format!("{name}-raw"), &[&choice(0, 3)[..], batch].concat());
        // A list of bytes: each is followed by a flag that there is more.
        let listed: Vec<u8> = batch.iter().flat_map(|&byte| [1, byte]).collect();
        write("record_batch", &format!("{name}-sealed"), &[&choice(1, 3)[..], &listed].concat());
    }

    // Codec, number of records less one, payload.
    let mut gzip = flate2::read::GzEncoder::new(&payload[..], flate2::Compression::best());
    let mut gzipped = Vec::new();
    std::io::Read::read_to_end(&mut gzip, &mut gzipped).expect("memory");
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    std::io::Write::write_all(&mut lz4, &payload).expect("memory");
    let compressed = [
        ("none", 0, payload.clone()),
        ("gzip", 1, gzipped),
        ("snappy", 2, snap::raw::Encoder::new().compress_vec(&payload).expect("it is short")),
        // Five bytes that claim four gigabytes.
        ("snappy-claims-4-gib", 2, vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("lz4", 3, lz4.finish().expect("memory")),
        ("zstd-1", 4, zstd::encode_all(&payload[..], 1).expect("memory")),
        ("zstd-19", 4, zstd::encode_all(&payload[..], 19).expect("memory")),
        // A frame header with a window and a content of terabytes.
        ("zstd-claims-terabytes", 4, [&[0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0xff][..], &[0xff; 5], &[0; 8]].concat()),
    ];
    for (name, codec, payload) in compressed {
        write("compressed", name, &[&choice(0, 2)[..], &[codec, 4], &payload].concat());
    }
    for encoder in 0..4 {
        let records = [&choice(1, 2)[..], &[encoder, 3, 2, 1, 20], &payload].concat();
        write("compressed", &format!("records-{encoder}"), &records);
    }

    let files = Files::sound();
    for (path, bytes) in &files.0 {
        if path.ends_with("index") {
            let name = path.replace(['/', '.'], "-");
            let listed: Vec<u8> = bytes.iter().flat_map(|&byte| [1, byte]).collect();
            write("indexes", &name, &[&choice(0, 2)[..], &listed].concat());
        }
    }
    // Schedules, edits and the like: what `arbitrary` makes of noise is as good as any other beginning.
    for (target, len) in
        [("segment_scan", 400), ("checkpoint", 200), ("damaged_store", 120), ("operations", 300), ("indexes", 120)]
    {
        for seed in 1..=12 {
            write(target, &format!("noise-{seed}"), &noise(seed, len + HEADER_LEN * seed as usize));
        }
    }
}
