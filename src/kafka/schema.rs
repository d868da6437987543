//! What lengths a response may claim: checked before anything of it is decoded.
//!
//! The codec makes room for as many elements as the length of an array says, before it reads the first of them. A
//! length that is wrong would ask for terabytes, and memory that is not there ends the whole program: no error, no
//! unwinding. So nothing is decoded until each of its lengths was seen to be covered by bytes that are there.
//!
//! The schemas are those of the versions that are spoken; a tag that none of them knows is skipped by its length.

/// What a response may hold apart from text and records: each byte of it becomes some 20 in memory. Enough for 20,000
/// partitions in the topics of one device.
pub(super) const STRUCTURE_BYTES_MAX: usize = 1 << 20;

/// Fields in their order, then those with tags.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResponseSchema {
    pub(super) fields: &'static [Field],
    /// `None` where the message is of the time before tags.
    pub(super) tagged: Option<&'static [(u32, Field)]>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Field {
    /// So many bytes.
    Fixed(usize),
    /// A compact string, compact bytes, or records: a length, and that many bytes.
    Text,
    /// A compact array.
    Array(&'static ResponseSchema),
    /// A compact array of values of so many bytes each.
    Numbers(usize),
    Struct(&'static ResponseSchema),
    /// Only up to this version, and only from this one on.
    Until(i16, &'static Field),
    Since(i16, &'static Field),
    /// An array of strings, both of the time before compact ones.
    OldTexts,
}

use Field::{Array, Fixed, Numbers, OldTexts, Since, Struct, Text, Until};

pub(super) const fn of(fields: &'static [Field]) -> ResponseSchema {
    ResponseSchema { fields, tagged: Some(&[]) }
}

pub(super) const fn tagged(fields: &'static [Field], tagged: &'static [(u32, Field)]) -> ResponseSchema {
    ResponseSchema { fields, tagged: Some(tagged) }
}

impl ResponseSchema {
    /// Walks a response in `version`; returns how many bytes follow it.
    pub(super) fn walk(&self, response: &[u8], version: i16) -> Result<usize, String> {
        let mut walk = Walk { left: response, version, structure_left: STRUCTURE_BYTES_MAX };
        walk.schema(self)?;
        Ok(walk.left.len())
    }
}

struct Walk<'a> {
    left: &'a [u8],
    version: i16,
    structure_left: usize,
}

impl<'a> Walk<'a> {
    fn schema(&mut self, schema: &ResponseSchema) -> Result<(), String> {
        schema.fields.iter().try_for_each(|field| self.field(field))?;
        let Some(known) = schema.tagged else { return Ok(()) };
        for _ in 0..self.varint()? {
            let (tag, len) = (self.varint()?, self.varint()?);
            let Some((_, field)) = known.iter().find(|(known, _)| *known == tag) else {
                self.skip(len as usize)?;
                continue;
            };
            let before = self.left.len();
            self.field(field)?;
            let taken = before - self.left.len();
            if taken != len as usize {
                return Err(format!("tag {tag} takes {taken} bytes and says {len}"));
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field) -> Result<(), String> {
        match *field {
            Fixed(len) => self.structure(len).map(drop),
            Text => match self.varint()? {
                0 => Ok(()),
                len => self.skip(len as usize - 1),
            },
            Array(element) => (1..self.varint()?).try_for_each(|_| self.schema(element)),
            Numbers(len) => (1..self.varint()?).try_for_each(|_| self.structure(len).map(drop)),
            Struct(schema) => self.schema(schema),
            Until(last, field) if self.version <= last => self.field(field),
            Since(first, field) if self.version >= first => self.field(field),
            Until(..) | Since(..) => Ok(()),
            OldTexts => {
                let count = u32::from_be_bytes(self.structure(4)?.try_into().expect("four bytes"));
                (0..count).try_for_each(|_| {
                    let len = u16::from_be_bytes(self.structure(2)?.try_into().expect("two bytes"));
                    self.skip(len as usize)
                })
            }
        }
    }

    /// An unsigned number of at most 32 bits, seven to a byte.
    fn varint(&mut self) -> Result<u32, String> {
        let mut value = 0;
        for n in 0..5 {
            let byte = self.structure(1)?[0];
            value |= u32::from(byte & 0x7F) << (7 * n);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than five bytes".to_owned())
    }

    fn structure(&mut self, len: usize) -> Result<&'a [u8], String> {
        let Some(left) = self.structure_left.checked_sub(len) else {
            return Err(format!("more than {STRUCTURE_BYTES_MAX} bytes next to text and records"));
        };
        self.structure_left = left;
        let (taken, left) = self.left.split_at_checked(len).ok_or_else(|| self.ends_before(len))?;
        self.left = left;
        Ok(taken)
    }

    /// Text and records, and tags that no schema knows.
    fn skip(&mut self, len: usize) -> Result<(), String> {
        self.left = self.left.get(len..).ok_or_else(|| self.ends_before(len))?;
        Ok(())
    }

    fn ends_before(&self, len: usize) -> String {
        format!("{len} bytes should follow where {} are left", self.left.len())
    }
}
