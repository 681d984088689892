//! The compact binary form: variable-length integers and lengths, read from bounded input.

use std::fmt;

/// Appends an unsigned integer, seven bits per byte, lowest first.
#[inline]
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed integer; small magnitudes are short.
#[inline]
pub fn write_zigzag(out: &mut Vec<u8>, value: i64) {
    write_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a length and the bytes.
#[inline]
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends bytes; quick for a few, where a call of the C library takes longer than copying.
#[inline(always)]
pub fn write_few(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        0..4 => bytes.iter().for_each(|byte| out.push(*byte)),
        4..8 => write_ends::<4>(out, bytes),
        8..16 => write_ends::<8>(out, bytes),
        16..=32 => write_ends::<16>(out, bytes),
        _ => out.extend_from_slice(bytes),
    }
}

/// Appends `N` to `2 * N` bytes: the first `N`, then the last `N`, of which some may be the same.
#[inline(always)]
fn write_ends<const N: usize>(out: &mut Vec<u8>, bytes: &[u8]) {
    let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) else { return };
    let end = out.len() + bytes.len();
    out.extend_from_slice(first);
    out.truncate(end - N);
    out.extend_from_slice(last);
}

/// What is wrong with a binary payload, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    pub at: usize,
    pub expected: &'static str,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damaged: {} expected at byte {}", self.expected, self.at)
    }
}

type Read<T> = Result<T, Damaged>;

/// Reads a payload front to back; never beyond its end.
pub struct Reader<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn fail<T>(&self, expected: &'static str) -> Read<T> {
        Err(Damaged { at: self.at, expected })
    }

    #[inline]
    pub fn byte(&mut self) -> Read<u8> {
        let Some(byte) = self.bytes.get(self.at) else { return self.fail("a byte") };
        self.at += 1;
        Ok(*byte)
    }

    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub fn varint(&mut self) -> Read<u64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7F);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return self.fail("an integer of 64 bits");
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    #[inline]
    pub fn zigzag(&mut self) -> Read<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Reads a number of items, each of which takes at least one of the bytes that are left.
    #[inline]
    pub fn count(&mut self) -> Read<usize> {
        let value = self.varint()?;
        let left = (self.bytes.len() - self.at) as u64;
        if value > left { self.fail("a shorter length") } else { Ok(value as usize) }
    }

    #[inline]
    pub fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let Some(found) = self.bytes.get(self.at..).and_then(|rest| rest.get(..length)) else {
            return self.fail("more bytes");
        };
        self.at += length;
        Ok(found)
    }

    #[inline]
    pub fn bytes(&mut self) -> Read<&'a [u8]> {
        let length = self.count()?;
        self.take(length)
    }

    #[inline]
    pub fn text(&mut self) -> Read<&'a str> {
        let found = self.bytes()?;
        std::str::from_utf8(found).or_else(|_| self.fail("UTF-8"))
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let found = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(found);
        Ok(array)
    }

    /// Takes the bytes behind `tag` and a length of one byte, if that is what comes next; else takes nothing.
    #[inline(always)]
    pub fn short(&mut self, tag: u8) -> Option<&'a [u8]> {
        let [first, length, rest @ ..] = self.bytes.get(self.at..)? else { return None };
        if *first != tag || *length >= 0x80 {
            return None;
        }
        let found = rest.get(..usize::from(*length))?;
        self.at += 2 + found.len();
        Some(found)
    }

    /// Returns the next `N` bytes without taking them; None if fewer are left.
    #[inline(always)]
    pub fn ahead<const N: usize>(&self) -> Option<&'a [u8; N]> {
        self.bytes.get(self.at..)?.first_chunk()
    }

    /// Takes the `N` bytes behind `tag`, if that is what comes next; else takes nothing.
    #[inline(always)]
    pub fn fixed<const N: usize>(&mut self, tag: u8) -> Option<[u8; N]> {
        let [first, rest @ ..] = self.bytes.get(self.at..)? else { return None };
        let found = rest.first_chunk()?;
        if *first != tag {
            return None;
        }
        self.at += 1 + N;
        Some(*found)
    }

    /// Takes exactly `piece` if it comes next.
    #[inline]
    pub fn take_exact(&mut self, piece: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(piece);
        self.at += if found { piece.len() } else { 0 };
        found
    }

    /// Returns bytes that were read before.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// Returns a reader of the same payload at an earlier place.
    pub fn at_place(&self, at: usize) -> Self {
        Self { bytes: self.bytes, at }
    }

    pub fn end(&self) -> Read<()> {
        if self.at == self.bytes.len() { Ok(()) } else { self.fail("the end") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_and_bytes_round_trip(unsigned: u64, signed: i64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            write_varint(&mut out, unsigned);
            write_zigzag(&mut out, signed);
            write_bytes(&mut out, &bytes);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(unsigned));
            prop_assert_eq!(reader.zigzag(), Ok(signed));
            prop_assert_eq!(reader.bytes(), Ok(&bytes[..]));
            prop_assert!(reader.end().is_ok());
        }

        #[test]
        fn few_bytes_are_written_like_many(before: Vec<u8>, bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut out = before.clone();
            write_few(&mut out, &bytes);
            prop_assert_eq!(out, [before, bytes].concat());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.varint().is_ok() && reader.text().is_ok() && reader.count().is_ok() {}
            let _ = Reader::new(&bytes).array::<16>();
        }
    }

    #[test]
    fn what_begins_with_a_tag_is_taken_whole_or_not_at_all() {
        let bytes = [6, 2, 1, 2, 9, 7, 8];
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.short(5), reader.fixed::<2>(5), reader.at), (None, None, 0));
        assert_eq!((reader.short(6), reader.at), (Some(&[1, 2][..]), 4));
        assert_eq!((reader.short(9), reader.fixed::<3>(9), reader.at), (None, None, 4));
        assert_eq!((reader.fixed::<2>(9), reader.at), (Some([7, 8]), 7));
        assert_eq!((reader.ahead::<1>(), Reader::new(&bytes).ahead()), (None, Some(&[6, 2])));
        assert_eq!((reader.short(0), reader.fixed::<0>(0)), (None, None));
        assert_eq!(Reader::new(&[6, 0x80, 1]).short(6), None);
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_before_anything_is_allocated() {
        assert_eq!(Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1]).count().unwrap_err().expected, "a shorter length");
        assert!(Reader::new(&[0xFF; 12]).varint().is_err());
    }
}
