//! Payloads as Kafka's clients write them are read; all other bytes are refused, within the limit and without
//! a panic.

use edgelog_core::CompressionType;

use super::{CodecError, compress, decompress, feature_missing_to_write};

/// The verdicts of Kafka's own Java code.
#[cfg(all(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
mod java;

/// What the payloads below were made of.
fn sample() -> Vec<u8> {
    let line = |i: usize| {
        let unit = ["C", "F", "K"][i * i % 3];
        let value = i * i * 37 % 91;
        format!("{{\"sensor\":\"temp-{}\",\"value\":{value}.{},\"unit\":\"{unit}\"}}\n", i * 7 % 5, i * 13 % 10)
    };
    (0..60).map(line).collect::<String>().into_bytes()
}

/// `gzip -9`
const GZIP: &str = "\
    1f8b080000000000020395943b6e03310c447b1f43b54348d487b25b03b9478a2d02c476107f1a23770fab2c6304d2b0dec182a3\
    37338f70594e97f357d887eb72fc7c89611bee6f1fb725ec23c56db89ddeaffaed10be378f2729afd22c947fb5afff68cbaaad42\
    6da84dabb645da0d6fc8abb634e2e17f8db554a90eb5c65bedd48737186fbd5042bd3195a1d458eb95647842fcf36411b596ba03\
    5b34d80e136cd5609b786b19c7568ac13689a4a536b1a6c981a93531d826899464b04dac69ca606c6cb14d12298cb7ade3d43439\
    8c263225bc6ce2c0a6a393d0444a74b4ade1d8b499f04836c7486607368d193c928c974d706afa62f04456c1cba6c981a9e51dbe\
    91d5b191ba3930354ef8466a31f1b6551c9b2607de48d5c26dd31b606ec2f848b263249505cc4d19c323a9d9698e4cc2dc34ebf0\
    4a6a87f095c4b1b163233d6de3276a3f3ec0a037480a0000";

/// `lz4 -9 -B4 -BI -BX --content-size`: all the checksums that there are.
const LZ4: &str = "\
    04224d187c40480a000000000000b2cd010000fc1c7b2273656e736f72223a2274656d702d30222c2276616c7565223a302e302c\
    22756e6974223a2243227d0a2b0016322b004533372e332c001f462c000016342c004f35372e362c000a16312c004f36302e3984\
    000a16332c004f34362e3258000a07db004e31352e352c000fdc00034e35382e3884000fdc00034f38342e31dc00153e322e342b\
    000fdb00034e38352e3783000fdb00031836b7010fdb000c2f3138b701181730b7011f43b7010c3f352e39dc00152f3633b70117\
    4f34342e3593021508b6010fdb000c2f3436b601174f36372e349202154f37312e37db00152f3538b701171832b7010f92020c2f\
    37326e03171f38b601174f31382e329202152f31316d03171f37b701184f33372e319202152f37306e03181f36b701172f383525\
    05171f362505181f33b701182f37312505171f326d03171f37b601172f38362305172f35376d03172f3131b601172f3339240517\
    1f352405182f3434b601172f32312405172f37326e03181f35b701172f33322405172f33326e03172f3135b801172f3732250517\
    1f322505182f3434b801172f35302505174f33392e369402180fb801162f35372605172f38362605180fb701171f322405180f6e\
    03191632b601502246227d0aa7716b7000000000f3e0a822";

/// `zstd -19`: content size and checksum.
const ZSTD_19: &str = "\
    28b52ffd6448092d0800728d2316804d076ade0886adc404883a2c852bc93d6926930c1dbae9eaebbd3387c5662654bd5357b753\
    3d9599e86133bdd7bba613eb0bafdf6f3d1f7a9eefdf7b5fa6dee7af53df7bc5fbf64be7f3b5f8ef0b63de65581786fd89870bfd\
    fa974ff3f8f9ef5bfb3a516ff10e872bd779b3b1e7ab4065851116258c64011e128648ca31596028380b1219614f033108645449\
    a8111069e5fbdf0140292a6c3b12d881259861081a82b72986e0b61fbc7a527caf29ad52df5a659484bbcfb89b5caf3bfba4585c\
    4d5acf7d0fb72b4adbbaffb873ee6a5b9bd52ea975f7e64ad4b9f6f6d90fe3b1d758d7b6775c36a061ef747ec30e0f573e170fff\
    b8d31df5c3b0c8e6dcba0a6bdf1533";

/// `zstd -3 --no-check` of a pipe: neither, as a stream is written.
const ZSTD_3: &str = "\
    28b52ffd00588d0800420d241a70690a0fe6c23ea8fa392502f5420db372851421c908aa0e7a4c8586b4ed6d5bf99b557ddc2911\
    bbecb6596d77bbacb67d5923d28febaa4de5b5d75eaf3e59b969bfb775aee6b6bd7176ed5715fb88a79d272e6ba2ef241f8e55d7\
    20e379382d278bda46f17e0c69e96c62dfec59a12197832c04120c31d0d041108c81000431080118102016729083024502a19084\
    6ca8219458ee7f07b0334ad30112d80463540841425012bc456962f701c014f706289114a56a44e63ddfbbf36953f05d8abae7cb\
    f5d764fced00b7acd73549e649f7d97dc1d8789bbe702eb7f10770ebfe813b15ebdabd5ee4eafcad00a6e896edf2162d01746da4\
    993add24a19363f49b35012f069f7e2e748f39a7ad02";

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Snappy in both forms.
#[cfg(feature = "snappy")]
fn xerial(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compress(CompressionType::Snappy, payload, &mut out).unwrap();
    out
}

/// Each payload with its codec, as far as the codec is built in.
fn payloads() -> Vec<(CompressionType, Vec<u8>)> {
    let mut payloads = vec![(CompressionType::None, sample())];
    #[cfg(feature = "snappy")]
    payloads.push((CompressionType::Snappy, xerial(&sample())));
    #[cfg(feature = "snappy")]
    payloads.push((CompressionType::Snappy, snap::raw::Encoder::new().compress_vec(&sample()).unwrap()));
    if cfg!(feature = "gzip") {
        payloads.push((CompressionType::Gzip, unhex(GZIP)));
    }
    if cfg!(feature = "lz4") {
        payloads.push((CompressionType::Lz4, unhex(LZ4)));
    }
    if cfg!(feature = "zstd") {
        payloads.push((CompressionType::Zstd, unhex(ZSTD_19)));
        payloads.push((CompressionType::Zstd, unhex(ZSTD_3)));
    }
    payloads
}

/// Decompresses, and checks what holds for any bytes: the limit, for memory too.
fn undo(codec: CompressionType, payload: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    let result = decompress(codec, payload, &mut out, limit);
    assert!(out.capacity() <= limit, "{codec}: room for {} bytes where {limit} are allowed", out.capacity());
    result.map(|()| out)
}

/// Numbers that are always the same ones.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % below
    }
}

#[test]
fn payloads_of_all_codecs_are_read_up_to_exactly_their_length() {
    for (codec, payload) in payloads() {
        assert_eq!(undo(codec, &payload, sample().len()).unwrap(), sample(), "{codec}");
        assert_eq!(undo(codec, &payload, 1 << 20).unwrap(), sample(), "{codec}");
        for limit in [0, 1, 100, sample().len() - 1] {
            assert!(matches!(undo(codec, &payload, limit), Err(CodecError::TooLarge { .. })), "{codec}: {limit}");
        }
        let mut out = b"in front".to_vec();
        decompress(codec, &payload, &mut out, sample().len()).unwrap();
        assert_eq!(out, [b"in front", &sample()[..]].concat(), "{codec}");
    }
}

#[test]
fn what_is_cut_short_is_refused_or_short() {
    for (codec, payload) in payloads().into_iter().skip(1) {
        for len in 0..payload.len() {
            match undo(codec, &payload[..len], 1 << 20) {
                Err(CodecError::Corrupt { .. }) => {}
                // A stream of snappy has no end mark, and one of Zstandard may have no frames.
                Ok(short) => assert!(short.len() < sample().len(), "{codec}: {len} of {}", payload.len()),
                other => panic!("{codec}: {len} of {}: {other:?}", payload.len()),
            }
        }
    }
}

#[test]
fn hostile_payloads_end_in_an_error_or_in_no_more_than_the_limit() {
    let mut numbers = Numbers(0x1234_5678_9ABC_DEF1);
    let all = payloads();
    let rounds = if cfg!(debug_assertions) { 20_000 } else { 500_000 };
    for _ in 0..rounds {
        let (codec, payload) = &all[numbers.next(all.len())];
        let mut payload = payload.clone();
        for _ in 0..=numbers.next(4) {
            // Headers say the most: they are hit more often.
            let len = if numbers.next(2) == 0 { payload.len() } else { payload.len().min(24) };
            let at = numbers.next(len);
            match numbers.next(4) {
                0 => payload[at] ^= 1 << numbers.next(8),
                1 => payload[at] = numbers.next(256) as u8,
                2 => payload[at] = 0xFF,
                _ => drop(payload.splice(at..payload.len().min(at + numbers.next(9)), [0; 3])),
            }
        }
        let _ = undo(*codec, &payload, 1 + numbers.next(20_000));
        let noise: Vec<u8> = (0..numbers.next(200)).map(|_| numbers.next(256) as u8).collect();
        payload.truncate(numbers.next(20).min(payload.len()));
        payload.extend(noise);
        let _ = undo(*codec, &payload, numbers.next(20_000));
    }
}

#[test]
#[cfg(feature = "snappy")]
fn snappy_streams_have_the_bytes_that_java_writes() {
    let payload: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let stream = xerial(&payload);
    assert_eq!(stream[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let mut rest = &stream[16..];
    let mut blocks = Vec::new();
    while let Some((len, behind)) = rest.split_first_chunk() {
        let (block, behind) = behind.split_at(u32::from_be_bytes(*len) as usize);
        blocks.push(snap::raw::Decoder::new().decompress_vec(block).unwrap());
        rest = behind;
    }
    assert_eq!(blocks.iter().map(Vec::len).collect::<Vec<_>>(), [32768, 32768, 32768, 1696]);
    assert_eq!(blocks.concat(), payload);
    assert_eq!(undo(CompressionType::Snappy, &stream, payload.len()).unwrap(), payload);
}

#[test]
#[cfg(feature = "snappy")]
fn compressing_again_into_the_same_buffer_takes_no_memory() {
    let mut out = xerial(&sample());
    let (len, capacity) = (out.len(), out.capacity());
    for _ in 0..10 {
        out.clear();
        compress(CompressionType::Snappy, &sample(), &mut out).unwrap();
        assert_eq!((out.len(), out.capacity()), (len, capacity));
    }
}

#[test]
#[cfg(feature = "snappy")]
fn snappy_blocks_that_lie_are_refused() {
    let header = xerial(b"");
    let with = |blocks: &[u8]| [&header[..], blocks].concat();
    let huge = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0, 0];
    let huge_block = [&[0, 0, 0, 7][..], &huge].concat();
    for payload in [with(&[0; 4]), with(&[0, 0, 0, 9, 1]), Vec::new(), huge.to_vec(), with(&huge_block)] {
        assert!(matches!(undo(CompressionType::Snappy, &payload, 1 << 20), Err(CodecError::Corrupt { .. })));
    }
}

#[test]
#[cfg(feature = "gzip")]
fn gzip_members_and_zstd_frames_may_follow_each_other() {
    let twice = sample().repeat(2);
    assert_eq!(undo(CompressionType::Gzip, &unhex(GZIP).repeat(2), twice.len()).unwrap(), twice);
    #[cfg(feature = "zstd")]
    {
        let skippable = [0x5A, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frames = [&unhex(ZSTD_19)[..], &skippable, &unhex(ZSTD_3)].concat();
        assert_eq!(undo(CompressionType::Zstd, &frames, twice.len()).unwrap(), twice);
    }
}

#[test]
#[cfg(feature = "zstd")]
fn a_zstd_block_that_unfolds_to_gigabytes_is_refused_where_it_begins_to() {
    // One literal, then sequences of one repeated byte each: all three codes are of one symbol, the match code
    // that of 65539 bytes and more.
    let mut block = vec![1 << 3, b'a'];
    block.extend([255, 0, 0]); // 0x7F00 sequences
    block.extend([0b01_01_01_00, 1, 0, 52]);
    block.extend(vec![0xFF; 2 * 0x7F00 + 4000]);
    let head = (block.len() << 3 | 2 << 1 | 1) as u32;
    let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0, 0xF8];
    frame.extend(&head.to_le_bytes()[..3]);
    frame.extend(&block);
    for limit in [1000, 10 << 20] {
        assert!(undo(CompressionType::Zstd, &frame, limit).is_err());
    }
}

#[test]
fn codecs_that_are_not_there_say_what_would_bring_them() {
    for codec in CompressionType::ALL {
        match feature_missing_to_write(codec) {
            None => assert_eq!(compress(codec, b"x", &mut Vec::new()), Ok(())),
            Some(feature) => {
                assert_eq!(compress(codec, b"x", &mut Vec::new()), Err(CodecError::NotBuiltIn { codec, feature }));
            }
        }
    }
    if !cfg!(feature = "gzip") {
        let error = undo(CompressionType::Gzip, b"x", 10).unwrap_err();
        assert_eq!(error.to_string(), "gzip is not built in: enable the feature `gzip`");
    }
    if !cfg!(feature = "zstd-write") {
        let error = compress(CompressionType::Zstd, b"x", &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "zstd is not built in: enable the feature `zstd-write`");
    }
}

/// Payloads that compress well, badly and not at all, around the lengths at which blocks and pieces end.
fn contents() -> Vec<Vec<u8>> {
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let mut contents = vec![sample(), sample().repeat(200)];
    for len in [0, 1, 13, 100, (32 << 10) - 1, 32 << 10, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 300_000] {
        contents.push(vec![b'a'; len]);
        contents.push((0..len).map(|_| numbers.next(256) as u8).collect());
        contents.push((0..len).map(|_| b'a' + numbers.next(4) as u8).collect());
    }
    contents
}

#[test]
fn what_is_compressed_is_read_again_and_repeats_become_small() {
    for codec in CompressionType::ALL.into_iter().filter(|codec| feature_missing_to_write(*codec).is_none()) {
        for content in contents() {
            let mut out = b"in front".to_vec();
            compress(codec, &content, &mut out).unwrap();
            assert_eq!(&out[..8], b"in front", "{codec}");
            let payload = &out[8..];
            assert_eq!(undo(codec, payload, content.len()).unwrap(), content, "{codec}: {} bytes", content.len());
            // No codec makes much of what cannot be compressed.
            assert!(payload.len() <= content.len() + content.len() / 100 + 64, "{codec}: {}", payload.len());
        }
        let mut out = Vec::new();
        compress(codec, &sample().repeat(200), &mut out).unwrap();
        let ratio = out.len() * 100 / (sample().len() * 200);
        assert!(codec == CompressionType::None || ratio < 25, "{codec}: {ratio} percent are left");
    }
}

/// Other people's programs read what is written here.
#[test]
#[cfg(all(unix, feature = "gzip", feature = "lz4", feature = "zstd-write"))]
fn the_formats_own_programs_read_what_is_written() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    for (codec, program) in
        [(CompressionType::Gzip, "gzip"), (CompressionType::Lz4, "lz4"), (CompressionType::Zstd, "zstd")]
    {
        for content in contents() {
            let mut payload = Vec::new();
            compress(codec, &content, &mut payload).unwrap();
            let started = Command::new(program).arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let Ok(mut child) = started else {
                eprintln!("left out: there is no program {program} here");
                break;
            };
            let mut input = child.stdin.take().unwrap();
            let writing = std::thread::spawn(move || input.write_all(&payload));
            let output = child.wait_with_output().unwrap();
            writing.join().unwrap().unwrap();
            assert!(output.status.success(), "{program}");
            assert!(output.stdout == content, "{program}: {} bytes became {}", content.len(), output.stdout.len());
        }
    }
}
