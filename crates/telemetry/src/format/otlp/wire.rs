//! Protobuf's wire format, as much of it as is written here.

pub(super) type Buffer = Vec<u8>;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

pub(super) fn varint(out: &mut Buffer, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn tag(out: &mut Buffer, field: u32, wire: u32) {
    varint(out, u64::from(field << 3 | wire));
}

/// A whole number, also when it is 0.
pub(super) fn varint_field(out: &mut Buffer, field: u32, n: u64) {
    tag(out, field, VARINT);
    varint(out, n);
}

/// A number of eight bytes, also when it is 0.
pub(super) fn fixed64(out: &mut Buffer, field: u32, n: u64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&n.to_le_bytes());
}

pub(super) fn fixed32(out: &mut Buffer, field: u32, n: u32) {
    tag(out, field, FIXED32);
    out.extend_from_slice(&n.to_le_bytes());
}

/// Bytes, also when there are none.
pub(super) fn bytes(out: &mut Buffer, field: u32, bytes: &[u8]) {
    tag(out, field, LENGTH);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Text; nothing when it is empty.
pub(super) fn text(out: &mut Buffer, field: u32, text: &str) {
    if !text.is_empty() {
        bytes(out, field, text.as_bytes());
    }
}

/// A message within this one.
pub(super) fn message(out: &mut Buffer, field: u32, fill: impl FnOnce(&mut Buffer)) {
    tag(out, field, LENGTH);
    // Nearly all are shorter than 128 bytes: the length has one byte, and is made room for when it has more.
    let at = out.len();
    out.push(0);
    fill(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
    } else {
        let mut prefix = Buffer::with_capacity(5);
        varint(&mut prefix, length as u64);
        out.splice(at..=at, prefix);
    }
}

/// A field that was read.
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    pub(super) fn number(&self) -> Option<u64> {
        if let Self::Number(n) = self { Some(*n) } else { None }
    }

    pub(super) fn bytes(&self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

/// The first field of this number in a message that comes from outside; `None` also when it is no message.
pub(super) fn field(mut left: &[u8], wanted: u32) -> Option<Field<'_>> {
    while !left.is_empty() {
        let tag = take_varint(&mut left)?;
        let value = match tag & 7 {
            0 => Field::Number(take_varint(&mut left)?),
            1 => Field::Bytes(left.split_off(..8)?),
            2 => {
                let length = usize::try_from(take_varint(&mut left)?).ok()?;
                Field::Bytes(left.split_off(..length)?)
            }
            5 => Field::Bytes(left.split_off(..4)?),
            _ => return None,
        };
        if tag >> 3 == u64::from(wanted) {
            return Some(value);
        }
    }
    None
}

fn take_varint(left: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let byte = *left.split_off_first()?;
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A field as it was found.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) enum Found {
        Number(u64),
        Bytes(Vec<u8>),
    }

    /// Every field of a message, in order. Panics over what is no message.
    pub(crate) fn fields(mut left: &[u8]) -> Vec<(u32, Found)> {
        let mut found = Vec::new();
        while !left.is_empty() {
            let tag = take_varint(&mut left);
            let value = match tag & 7 {
                0 => Found::Number(take_varint(&mut left)),
                1 => Found::Number(u64::from_le_bytes(left.split_off(..8).unwrap().try_into().unwrap())),
                2 => {
                    let length = take_varint(&mut left) as usize;
                    Found::Bytes(left.split_off(..length).unwrap().to_vec())
                }
                5 => Found::Number(u32::from_le_bytes(left.split_off(..4).unwrap().try_into().unwrap()).into()),
                other => panic!("wire type {other}"),
            };
            found.push(((tag >> 3) as u32, value));
        }
        found
    }

    fn take_varint(left: &mut &[u8]) -> u64 {
        let mut n = 0;
        for shift in 0.. {
            let byte = *left.split_off_first().unwrap();
            n |= u64::from(byte & 0x7f) << (7 * shift);
            if byte < 0x80 {
                break;
            }
        }
        n
    }

    /// The messages of a field.
    pub(crate) fn messages(message: &[u8], field: u32) -> Vec<Vec<u8>> {
        let found = fields(message).into_iter().filter(|(n, _)| *n == field);
        found
            .map(|(_, value)| match value {
                Found::Bytes(bytes) => bytes,
                Found::Number(n) => panic!("{n} is no message"),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(n: u64, m: u32, long in proptest::collection::vec(any::<u8>(), 0..40_000)) {
            let mut out = Buffer::new();
            varint_field(&mut out, 1, n);
            fixed64(&mut out, 2, n);
            fixed32(&mut out, 3, m);
            message(&mut out, 1000, |out| message(out, 4, |out| bytes(out, 5, &long)));
            let all = fields(&out);
            prop_assert_eq!(&all[..3], &[(1, Found::Number(n)), (2, Found::Number(n)), (3, Found::Number(m.into()))]);
            let inner = messages(&messages(&out, 1000)[0], 4);
            prop_assert_eq!(fields(&inner[0]), vec![(5, Found::Bytes(long))]);
        }
    }
}
