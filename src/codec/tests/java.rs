//! What Kafka's own Java code makes of payloads that writers rarely make: the verdicts below are those of Apache Kafka
//! 4.3.1's streams (`Compression.wrapForInput`), byte by byte.

use std::io::Write as _;

use edgelog_core::CompressionType::{self, Gzip, Lz4, Snappy, Zstd};

use super::{sample, undo, unhex};
use crate::codec::CodecError;
use crate::codec::xxhash::{xxh32, xxh64};

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
            ("a block longer than blocks may be", lz4(&vec![7; 70_000], 0x60, 0x40, END), Refuses),
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

/// What Kafka 4.3.1's own Java code (`Compression.wrapForOutput`) makes of the sample.
const WRITTEN: [(CompressionType, &str); 4] = [
    (
        Gzip,
        "\
        1f8b08000000000000ff95943b6e03310c447b1f43b54388d487b2db00b9478a2d02c476107f1a23770fab2c6318d2a8dec1\
        82a33733f7705e8ee7d377d887cb72f87a89611b6eef9fd725ec23c56db81e3f2ef6ed35fc6cee0f5259a54929fd69df9e68\
        f3aa2d4ab5abe5555b23edba37a4559b2b49f7bfce1a172a5dadf3561ab5ee0dce5bcbc4a837a1dc953a6bad90764f88ff9e\
        2ca2d6b84d608b0edbb31b3cb6e2b00dbcd58463cbd9611b44d2531b58b3e4c0d4aa3a6c83442a3b6c036b9632189b786c83\
        44aae06d6b38354b8ea08964c6cba613d86c74184da4c689b6551c9b35131ec93a319269029bc50c1e49c1cba638357b3178\
        228be265b3e4c0d4d20edfc832b191b6393035617c23ad9878db0a8ecd92036fa469e1b6d90d3037157c246562248d05cccd\
        18c32369d981dbc68c73b3acc32b691dc25712c726131b39d33679a0f60b3ec0a037480a0000",
    ),
    (
        Snappy,
        "\
        82534e4150505900000000010000000100000246c814a87b2273656e736f72223a2274656d702d30222c2276616c7565223a\
        302e302c22756e6974223a2243227d0a3e2b000032192b0c33372e33152c044622462c000034192c0c35372e36722c000031\
        192c0c36302e39152c4e84000033192c0c34362e32152c4e84001ddb0c31352e35722c001ddc0c35382e38152c4e84001ddc\
        0c38342e31152c4e84001ddc08322e34722b001ddb0c38352e37152c4e83001ddb00362eb7014e83001ddb043138aab70100\
        303db74e84001ddb0436353db74e84001ddc043633a6b7010434343db74e84001ddc2eb6014e83003db6043436a6b6010436\
        373db74e83001ddb0437313db74e84003db70435387d6e4e2c001ddb00322eb7014e84001ddc0437323db74e58003db70038\
        a6b6010431383db64e83001ddb0431313db64e83001ddb0037aab7010433373db74e84001ddb0437303db74e84003db70438\
        36a6b7010438353db74e84001ddc0036aa25050033aab7010437313db84e84001ddc00323db74e07013db70037a6b6010438\
        36a6230500352eb6014e83003db6043131a6b6010433393db64e06011ddb0035aa2405043434a624050432317d6d4e84001d\
        dc0437323db64e08013db6043135a6b7010433323db84e84005d920433323db84e84009d490431357d6e4e2c0036dc00d9dc\
        4e84001ddc0032aa25050434347d6e4e84001ddc0435303db84e84001ddc0433393db84e58001ddc043131a6b8010435373d\
        b84e84005d940438363db84e84001ddc0037a6b70100323db64e82001dda0037ae6e033c322e372c22756e6974223a224622\
        7d0a",
    ),
    (
        Lz4,
        "\
        04224d1860408287020000fc1c7b2273656e736f72223a2274656d702d30222c2276616c7565223a302e302c22756e697422\
        3a2243227d0a2b0016322b004533372e332c001f462c000016342c004f35372e362c000a16312c004536302e392c000f8400\
        0116332c004534362e322c000f84000107db004f31352e352c000a07dc004535382e382c000f84000107dc004538342e312c\
        000f84000107dc003f322e342b000a07db004538352e372c000f83000107db001836b7010f83000107db002f3138b7011817\
        30b7010f84000107db00273635b7010f84000107dc002f3633b70117273434b7010f84000107dc0008b6010f83000107b601\
        2f3436b60117273637b7010f83000107db00273731b7010f84000107b7012735386e030f2c000107db001832b7010f840001\
        07dc00273732b7010f58000107b7011f38b60117273138b6010f83000107db00273131b6010f83000107db001f37b7011827\
        3337b7010f84000107db00273730b7010f84000107b7012f3836b70117273835b7010f84000107dc001f362505181f33b701\
        18273731b8010f84000107dc001732b7010f07010107b7011f37b601172f38362305171835b6010f83000107b6012f3131b6\
        0117273339b6010f06010107db001f352405182f34342405172732316d030f84000107dc00273732b6010f08010107b6012f\
        3135b70117273332b8010f840001079202273332b8010f8400010749042731356e030f2c00010adc0006dc060f84000107dc\
        001f322505182734346e030f84000107dc00273530b8010f84000107dc00273339b8010f58000107dc0018316e030f2c0001\
        07dc00273537b8010f840001079402273836b8010f58000107dc001f37b701171732b6010f82000107da001f376e03191632\
        6e03502246227d0a00000000",
    ),
    (
        Zstd,
        "\
        28b52ffd00588c0800420d241a70690a0fe6c23ea8fa392502f5420db372851421c908aa0e7a4c8586b4ed6d5bf99b557ddc\
        2911bbecb6596d77bbacb67d5923d28febaa4de5b5d75eaf3e59b969bfb775aee6b6bd7176ed5715fb88a79d272e6ba2ef24\
        1f8e55d720e379382d278bda46f17e0c69e96c62dfec59a12197832c04120c31d0d041108c81000431080118102016729083\
        024502a190846ca8219458ee7f07b0334ad30112d80463540841425012bc456962f701c014f706289114a56a44e63ddfbbf3\
        6953f05d8abae7cbf5d764fced00b7acd73549e649f7d97dc1d8789bbe702eb7f10770ebfe813b15ebdabd5ee4eafcad00a6\
        e896edf2162d01746da4993add24a19363f49b35012f069f7e2e748f39a7ad02010000",
    ),
];

#[test]
fn payloads_that_java_wrote_are_read() {
    for (codec, hex) in WRITTEN {
        assert_eq!(undo(codec, &unhex(hex), 1 << 20), Ok(sample()), "{codec}");
    }
}
