//! Zstandard frames (RFC 8878), reading only.
//!
//! A decoder of our own. It takes no memory that the caller's limit does not cover: a window, or a block of some
//! kilobytes that unfolds to gigabytes, is refused where it passes the limit. No bytes make it panic. It writes
//! straight into the output and looks back into it, so it needs no window. Of the kept libraries, ruzstd bounds its
//! window from 0.9 on, which needs Rust 1.87 where 1.85 is promised here; 0.8 reserves the whole window that a frame's
//! header claims.
//!
//! What is accepted is what Java's clients accept (zstd-jni): frames one behind the other, skippable ones among them,
//! no dictionaries, and a checksum of the content that matches where there is one. Windows beyond 128 MiB, which Java
//! refuses, are read: here they cost nothing.
//!
//! | part | what |
//! |---|---|
//! | frame | magic `28 B5 2F FD`, descriptor, window (skipped), dictionary, size; blocks; half of the content's XXH64 |
//! | block | 3 bytes: last, type (raw, one byte repeated, compressed), size; then its bytes |
//! | compressed block | literals, Huffman-coded or not; then sequences: copy literals, then bytes from so far back |
//! | sequences | three codes a sequence, each drawn from a finite-state table; their bits are read from the back |

use edgelog_core::CompressionType;

use super::error::CodecError;
use super::output::Output;
use super::xxhash::xxh64;

const MAGIC: u32 = 0xFD2F_B528;
const MAGIC_SKIPPABLE: u32 = 0x184D_2A50;
const BLOCK_BYTES_MAX: usize = 128 << 10;

type Result<T> = std::result::Result<T, CodecError>;

/// Reads one frame or several, one behind the other. Once a frame is whole, what follows may be cut short: Java takes
/// what comes out of it up to there.
pub(super) fn decompress(payload: &[u8], out: &mut Output<'_>) -> Result<()> {
    let mut input = Input(payload);
    let mut frames = 0;
    while !input.0.is_empty() {
        match frame(&mut input, out)? {
            Frame::Whole => frames += 1,
            Frame::Cut if frames == 0 => return Err(ends_early()),
            Frame::Cut => break,
        }
    }
    Ok(())
}

/// Whether the bytes reached to the end of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Whole,
    Cut,
}

/// Whether `bytes`, too few for a magic, are the start of one.
fn begins_a_magic(bytes: &[u8]) -> bool {
    let magic = MAGIC.to_le_bytes();
    let skippable = MAGIC_SKIPPABLE.to_le_bytes();
    magic.starts_with(bytes) || (bytes[0] & 0xF0 == skippable[0] && skippable[1..].starts_with(&bytes[1..]))
}

fn frame(input: &mut Input<'_>, out: &mut Output<'_>) -> Result<Frame> {
    let before = input.0;
    let Ok(magic) = input.little_endian(4) else {
        return if begins_a_magic(before) { Ok(Frame::Cut) } else { Err(corrupt("no magic")) };
    };
    let magic = magic as u32;
    if magic & !0xF == MAGIC_SKIPPABLE {
        let skipped = input.little_endian(4).and_then(|len| input.take(len as usize));
        return Ok(if skipped.is_ok() { Frame::Whole } else { Frame::Cut });
    }
    if magic != MAGIC {
        return Err(corrupt("no magic"));
    }
    let Ok(descriptor) = input.byte() else { return Ok(Frame::Cut) };
    let single_segment = descriptor & 0x20 != 0;
    if descriptor & 0x08 != 0 {
        return Err(corrupt("unknown flags in its frame"));
    }
    // The window is not looked at: everything that was put out is at hand anyway.
    if !single_segment && input.byte().is_err() {
        return Ok(Frame::Cut);
    }
    let Ok(dictionary) = input.little_endian([0, 1, 2, 4][usize::from(descriptor & 3)]) else {
        return Ok(Frame::Cut);
    };
    if dictionary != 0 {
        return Err(corrupt("it wants a dictionary"));
    }
    let size_bytes = match (descriptor >> 6, single_segment) {
        (0, single_segment) => usize::from(single_segment),
        (code, _) => 1 << code,
    };
    let Ok(content_bytes) = input.little_endian(size_bytes) else { return Ok(Frame::Cut) };
    let content_bytes = match size_bytes {
        0 => None,
        2 => Some(content_bytes + 256),
        _ => Some(content_bytes),
    };
    if let Some(claimed) = content_bytes {
        // A block has a header of three bytes.
        if claimed / BLOCK_BYTES_MAX as u64 > input.0.len() as u64 / 3 {
            return Err(corrupt("the frame claims more than its blocks can hold"));
        }
        if claimed > out.room() as u64 {
            return Err(out.too_large((out.len() as u64).saturating_add(claimed)));
        }
    }
    let start = out.len();
    let mut decoder = Decoder::new(start);
    loop {
        let Ok(head) = input.little_endian(3) else { return Ok(Frame::Cut) };
        let head = head as usize;
        let (last, kind, len) = (head & 1 != 0, head >> 1 & 3, head >> 3);
        if len > BLOCK_BYTES_MAX {
            return Err(corrupt("a block is longer than blocks may be"));
        }
        match kind {
            0 => {
                let Ok(stored) = input.take(len) else {
                    out.append(input.0)?;
                    return Ok(Frame::Cut);
                };
                out.append(stored)?;
            }
            1 => {
                let Ok(byte) = input.byte() else { return Ok(Frame::Cut) };
                out.grow(len)?.fill(byte);
            }
            2 => {
                let Ok(block) = input.take(len) else { return Ok(Frame::Cut) };
                decoder.block(Input(block), out)?;
            }
            _ => return Err(corrupt("a block of a kind that does not exist")),
        }
        if last {
            break;
        }
    }
    if content_bytes.is_some_and(|claimed| claimed != (out.len() - start) as u64) {
        return Err(corrupt("the frame is not as long as it claims"));
    }
    if descriptor & 0x04 != 0 {
        let Ok(checksum) = input.little_endian(4) else { return Ok(Frame::Cut) };
        if checksum as u32 != xxh64(out.since(start)) as u32 {
            return Err(corrupt("the checksum of its content does not match"));
        }
    }
    Ok(Frame::Whole)
}

/// What one block leaves to the next of its frame.
struct Decoder {
    /// Where in the output the frame begins: nothing is copied from before.
    frame_start: usize,
    literals: Vec<u8>,
    huffman: Option<Huffman>,
    tables: [Option<FseTable>; 3],
    /// The offsets used last.
    recent: [usize; 3],
}

// The three codes of a sequence, in the order in which their tables come.
const LITERALS_LEN: usize = 0;
const OFFSET: usize = 1;
const MATCH_LEN: usize = 2;

impl Decoder {
    fn new(frame_start: usize) -> Self {
        Self { frame_start, literals: Vec::new(), huffman: None, tables: [const { None }; 3], recent: [1, 4, 8] }
    }

    fn block(&mut self, mut input: Input<'_>, out: &mut Output<'_>) -> Result<()> {
        self.literals(&mut input, out)?;
        self.sequences(&mut input, out)
    }

    /// Decodes the literals of a block into `self.literals`.
    fn literals(&mut self, input: &mut Input<'_>, out: &Output<'_>) -> Result<()> {
        let first = *input.0.first().ok_or_else(ends_early)?;
        let (kind, format) = (first & 3, first >> 2 & 3);
        if kind < 2 {
            let len = match format {
                0 | 2 => input.little_endian(1)? >> 3,
                1 => input.little_endian(2)? >> 4,
                _ => input.little_endian(3)? >> 4,
            } as usize;
            check_literals_len(len, out)?;
            self.literals.clear();
            if kind == 0 {
                self.literals.extend_from_slice(input.take(len)?);
            } else {
                self.literals.resize(len, input.byte()?);
            }
            return Ok(());
        }
        let (head_bytes, bits) = [(3, 10), (3, 10), (4, 14), (5, 18)][usize::from(format)];
        let head = input.little_endian(head_bytes)? >> 4;
        let (len, packed_len) = ((head & ((1 << bits) - 1)) as usize, (head >> bits) as usize);
        check_literals_len(len, out)?;
        let mut packed = Input(input.take(packed_len)?);
        if kind == 2 {
            self.huffman = Some(Huffman::read(&mut packed)?);
        }
        let Some(huffman) = &self.huffman else { return Err(corrupt("literals without a table")) };
        self.literals.clear();
        self.literals.resize(len, 0);
        if format == 0 {
            return huffman.decode(packed.0, &mut self.literals);
        }
        let lens = [packed.little_endian(2)?, packed.little_endian(2)?, packed.little_endian(2)?];
        let mut rest = &mut self.literals[..];
        for stream_len in lens {
            let (piece, behind) = rest
                .split_at_mut_checked(len.div_ceil(4))
                .ok_or_else(|| corrupt("too few literals for four streams"))?;
            huffman.decode(packed.take(stream_len as usize)?, piece)?;
            rest = behind;
        }
        huffman.decode(packed.0, rest)
    }

    /// Executes the sequences of a block.
    fn sequences(&mut self, input: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        let block_start = out.len();
        let mut literals = &self.literals[..];
        let count = match input.byte()? {
            255 => input.little_endian(2)? as usize + 0x7F00,
            high @ 128.. => usize::from(high - 128) << 8 | usize::from(input.byte()?),
            few => usize::from(few),
        };
        if count > 0 {
            let modes = input.byte()?;
            if modes & 3 != 0 {
                return Err(corrupt("unknown flags in its sequences"));
            }
            for (code, shift) in [(LITERALS_LEN, 6), (OFFSET, 4), (MATCH_LEN, 2)] {
                read_table(&mut self.tables[code], modes >> shift & 3, &CODES[code], input)?;
            }
            let [Some(literal_lens), Some(offsets), Some(match_lens)] = &self.tables else {
                return Err(corrupt("sequences without tables"));
            };
            let mut bits = BitsFromBack::new(input.0)?;
            let mut literal_state = literal_lens.first(&mut bits);
            let mut offset_state = offsets.first(&mut bits);
            let mut match_state = match_lens.first(&mut bits);
            for index in 0..count {
                let offset_code = u32::from(offsets.symbol(offset_state));
                let offset_value = (1 << offset_code) + bits.read(offset_code);
                let (base, extra) = MATCH_LENS[usize::from(match_lens.symbol(match_state))];
                let match_len = base as usize + bits.read(u32::from(extra)) as usize;
                let (base, extra) = LITERALS_LENS[usize::from(literal_lens.symbol(literal_state))];
                let literals_len = base as usize + bits.read(u32::from(extra)) as usize;
                if index + 1 < count {
                    literal_state = literal_lens.next(literal_state, &mut bits);
                    match_state = match_lens.next(match_state, &mut bits);
                    offset_state = offsets.next(offset_state, &mut bits);
                }
                if bits.left < 0 {
                    return Err(ends_early());
                }

                let Some((copied, rest)) = literals.split_at_checked(literals_len) else {
                    return Err(corrupt("a sequence wants more literals than there are"));
                };
                literals = rest;
                if out.len() - block_start + literals_len + match_len > BLOCK_BYTES_MAX {
                    return Err(corrupt("a block unfolds to more than blocks may"));
                }
                out.append(copied)?;
                let offset = recall(&mut self.recent, offset_value as usize, literals_len == 0);
                if offset == 0 || offset > out.len() - self.frame_start {
                    return Err(corrupt("a sequence copies from before the frame"));
                }
                out.repeat(offset, match_len)?;
            }
            if bits.left != 0 {
                return Err(corrupt("bits are left over behind the sequences"));
            }
        } else if !input.0.is_empty() {
            return Err(corrupt("bytes are left over behind the literals"));
        }
        if out.len() - block_start + literals.len() > BLOCK_BYTES_MAX {
            return Err(corrupt("a block unfolds to more than blocks may"));
        }
        out.append(literals)
    }
}

fn check_literals_len(len: usize, out: &Output<'_>) -> Result<()> {
    if len > BLOCK_BYTES_MAX {
        return Err(corrupt("a block has more literals than it may"));
    }
    if len > out.room() {
        return Err(out.too_large((out.len() + len) as u64));
    }
    Ok(())
}

/// Turns the value of an offset code into an offset: 1 to 3 stand for the offsets used last. Answers 0 where
/// that has no meaning.
fn recall(recent: &mut [usize; 3], value: usize, without_literals: bool) -> usize {
    let [first, second, third] = *recent;
    let index = value + usize::from(without_literals);
    let (offset, moved) = match (value, index) {
        (4.., _) => (value - 3, [value - 3, first, second]),
        (_, 1) => (first, *recent),
        (_, 2) => (second, [second, first, third]),
        (_, 3) => (third, [third, first, second]),
        (_, _) => (first - 1, [first - 1, first, second]),
    };
    // An offset of 0 ends the decoding, so none ever becomes a recent one.
    *recent = moved;
    offset
}

/// What there is to know of one of the three codes beforehand.
struct Code {
    accuracy_max: u32,
    symbol_max: u8,
    predefined_accuracy: u32,
    predefined: &'static [i16],
}

const CODES: [Code; 3] = [
    Code {
        accuracy_max: 9,
        symbol_max: 35,
        predefined_accuracy: 6,
        predefined: &[
            4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1,
            -1,
        ],
    },
    Code {
        accuracy_max: 8,
        symbol_max: 31,
        predefined_accuracy: 5,
        predefined: &[1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1],
    },
    Code {
        accuracy_max: 9,
        symbol_max: 52,
        predefined_accuracy: 6,
        predefined: &[
            1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
        ],
    },
];

/// For each code of a number of literals: the least number, and how many bits are added to it.
#[rustfmt::skip]
const LITERALS_LENS: [(u32, u8); 36] = [
    (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0), (11, 0),
    (12, 0), (13, 0), (14, 0), (15, 0), (16, 1), (18, 1), (20, 1), (22, 1), (24, 2), (28, 2), (32, 3), (40, 3),
    (48, 4), (64, 6), (128, 7), (256, 8), (512, 9), (1024, 10), (2048, 11), (4096, 12), (8192, 13),
    (16384, 14), (32768, 15), (65536, 16),
];

/// The same for the length of a match.
#[rustfmt::skip]
const MATCH_LENS: [(u32, u8); 53] = [
    (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0), (11, 0), (12, 0), (13, 0), (14, 0),
    (15, 0), (16, 0), (17, 0), (18, 0), (19, 0), (20, 0), (21, 0), (22, 0), (23, 0), (24, 0), (25, 0), (26, 0),
    (27, 0), (28, 0), (29, 0), (30, 0), (31, 0), (32, 0), (33, 0), (34, 0), (35, 1), (37, 1), (39, 1), (41, 1),
    (43, 2), (47, 2), (51, 3), (59, 3), (67, 4), (83, 4), (99, 5), (131, 7), (259, 8), (515, 9), (1027, 10), (2051, 11),
    (4099, 12), (8195, 13), (16387, 14), (32771, 15), (65539, 16),
];

/// Makes `table` what `mode` says: predefined, one symbol only, described, or as it was.
fn read_table(table: &mut Option<FseTable>, mode: u8, code: &Code, input: &mut Input<'_>) -> Result<()> {
    match mode {
        0 => *table = Some(FseTable::new(code.predefined, code.predefined_accuracy)?),
        1 => {
            let symbol = input.byte()?;
            if symbol > code.symbol_max {
                return Err(corrupt("a symbol that its code does not have"));
            }
            *table = Some(FseTable { accuracy: 0, cells: vec![FseCell { symbol, bits: 0, base: 0 }] });
        }
        2 => *table = Some(FseTable::read(input, code.accuracy_max, code.symbol_max)?),
        _ => {}
    }
    Ok(())
}

/// A finite-state table: each state stands for a symbol and says how to find the next state.
struct FseTable {
    accuracy: u32,
    cells: Vec<FseCell>,
}

#[derive(Clone, Copy, Default)]
struct FseCell {
    symbol: u8,
    bits: u8,
    base: u16,
}

impl FseTable {
    /// Reads the description of a table: how probable each symbol is, in bits from the front.
    fn read(input: &mut Input<'_>, accuracy_max: u32, symbol_max: u8) -> Result<Self> {
        let mut bits = BitsFromFront { bytes: input.0, position: 0 };
        let accuracy = bits.read(4) + 5;
        if accuracy > accuracy_max {
            return Err(corrupt("a table is finer than it may be"));
        }
        let mut probabilities = [0_i16; 256];
        let mut symbols = 0;
        let mut remaining = 1_i32 << accuracy;
        while remaining > 0 {
            if symbols > usize::from(symbol_max) || bits.position > 8 * bits.bytes.len() {
                return Err(corrupt("a table does not end"));
            }
            // Small values take one bit less, as far as there are numbers to spare.
            let width = 32 - (remaining + 1).leading_zeros();
            let short = (1 << width) - 1 - (remaining + 1) as u32;
            let mut value = bits.peek(width);
            let low = value & ((1 << (width - 1)) - 1);
            if low < short {
                value = low;
                bits.position += width as usize - 1;
            } else {
                if value != low {
                    value -= short;
                }
                bits.position += width as usize;
            }
            let probability = value as i16 - 1;
            remaining -= i32::from(probability.abs());
            probabilities[symbols] = probability;
            symbols += 1;
            // Behind an improbable symbol: how many more there are.
            let mut repeat = if probability == 0 { 3 } else { 0 };
            while repeat == 3 {
                repeat = bits.read(2);
                symbols += repeat as usize;
                if symbols > 256 {
                    return Err(corrupt("a table has too many symbols"));
                }
            }
        }
        if remaining != 0 || symbols > usize::from(symbol_max) + 1 {
            return Err(corrupt("the probabilities of a table do not add up"));
        }
        input.take(bits.position.div_ceil(8))?;
        Self::new(&probabilities[..symbols], accuracy)
    }

    fn new(probabilities: &[i16], accuracy: u32) -> Result<Self> {
        let size = 1_usize << accuracy;
        let mut cells = vec![FseCell::default(); size];
        let mut next = [0_u16; 256];
        // Symbols less probable than one state take one each, from the end.
        let mut end = size;
        for (symbol, _) in probabilities.iter().enumerate().filter(|(_, probability)| **probability == -1) {
            end = end.checked_sub(1).ok_or_else(|| corrupt("a table has too many symbols"))?;
            cells[end].symbol = symbol as u8;
            next[symbol] = 1;
        }
        // The others are spread over the rest.
        let step = (size >> 1) + (size >> 3) + 3;
        let mut at = 0;
        for (symbol, probability) in probabilities.iter().enumerate().filter(|(_, probability)| **probability > 0) {
            next[symbol] = *probability as u16;
            for _ in 0..*probability {
                cells[at].symbol = symbol as u8;
                loop {
                    at = (at + step) & (size - 1);
                    if at < end {
                        break;
                    }
                }
            }
        }
        if at != 0 {
            return Err(corrupt("the probabilities of a table do not add up"));
        }
        for cell in &mut cells {
            let state = &mut next[usize::from(cell.symbol)];
            if *state == 0 {
                return Err(corrupt("the probabilities of a table do not add up"));
            }
            let bits = accuracy - state.ilog2();
            cell.bits = bits as u8;
            cell.base = ((u32::from(*state) << bits) - size as u32) as u16;
            *state += 1;
        }
        Ok(Self { accuracy, cells })
    }

    fn first(&self, bits: &mut BitsFromBack<'_>) -> usize {
        bits.read(self.accuracy) as usize
    }

    fn symbol(&self, state: usize) -> u8 {
        self.cells[state].symbol
    }

    fn next(&self, state: usize, bits: &mut BitsFromBack<'_>) -> usize {
        let cell = self.cells[state];
        usize::from(cell.base) + bits.read(u32::from(cell.bits)) as usize
    }
}

/// A prefix code for literals: the next bits, as many as the longest code has, are the index of a cell.
struct Huffman {
    bits_max: u32,
    /// Symbol, and how many bits its code really has.
    cells: Vec<(u8, u8)>,
}

impl Huffman {
    const BITS_MAX: u32 = 11;

    fn read(input: &mut Input<'_>) -> Result<Self> {
        let mut weights = [0_u8; 256];
        let mut count = 0;
        match input.byte()? {
            direct @ 128.. => {
                count = usize::from(direct - 127);
                let packed = input.take(count.div_ceil(2))?;
                for (index, weight) in weights[..count].iter_mut().enumerate() {
                    *weight = packed[index / 2] >> (4 * (1 - index % 2)) & 15;
                }
            }
            len => {
                let mut packed = Input(input.take(usize::from(len))?);
                let table = FseTable::read(&mut packed, 6, Self::BITS_MAX as u8)?;
                let mut bits = BitsFromBack::new(packed.0)?;
                // Two states take turns, until one finds no bits left; the other then has one symbol to give.
                let mut states = [table.first(&mut bits), table.first(&mut bits)];
                let mut push = |weight| {
                    // One more follows, which is not written.
                    let slot = weights[..255].get_mut(count).ok_or_else(|| corrupt("too many literals in its code"))?;
                    *slot = weight;
                    count += 1;
                    Ok(())
                };
                for turn in (0..2).cycle() {
                    push(table.symbol(states[turn]))?;
                    states[turn] = table.next(states[turn], &mut bits);
                    if bits.left < 0 {
                        push(table.symbol(states[1 - turn]))?;
                        break;
                    }
                }
            }
        }
        Self::new(&mut weights, count)
    }

    /// Makes the code of `count` weights and the one that follows from them.
    fn new(weights: &mut [u8; 256], count: usize) -> Result<Self> {
        let sum: u32 = weights[..count].iter().filter(|weight| **weight > 0).map(|weight| 1 << (weight - 1)).sum();
        if sum == 0 || sum.ilog2() + 1 > Self::BITS_MAX {
            return Err(corrupt("the weights of its code do not add up"));
        }
        let bits_max = sum.ilog2() + 1;
        let missing = (1 << bits_max) - sum;
        if !missing.is_power_of_two() {
            return Err(corrupt("the weights of its code do not add up"));
        }
        weights[count] = missing.ilog2() as u8 + 1;
        let mut cells = Vec::with_capacity(1 << bits_max);
        // Long codes come first; among equals, small symbols do.
        for weight in 1..=bits_max as u8 {
            for (symbol, _) in weights[..=count].iter().enumerate().filter(|(_, other)| **other == weight) {
                let cell = (symbol as u8, bits_max as u8 + 1 - weight);
                cells.resize(cells.len() + (1 << (weight - 1)), cell);
            }
        }
        if cells.len() == 1 << bits_max {
            Ok(Self { bits_max, cells })
        } else {
            Err(corrupt("the weights of its code do not add up"))
        }
    }

    /// Decodes one stream, which has exactly the symbols for `out`.
    fn decode(&self, stream: &[u8], out: &mut [u8]) -> Result<()> {
        let mut bits = BitsFromBack::new(stream)?;
        for symbol in out {
            let (literal, len) = self.cells[bits.peek(self.bits_max) as usize];
            *symbol = literal;
            bits.left -= isize::from(len);
            if bits.left < 0 {
                return Err(ends_early());
            }
        }
        if bits.left == 0 { Ok(()) } else { Err(corrupt("bits are left over behind the literals")) }
    }
}

/// What is left of the bytes.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(ends_early)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A number of up to eight bytes.
    fn little_endian(&mut self, len: usize) -> Result<u64> {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(self.take(len)?);
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Bits from the lowest of the first byte on; zeros behind the last.
struct BitsFromFront<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl BitsFromFront<'_> {
    fn peek(&self, count: u32) -> u32 {
        (eight_bytes(self.bytes, self.position / 8) >> (self.position % 8)) as u32 & ((1 << count) - 1)
    }

    fn read(&mut self, count: u32) -> u32 {
        let value = self.peek(count);
        self.position += count as usize;
        value
    }
}

/// Bits from the highest of the last byte on, behind the first that is set; zeros before the first byte.
struct BitsFromBack<'a> {
    bytes: &'a [u8],
    /// Bits not read; negative as soon as there were too few.
    left: isize,
}

impl<'a> BitsFromBack<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self> {
        match bytes.last() {
            None | Some(0) => Err(corrupt("a bit stream does not say where it ends")),
            Some(last) => Ok(Self { bytes, left: bytes.len() as isize * 8 - last.leading_zeros() as isize - 1 }),
        }
    }

    /// The next `count` bits, 32 at most.
    #[inline]
    fn peek(&self, count: u32) -> u32 {
        let start = self.left - count as isize;
        let mask = (1_u64 << count) - 1;
        let value = if start >= 0 {
            eight_bytes(self.bytes, start as usize / 8) >> (start as usize % 8)
        } else if self.left > 0 {
            (eight_bytes(self.bytes, 0) & ((1 << self.left) - 1)) << -start
        } else {
            0
        };
        (value & mask) as u32
    }

    #[inline]
    fn read(&mut self, count: u32) -> u32 {
        let value = self.peek(count);
        self.left -= count as isize;
        value
    }
}

/// The eight bytes from `at` on, zeros where there are fewer.
#[inline]
fn eight_bytes(bytes: &[u8], at: usize) -> u64 {
    if let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        return u64::from_le_bytes(*eight);
    }
    let mut eight = [0; 8];
    let rest = bytes.get(at..).unwrap_or_default();
    eight[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(eight)
}

fn ends_early() -> CodecError {
    corrupt("the frame ends too early")
}

fn corrupt(reason: &str) -> CodecError {
    CodecError::corrupt(CompressionType::Zstd, reason)
}
