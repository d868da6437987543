//! What Kafka's own Java code makes of payloads that writers rarely make: the verdicts below are those of Apache Kafka
//! 4.3.1's streams (`Compression.wrapForInput`), byte by byte.

use std::io::Write as _;

use edgelog_core::CompressionType::{self, Gzip, Lz4, Snappy, Zstd};

use super::super::xxhash::{xxh32, xxh64};
use super::undo;
use crate::codec::CodecError;

const A: &[u8] = b"hello, this is the first part|";
const B: &[u8] = b"and this the second|";

#[derive(Clone, Copy)]
enum Java {
    /// It reads A.
    First,
    /// A and B.
    Both,
    /// Nothing comes out.
    Nothing,
    Refuses,
}
use Java::{Both, First, Nothing, Refuses};

fn check(codec: CompressionType, cases: &[(&str, Vec<u8>, Java)]) {
    for (name, payload, java) in cases {
        let read = undo(codec, payload, 1 << 20);
        match java {
            First => assert_eq!(read.as_deref(), Ok(A), "{codec}: {name}"),
            Both => assert_eq!(read, Ok([A, B].concat()), "{codec}: {name}"),
            Nothing => assert_eq!(read.as_deref(), Ok(&b""[..]), "{codec}: {name}"),
            Refuses => assert!(matches!(read, Err(CodecError::Corrupt { .. })), "{codec}: {name}: {read:?}"),
        }
    }
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn changed(mut payload: Vec<u8>, from_end: usize) -> Vec<u8> {
    let at = payload.len() - from_end;
    payload[at] ^= 1;
    payload
}

/// A gzip member with the header fields that `flags` names; `wrong` spoils the header's checksum.
fn member(data: &[u8], flags: u8, wrong: u16) -> Vec<u8> {
    let mut out = vec![0x1F, 0x8B, 8, flags, 0, 0, 0, 0, 0, 0xFF];
    if flags & 4 != 0 {
        out.extend(b"\x03\0abc");
    }
    if flags & 8 != 0 {
        out.extend(b"name\0");
    }
    if flags & 16 != 0 {
        out.extend(b"comment\0");
    }
    if flags & 2 != 0 {
        out.extend((crc32fast::hash(&out) as u16 ^ wrong).to_le_bytes());
    }
    let mut deflate = flate2::write::DeflateEncoder::new(out, flate2::Compression::new(6));
    deflate.write_all(data).unwrap();
    let mut out = deflate.finish().unwrap();
    out.extend(crc32fast::hash(data).to_le_bytes());
    out.extend((data.len() as u32).to_le_bytes());
    out
}

#[test]
fn gzip_is_read_as_java_reads_it() {
    let (a, b) = (member(A, 0, 0), member(B, 0, 0));
    let cut = |len: usize| join(&[&a, &b[..len]]);
    check(
        Gzip,
        &[
            ("one member", a.clone(), First),
            ("two members", join(&[&a, &b]), Both),
            ("an empty one between", join(&[&a, &member(b"", 0, 0), &b]), Both),
            ("zeros behind", join(&[&a, &[0; 8]]), First),
            ("many zeros behind", join(&[&a, &[0; 30]]), First),
            ("text behind", join(&[&a, b"garbage and more of it than 26 bytes, surely"]), First),
            ("a second member's header", cut(10), First),
            ("18 bytes of a second member", cut(18), First),
            ("19 bytes of a second member", cut(19), Refuses),
            ("25 bytes of a second member", cut(25), Refuses),
            ("a second member whose CRC is wrong", join(&[&a, &changed(b.clone(), 5)]), Refuses),
            ("a length that is wrong", changed(a.clone(), 1), Refuses),
            ("a CRC that is wrong", changed(a.clone(), 8), Refuses),
            ("a header alone", a[..10].to_vec(), Refuses),
            ("cut in its trailer", a[..a.len() - 3].to_vec(), Refuses),
            ("all header fields", member(A, 0x1E, 0), First),
            ("a header checksum that is wrong", member(A, 0x1E, 1), Refuses),
            ("a second one's header checksum that is wrong", join(&[&a, &member(B, 2, 1)]), First),
            ("reserved flags", member(A, 0xE0, 0), First),
            ("the flag for text", member(A, 1, 0), First),
        ],
    );
}

#[test]
fn snappy_is_read_as_java_reads_it() {
    const HEADER: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    let raw = |data: &[u8]| snap::raw::Encoder::new().compress_vec(data).unwrap();
    let block = |data: &[u8]| join(&[&(raw(data).len() as u32).to_be_bytes(), &raw(data)]);
    let a = join(&[HEADER, &block(A)]);
    let with_version = |version: &[u8; 4]| join(&[&HEADER[..8], version, &HEADER[12..]]);
    check(
        Snappy,
        &[
            ("a raw block", raw(A), First),
            ("a stream", a.clone(), First),
            ("two blocks", join(&[&a, &block(B)]), Both),
            ("two streams", join(&[&a, HEADER, &block(B)]), Both),
            ("a header alone", HEADER.to_vec(), Nothing),
            ("15 bytes of a header", HEADER[..15].to_vec(), Refuses),
            ("no bytes", Vec::new(), Refuses),
            ("one byte behind", join(&[&a, b"!"]), First),
            ("three bytes behind", join(&[&a, &[0; 3]]), First),
            ("four zeros behind", join(&[&a, &[0; 4]]), Refuses),
            ("a second header alone", join(&[&a, HEADER]), First),
            ("a second header cut short", join(&[&a, &HEADER[..15]]), Refuses),
            ("a first version of 0", join(&[&with_version(&[0; 4]), &block(A)]), First),
            ("a second version of 0", join(&[&a, &with_version(&[0; 4]), &block(B)]), Refuses),
            ("a second magic that is another", join(&[&a, &HEADER[..4], b"XXXXXXXXXXXX", &block(B)]), Both),
            ("a length below 0", join(&[HEADER, &[0xFF, 0xFF, 0xFF, 0xF0], &block(A)]), Refuses),
            ("a block that holds nothing", join(&[HEADER, &[0, 0, 0, 1, 0], &block(A)]), First),
            ("a raw block with a byte behind", join(&[&raw(A), b"!"]), Refuses),
        ],
    );
}

/// An LZ4 frame of one stored block.
fn lz4(data: &[u8], flags: u8, sizes: u8, behind: &[u8]) -> Vec<u8> {
    let mut descriptor = vec![flags, sizes];
    if flags & 8 != 0 {
        descriptor.extend(12_345_u64.to_le_bytes());
    }
    let check = (xxh32(&descriptor) >> 8) as u8;
    let len = (data.len() as u32 | 1 << 31).to_le_bytes();
    let sum = xxh32(data).to_le_bytes();
    let sum = if flags & 0x10 != 0 { &sum[..] } else { &[] };
    join(&[b"\x04\x22\x4D\x18", &descriptor, &[check], &len, data, sum, behind])
}

#[test]
fn lz4_is_read_as_java_reads_it() {
    const END: &[u8] = &[0; 4];
    let a = lz4(A, 0x60, 0x70, END);
    let mut wrong_header = a.clone();
    wrong_header[6] ^= 1;
    check(
        Lz4,
        &[
            ("a frame", a.clone(), First),
            ("zeros behind", join(&[&a, END]), First),
            ("text behind", join(&[&a, b"garbage"]), First),
            ("two frames", join(&[&a, &lz4(B, 0x60, 0x70, END)]), First),
            ("blocks that depend on each other", lz4(A, 0x40, 0x70, END), Refuses),
            ("a header checksum that is wrong", wrong_header, Refuses),
            ("block checksums", lz4(A, 0x70, 0x70, END), First),
            ("a block checksum that is wrong", changed(lz4(A, 0x70, 0x70, END), 5), Refuses),
            ("a content checksum that is wrong", lz4(A, 0x64, 0x70, b"\0\0\0\0abcd"), First),
            ("a content checksum cut short", lz4(A, 0x64, 0x70, b"\0\0\0\0ab"), Refuses),
            ("no content checksum", lz4(A, 0x64, 0x70, END), Refuses),
            ("a content size that is wrong", lz4(A, 0x68, 0x70, END), First),
            ("a dictionary", lz4(A, 0x61, 0x70, END), Refuses),
            ("a reserved flag", lz4(A, 0x62, 0x70, END), Refuses),
            ("version 2", lz4(A, 0xA0, 0x70, END), Refuses),
            ("a block size of 3", lz4(A, 0x60, 0x30, END), Refuses),
            ("reserved bits of sizes", lz4(A, 0x60, 0x71, END), Refuses),
            ("the highest bit of sizes", lz4(A, 0x60, 0xF0, END), Refuses),
            ("a stored block of nothing", lz4(A, 0x60, 0x70, &[0, 0, 0, 0x80, 1, 2, 3]), First),
            ("no end mark", lz4(A, 0x60, 0x70, &[]), Refuses),
            ("half an end mark", lz4(A, 0x60, 0x70, &[0; 2]), Refuses),
            ("a block longer than blocks may be", lz4(&[7; 70_000], 0x60, 0x40, END), Refuses),
            ("no block", lz4(b"", 0x60, 0x70, &[]), Nothing),
            ("no bytes", Vec::new(), Refuses),
        ],
    );
}

/// A Zstandard frame of one stored block; `checksum` is what is added to the right one.
fn zstd(data: &[u8], checksum: Option<u32>) -> Vec<u8> {
    let descriptor = 0xA0 | if checksum.is_some() { 4 } else { 0 };
    let head = (data.len() as u32) << 3 | 1;
    let sum = checksum.map_or(Vec::new(), |wrong| (xxh64(data) as u32).wrapping_add(wrong).to_le_bytes().to_vec());
    join(&[
        b"\x28\xB5\x2F\xFD",
        &[descriptor],
        &(data.len() as u32).to_le_bytes(),
        &head.to_le_bytes()[..3],
        data,
        &sum,
    ])
}

#[test]
fn zstd_is_read_as_java_reads_it() {
    const SKIPPABLE: &[u8] = b"\x5A\x2A\x4D\x18\x03\0\0\0abc";
    let (a, b) = (zstd(A, None), zstd(B, None));
    let windowed = join(&[b"\x28\xB5\x2F\xFD\0\x88", &((A.len() as u32) << 3 | 1).to_le_bytes()[..3], A]);
    let mut reserved = a.clone();
    reserved[4] |= 8;
    let claims = |len: u8| {
        let mut frame = a.clone();
        frame[5] = len;
        frame
    };
    check(
        Zstd,
        &[
            ("a frame", a.clone(), First),
            ("a frame without its size", windowed, First),
            ("a checksum", zstd(A, Some(0)), First),
            ("a checksum that is wrong", zstd(A, Some(1)), Refuses),
            (
                "a checksum cut short",
                {
                    let whole = zstd(A, Some(0));
                    whole[..whole.len() - 2].to_vec()
                },
                Refuses,
            ),
            ("two frames", join(&[&a, &zstd(B, Some(0))]), Both),
            ("a second checksum that is wrong", join(&[&a, &zstd(B, Some(1))]), Refuses),
            ("a skippable frame between", join(&[&a, SKIPPABLE, &b]), Both),
            ("a skippable frame first", join(&[SKIPPABLE, &a]), First),
            ("a skippable frame last", join(&[&a, SKIPPABLE]), First),
            ("a skippable frame alone", SKIPPABLE.to_vec(), Nothing),
            ("a skippable frame alone, cut short", SKIPPABLE[..9].to_vec(), Refuses),
            ("a skippable frame cut short behind", join(&[&a, &SKIPPABLE[..9]]), First),
            ("three bytes of a skippable frame behind", join(&[&a, &SKIPPABLE[..3]]), First),
            ("a magic behind", join(&[&a, &b[..4]]), First),
            ("a byte of a magic behind", join(&[&a, &b[..1]]), First),
            ("a second frame's header behind", join(&[&a, &b[..6]]), First),
            ("zeros behind", join(&[&a, &[0; 8]]), Refuses),
            ("text behind", join(&[&a, b"garbage!"]), Refuses),
            ("two bytes behind", join(&[&a, b"xx"]), Refuses),
            ("a frame cut short", a[..a.len() - 3].to_vec(), Refuses),
            ("a size that is more", claims(100), Refuses),
            ("a size that is less", claims(10), Refuses),
            ("a reserved flag", reserved, Refuses),
            ("no bytes", Vec::new(), Nothing),
            ("a frame of nothing", zstd(b"", None), Nothing),
        ],
    );
    // Of a second frame that is cut in a stored block, what is there comes out.
    let cut = join(&[&a, &b[..b.len() - 3]]);
    assert_eq!(undo(Zstd, &cut, 1 << 20), Ok([A, &B[..B.len() - 3]].concat()));
}
