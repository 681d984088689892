//! Strings and durations as JSON writes them.

use super::json::PLAIN;

/// Appends a JSON string; everything from U+0020 up except quote and backslash stays as it is.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if !PLAIN[*byte as usize] {
            out.extend_from_slice(&bytes[start..at]);
            escape(out, *byte);
            start = at + 1;
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        8 => b'b',
        12 => b'f',
        _ => return write_unit(out, u32::from(byte)),
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends the escape of one UTF-16 code unit.
fn write_unit(out: &mut Vec<u8>, unit: u32) {
    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
}

/// Appends a JSON string of WTF-8 bytes (UTF-8 in which lone surrogates occur), with those as escapes.
pub fn write_wtf8(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let lone = *first == 0xED && rest.len() >= 3 && rest[1] >= 0xA0;
        if lone {
            write_unit(out, 0xD000 | (u32::from(rest[1]) & 0x3F) << 6 | (u32::from(rest[2]) & 0x3F));
            rest = &rest[3..];
        } else if PLAIN[*first as usize] {
            out.push(*first);
            rest = &rest[1..];
        } else {
            escape(out, *first);
            rest = &rest[1..];
        }
    }
    out.push(b'"');
}

/// Appends an ISO 8601 duration in days and seconds, `-P1DT3600.5S`; `seconds` and `micros` count from 0 as in Python.
pub fn write_duration(out: &mut Vec<u8>, days: i64, seconds: i64, micros: i64) {
    let (mut days, mut seconds, mut micros) = (days, seconds, micros);
    if days < 0 {
        out.push(b'-');
        let total = -(seconds * 1_000_000 + micros);
        days = -days + total.div_euclid(86_400_000_000);
        let rest = total.rem_euclid(86_400_000_000);
        (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
    }
    let text = if micros == 0 { format!("P{days}DT{seconds}S") } else { format!("P{days}DT{seconds}.{micros:06}S") };
    out.extend_from_slice(text.as_bytes());
}

/// Reads a duration in days and seconds: (days, seconds, microseconds), all negative if it is. None for anything else.
pub fn parse_duration(text: &str) -> Option<(i64, i64, i64)> {
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (days, clock) = rest.strip_prefix('P')?.strip_suffix('S')?.split_once("DT")?;
    let (seconds, micros) = clock.split_once('.').map_or((clock, None), |(seconds, micros)| (seconds, Some(micros)));
    let number = |text: &str, longest: usize| {
        let good = !text.is_empty() && text.len() <= longest && text.bytes().all(|byte| byte.is_ascii_digit());
        good.then(|| text.parse::<i64>().ok()).flatten()
    };
    let micros = match micros {
        Some(text) if text.len() == 6 => number(text, 6)?,
        Some(_) => return None,
        None => 0,
    };
    Some((sign * number(days, 10)?, sign * number(seconds, 5)?, sign * micros))
}
