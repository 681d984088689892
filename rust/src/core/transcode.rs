//! The JSON form of a binary payload, made without knowing any class.

use super::binary::{Damaged, Reader};
use super::calendar::{DAY_US, Moment, civil_from_days};
use super::shapes::Shapes;
use super::{json_text, text, wire};

/// Deepest nesting of values.
const MAX_DEPTH: usize = 512;

/// Most bytes of JSON that are made of one payload, which says the names of a shape once however often it is used.
const MAX_JSON_BYTES: usize = 256 * 1024 * 1024;

type Read<T> = Result<T, Damaged>;

/// Appends the JSON of the next value. `shapes` has the shapes met so far and gets those met here.
pub fn value(reader: &mut Reader<'_>, shapes: &mut Shapes, out: &mut Vec<u8>) -> Read<()> {
    let mut transcoder = Transcoder { shapes, out };
    transcoder.value(reader, 0)
}

struct Transcoder<'s> {
    shapes: &'s mut Shapes,
    out: &'s mut Vec<u8>,
}

impl Transcoder<'_> {
    fn value(&mut self, reader: &mut Reader<'_>, depth: usize) -> Read<()> {
        if depth > MAX_DEPTH {
            return reader.fail("less nesting");
        }
        let byte = reader.byte()?;
        let (tag, explicit) = (byte & !wire::EXPLICIT, byte & wire::EXPLICIT != 0);
        match tag {
            wire::NONE => self.plain(b"null"),
            wire::FALSE => self.plain(b"false"),
            wire::TRUE => self.plain(b"true"),
            wire::INT => {
                let value = reader.zigzag()?;
                self.plain(itoa::Buffer::new().format(value).as_bytes());
            }
            wire::BIG => self.big(reader)?,
            wire::FLOAT => {
                let value = f64::from_le_bytes(reader.array()?);
                self.float(value, explicit);
            }
            wire::LIST | wire::NAMED_TUPLE => self.items(reader, depth)?,
            wire::TUPLE => self.tagged("tuple", explicit, |this| this.items(reader, depth))?,
            wire::SET => self.tagged("set", explicit, |this| this.items(reader, depth))?,
            wire::FROZEN_SET => self.tagged("frozenset", explicit, |this| this.items(reader, depth))?,
            wire::DICT if explicit => self.tagged("dict", true, |this| this.pairs(reader, depth))?,
            wire::DICT => self.object(reader, depth)?,
            wire::RECORD | wire::OPEN_RECORD => {
                self.record(reader, tag == wire::OPEN_RECORD, depth)?;
                self.out.push(b'}');
            }
            wire::TAGGED => {
                let name = reader.text()?;
                self.tagged(name, true, |this| this.value(reader, depth + 1))?;
            }
            wire::EVENT => self.event(reader, depth)?,
            _ => self.texts(reader, tag, explicit)?,
        }
        Ok(())
    }

    fn plain(&mut self, piece: &[u8]) {
        self.out.extend_from_slice(piece);
    }

    /// Runs `write` between the two halves of a tag, if there is to be one.
    fn tagged(&mut self, name: &str, explicit: bool, write: impl FnOnce(&mut Self) -> Read<()>) -> Read<()> {
        if explicit {
            self.plain(b"{\"$type\":");
            json_text::write_string(self.out, name);
            self.plain(b",\"value\":");
        }
        write(self)?;
        if explicit {
            self.out.push(b'}');
        }
        Ok(())
    }

    fn big(&mut self, reader: &mut Reader<'_>) -> Read<()> {
        let digits = reader.text()?;
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        if let Some(hex) = unsigned.strip_prefix("0x") {
            if hex.is_empty() || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return reader.fail("hexadecimal digits");
            }
            return self.tagged("int", true, |this| {
                json_text::write_string(this.out, digits);
                Ok(())
            });
        }
        if unsigned.is_empty() || unsigned.starts_with('0') || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
            return reader.fail("digits");
        }
        self.plain(digits.as_bytes());
        Ok(())
    }

    fn float(&mut self, value: f64, explicit: bool) {
        let mut buffer = ryu::Buffer::new();
        let digits = match value {
            value if value.is_nan() => "nan",
            f64::INFINITY => "inf",
            f64::NEG_INFINITY => "-inf",
            value => buffer.format_finite(value),
        };
        if explicit || !value.is_finite() {
            self.plain(b"{\"$type\":\"float\",\"value\":\"");
            self.plain(digits.as_bytes());
            self.plain(b"\"}");
        } else {
            self.plain(digits.as_bytes());
        }
    }

    /// Values that are strings in JSON.
    fn texts(&mut self, reader: &mut Reader<'_>, tag: u8, explicit: bool) -> Read<()> {
        let name = match tag {
            wire::TEXT | wire::LONE => return self.text(reader, tag),
            wire::BYTES => "bytes",
            wire::UUID => "uuid",
            wire::UTC | wire::NAIVE | wire::MOMENT_TEXT => "datetime",
            wire::DATE => "date",
            wire::TIME | wire::TIME_TEXT => "time",
            wire::DURATION => "timedelta",
            wire::DECIMAL => "decimal",
            _ => return reader.fail("a known tag"),
        };
        self.tagged(name, explicit, |this| this.text(reader, tag))
    }

    fn text(&mut self, reader: &mut Reader<'_>, tag: u8) -> Read<()> {
        match tag {
            wire::TEXT | wire::MOMENT_TEXT | wire::TIME_TEXT | wire::DECIMAL => {
                json_text::write_string(self.out, reader.text()?);
                return Ok(());
            }
            wire::LONE => {
                json_text::write_wtf8(self.out, reader.bytes()?);
                return Ok(());
            }
            _ => self.out.push(b'"'),
        }
        match tag {
            wire::BYTES => text::write_base64(self.out, reader.bytes()?),
            wire::UUID => self.out.extend_from_slice(&text::format_uuid(&reader.array()?)),
            wire::UTC | wire::NAIVE => {
                let Some(moment) = Moment::from_micros(i64::from_le_bytes(reader.array()?)) else {
                    return reader.fail("a time in the years 1 to 9999");
                };
                moment.write_datetime(self.out);
                self.plain(if tag == wire::UTC { b"+00:00" } else { b"" });
            }
            wire::DATE => {
                let Some((year, month, day)) = civil_from_days(reader.zigzag()?) else {
                    return reader.fail("a day in the years 1 to 9999");
                };
                Moment { year, month, day, hour: 0, minute: 0, second: 0, micro: 0 }.write_date(self.out);
            }
            wire::TIME => {
                let micros = reader.varint()?;
                match i64::try_from(micros).ok().filter(|micros| *micros < DAY_US).and_then(Moment::from_micros) {
                    Some(moment) => moment.write_time(self.out),
                    None => return reader.fail("a time of day"),
                }
            }
            wire::DURATION => {
                let (days, seconds, micros) = duration(reader)?;
                json_text::write_duration(self.out, days, seconds, micros);
            }
            _ => return reader.fail("a text"),
        }
        self.out.push(b'"');
        Ok(())
    }

    fn items(&mut self, reader: &mut Reader<'_>, depth: usize) -> Read<()> {
        self.out.push(b'[');
        for index in 0..reader.count()? {
            self.comma(index > 0);
            self.value(reader, depth + 1)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn comma(&mut self, wanted: bool) {
        if wanted {
            self.out.push(b',');
        }
    }

    fn pairs(&mut self, reader: &mut Reader<'_>, depth: usize) -> Read<()> {
        self.out.push(b'[');
        for index in 0..reader.count()? {
            self.comma(index > 0);
            self.out.push(b'[');
            self.value(reader, depth + 1)?;
            self.out.push(b',');
            self.value(reader, depth + 1)?;
            self.out.push(b']');
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, reader: &mut Reader<'_>, depth: usize) -> Read<()> {
        self.out.push(b'{');
        for index in 0..reader.count()? {
            self.comma(index > 0);
            match reader.byte()? {
                wire::INT => {
                    let key = reader.zigzag()?;
                    self.plain(format!("\"{key}\"").as_bytes());
                }
                tag => self.text(reader, tag)?,
            }
            self.out.push(b':');
            self.value(reader, depth + 1)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Appends a record without its closing brace.
    fn record(&mut self, reader: &mut Reader<'_>, open: bool, depth: usize) -> Read<()> {
        let place = self.shapes.place(reader)?;
        let mut header = reader.at_place(place);
        let known = self.shapes.names(&mut header)?;
        if place == reader.at {
            reader.at = header.at;
        }
        self.out.push(b'{');
        let mut first = true;
        for name in known {
            if reader.peek() == Some(wire::ABSENT) {
                reader.at += 1;
                continue;
            }
            self.member(reader, name, &mut first, depth)?;
        }
        for _ in 0..if open { reader.count()? } else { 0 } {
            let name = reader.text()?;
            self.member(reader, name, &mut first, depth)?;
        }
        Ok(())
    }

    fn member(&mut self, reader: &mut Reader<'_>, name: &str, first: &mut bool, depth: usize) -> Read<()> {
        if self.out.len() + name.len() > MAX_JSON_BYTES {
            return reader.fail("less than 256 MB of JSON");
        }
        self.comma(!*first);
        *first = false;
        json_text::write_string(self.out, name);
        self.out.push(b':');
        self.value(reader, depth + 1)
    }

    fn event(&mut self, reader: &mut Reader<'_>, depth: usize) -> Read<()> {
        let mut meta = Vec::new();
        std::mem::swap(self.out, &mut meta);
        for index in 0..reader.count()? {
            let Some(name) = wire::META.get(usize::from(reader.byte()?)) else { return reader.fail("a metadata name") };
            self.member(reader, name, &mut (index == 0), depth)?;
        }
        std::mem::swap(self.out, &mut meta);
        let open = match reader.byte()? {
            wire::RECORD => false,
            wire::OPEN_RECORD => true,
            _ => return reader.fail("a record"),
        };
        self.record(reader, open, depth)?;
        self.comma(self.out.last() != Some(&b'{'));
        self.plain(b"\"$meta\":{");
        self.out.extend_from_slice(&meta);
        self.plain(b"}}");
        Ok(())
    }
}

/// Takes the days, seconds and microseconds of a duration that Python can hold.
pub fn duration(reader: &mut Reader<'_>) -> Read<(i64, i64, i64)> {
    let (days, seconds, micros) = (reader.zigzag()?, reader.varint()?, reader.varint()?);
    if days.unsigned_abs() > 999_999_999 || seconds >= 86_400 || micros >= 1_000_000 {
        return reader.fail("a duration of at most 999999999 days");
    }
    Ok((days, seconds as i64, micros as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::json::Scanner;
    use proptest::prelude::*;

    fn transcoded(bytes: &[u8]) -> Read<String> {
        let mut out = Vec::new();
        let mut reader = Reader::new(bytes);
        value(&mut reader, &mut Shapes::default(), &mut out)?;
        String::from_utf8(out).or_else(|_| reader.fail("UTF-8"))
    }

    proptest! {
        #[test]
        fn any_bytes_give_json_or_an_error(bytes in proptest::collection::vec(prop_oneof![0_u8..30, any::<u8>()], 0..80)) {
            if let Ok(text) = transcoded(&bytes) {
                let mut scanner = Scanner::new(&text);
                prop_assert!(scanner.skip().is_ok(), "{}", text);
                prop_assert!(scanner.end().is_ok());
            }
        }
    }

    #[test]
    fn a_record_names_its_fields_once() {
        let record = [wire::RECORD, 0, 1, 1, b'a', wire::INT, 2];
        let again = [wire::RECORD, 1, wire::ABSENT];
        let list = [&[wire::LIST, 2][..], &record, &again].concat();
        assert_eq!(transcoded(&list).unwrap(), r#"[{"a":1},{}]"#);
        assert!(transcoded(&again).is_err());
    }

    #[test]
    fn names_repeated_by_reference_do_not_multiply_without_bound() {
        let name = "x".repeat(50_000);
        let mut bytes = vec![wire::LIST];
        crate::core::binary::write_varint(&mut bytes, 30_000);
        bytes.extend_from_slice(&[wire::RECORD, 0, 1]);
        crate::core::binary::write_bytes(&mut bytes, name.as_bytes());
        bytes.push(wire::NONE);
        let read_again = [bytes.clone(), [wire::RECORD, 1, wire::ABSENT].repeat(29_999)].concat();
        let written_again = [bytes, [wire::RECORD, 1, wire::NONE].repeat(29_999)].concat();
        assert_eq!(transcoded(&read_again).unwrap_err().expected, "fewer or shorter names");
        assert_eq!(transcoded(&written_again).unwrap_err().expected, "less than 256 MB of JSON");
    }

    #[test]
    fn the_shortest_duration_is_refused_like_the_longest() {
        for days in [i64::MIN, i64::MAX, -1_000_000_000] {
            let mut bytes = vec![wire::DURATION];
            crate::core::binary::write_zigzag(&mut bytes, days);
            bytes.extend_from_slice(&[0, 0]);
            assert!(transcoded(&bytes).is_err());
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(transcoded(&[wire::LIST, 1].repeat(600)).is_err());
    }
}
