//! UUIDs, decimals and byte strings as text.

/// Whether all bytes are below 128; quick for a few bytes, where the standard library's is made for many.
#[inline]
pub fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    if bytes.len() > 16 {
        return bytes.is_ascii();
    }
    // The first bytes and the last ones, which may be some of the same.
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u64::from_ne_bytes(*first) | u64::from_ne_bytes(*last)) & HIGH == 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u32::from_ne_bytes(*first) | u32::from_ne_bytes(*last)) & HIGH as u32 == 0;
    }
    bytes.iter().fold(0, |sum, byte| sum | byte) < 0x80
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Returns the canonical lower-case form of a UUID.
pub fn format_uuid(bytes: &[u8; 16]) -> [u8; 36] {
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    text
}

/// Writes `coefficient` × 10^`exponent` to the end of `room`, as Python's `str` does, and returns it; None where that
/// would be the scientific notation.
#[inline]
pub fn plain_decimal(negative: bool, coefficient: u64, exponent: isize, room: &mut [u8; 32]) -> Option<&[u8]> {
    let places = exponent.unsigned_abs();
    // Most have few places. At most five zeros may stand between the point and the first digit.
    if exponent > 0 || (places > 6 && places > coefficient.checked_ilog10()? as usize + 6) {
        return None;
    }
    let (mut left, mut free) = (coefficient, room.iter_mut().rev());
    let mut digit = || {
        let last = (left % 10) as u8;
        left /= 10;
        (b'0' + last, left == 0)
    };
    for _ in 0..places {
        *free.next()? = digit().0;
    }
    if places > 0 {
        *free.next()? = b'.';
    }
    loop {
        let (character, ends) = digit();
        *free.next()? = character;
        if ends {
            break;
        }
    }
    if negative {
        *free.next()? = b'-';
    }
    let start = free.len();
    Some(&room[start..])
}

/// The value of each hexadecimal digit in either case, 255 for other bytes.
const NIBBLE: [u8; 256] = {
    let mut table = [255; 256];
    let mut value = 0;
    while value < 16 {
        table[HEX[value] as usize] = value as u8;
        table[HEX[value].to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    table
};

/// Reads the hyphenated form of a UUID, in either case; None for anything else.
pub fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let text: &[u8; 36] = text.try_into().ok()?;
    let mut wrong = 0;
    let bytes = PLACES.map(|at| {
        let (high, low) = (NIBBLE[text[at] as usize], NIBBLE[text[at + 1] as usize]);
        wrong |= high | low;
        high << 4 | low & 15
    });
    let hyphens = [text[8], text[13], text[18], text[23]] == [b'-'; 4];
    (wrong < 16 && hyphens).then_some(bytes)
}

/// Whether a text is exactly what `format_uuid` writes.
pub fn is_canonical_uuid(text: &[u8]) -> bool {
    parse_uuid(text).is_some() && !text.iter().any(u8::is_ascii_uppercase)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends the padded standard base64 form of `bytes`.
pub fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let bits = u32::from(word[0]) << 16 | u32::from(word[1]) << 8 | u32::from(word[2]);
        let sextet = |shift: u32| ALPHABET[(bits >> shift & 63) as usize];
        out.push(sextet(18));
        out.push(sextet(12));
        out.push(if chunk.len() > 1 { sextet(6) } else { b'=' });
        out.push(if chunk.len() > 2 { sextet(0) } else { b'=' });
    }
}

fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

/// Reads padded standard base64; None for anything else.
pub fn read_base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for (index, chunk) in text.chunks(4).enumerate() {
        let last = index + 1 == text.len() / 4;
        let missing = if last { padding } else { 0 };
        let mut bits = 0;
        for byte in &chunk[..4 - missing] {
            bits = bits << 6 | sextet(*byte)?;
        }
        bits <<= 6 * missing;
        bytes.extend_from_slice(&bits.to_be_bytes()[1..4 - missing]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn uuids_round_trip(bytes: [u8; 16]) {
            let text = format_uuid(&bytes);
            prop_assert_eq!(parse_uuid(&text), Some(bytes));
            prop_assert!(is_canonical_uuid(&text));
        }

        #[test]
        fn ascii_is_told_like_the_standard_library_does(bytes in proptest::collection::vec(prop_oneof![9 => 0_u8..0x80, 1 => 0x80_u8..], 0..20)) {
            prop_assert_eq!(is_ascii(&bytes), bytes.is_ascii());
        }

        #[test]
        fn base64_round_trips(bytes: Vec<u8>) {
            let mut text = Vec::new();
            write_base64(&mut text, &bytes);
            prop_assert_eq!(read_base64(&text), Some(bytes));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = parse_uuid(&bytes);
            let _ = read_base64(&bytes);
        }
    }

    #[test]
    fn upper_case_uuids_are_read_but_not_canonical() {
        let text = b"A22AC845-8852-4BF8-B8FF-377429A11D77";
        assert!(parse_uuid(text).is_some());
        assert!(!is_canonical_uuid(text));
        assert_eq!(parse_uuid(b"a22ac845x8852-4bf8-b8ff-377429a11d77"), None);
        assert_eq!(parse_uuid(b"a22ac8458852-4bf8-b8ff-377429a11d77-"), None);
    }
}
