//! Where an encoder writes to: the JSON form or the binary one.
use crate::core::binary::{write_bytes, write_varint, write_zigzag};
use crate::core::calendar::{DAY_US, Moment, days_from_civil, is_python_day};
use crate::core::{json, text, wire};
use crate::py::codec::node::Seq;

/// The key of the type, and what follows it, in JSON.
const TAG: &[u8] = b"{\"$type\":";
const VALUE: &[u8] = b",\"value\":";

/// A scalar that both forms write in their own way. `explicit` says that its type must be recognisable.
pub trait Sink {
    const BINARY: bool;
    fn out(&mut self) -> &mut Vec<u8>;
    fn none(&mut self);
    fn boolean(&mut self, value: bool);
    fn int(&mut self, value: i64);
    /// A longer integer, as decimal digits or `0x…`.
    fn big(&mut self, digits: &str);
    /// A finite float; explicit for one that must not be taken for an integer.
    fn float(&mut self, value: f64, explicit: bool);
    /// Infinity or not a number, as Python writes it.
    fn odd_float(&mut self, value: f64, name: &str);
    fn text(&mut self, value: &str);
    fn lone(&mut self, wtf8: &[u8]);
    fn bytes(&mut self, value: &[u8], explicit: bool);
    fn uuid(&mut self, value: &[u8; 16], explicit: bool);
    fn datetime(&mut self, moment: Moment, utc: bool, explicit: bool);
    fn datetime_text(&mut self, value: &str, explicit: bool);
    /// A time in UTC by its microseconds since 1970; false outside the years 1 to 9999.
    fn utc(&mut self, micros: i64) -> bool;
    fn date(&mut self, moment: Moment, explicit: bool);
    fn time(&mut self, moment: Moment, explicit: bool);
    fn time_text(&mut self, value: &str, explicit: bool);
    fn duration(&mut self, days: i64, seconds: i64, micros: i64, explicit: bool);
    fn decimal(&mut self, value: &str, explicit: bool);
    fn begin_items(&mut self, kind: Seq, count: usize, explicit: bool);
    fn begin_named_tuple(&mut self, count: usize);
    fn end_items(&mut self, kind: Seq, explicit: bool);
    /// A dictionary; as an object if all keys are text.
    fn begin_dict(&mut self, count: usize, object: bool);
    fn end_dict(&mut self, object: bool);
    fn int_key(&mut self, value: i64);
    /// Comma between items.
    fn next(&mut self, index: usize);
    /// Between key and value, and after the value, in a dictionary that is not an object.
    fn begin_pair(&mut self, index: usize, object: bool);
    fn between_pair(&mut self, object: bool);
    fn end_pair(&mut self, object: bool);
    fn begin_tagged(&mut self, name: &str);
    fn end_tagged(&mut self);
    /// What was precomputed for an enum member.
    fn raw<'a>(json: &'a [u8], binary: &'a [u8]) -> &'a [u8];
}

#[derive(Default)]
pub struct Json(pub Vec<u8>);

impl Json {
    /// Appends an ASCII text without anything to escape, tagged if explicit.
    fn quoted(&mut self, tag: &str, explicit: bool, write: impl FnOnce(&mut Vec<u8>)) {
        if explicit {
            self.begin_tagged(tag);
        }
        self.0.push(b'"');
        write(&mut self.0);
        self.0.push(b'"');
        if explicit {
            self.end_tagged();
        }
    }
}

impl Sink for Json {
    const BINARY: bool = false;

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    fn none(&mut self) {
        self.0.extend_from_slice(b"null");
    }

    fn boolean(&mut self, value: bool) {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn int(&mut self, value: i64) {
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn big(&mut self, digits: &str) {
        if digits.contains('x') {
            self.quoted("int", true, |out| out.extend_from_slice(digits.as_bytes()));
        } else {
            self.0.extend_from_slice(digits.as_bytes());
        }
    }

    fn float(&mut self, value: f64, explicit: bool) {
        let mut buffer = ryu::Buffer::new();
        let digits = buffer.format_finite(value).as_bytes();
        if explicit {
            self.quoted("float", true, |out| out.extend_from_slice(digits));
        } else {
            self.0.extend_from_slice(digits);
        }
    }

    fn odd_float(&mut self, _value: f64, name: &str) {
        self.quoted("float", true, |out| out.extend_from_slice(name.as_bytes()));
    }

    fn text(&mut self, value: &str) {
        json::write_string(&mut self.0, value);
    }

    fn lone(&mut self, wtf8: &[u8]) {
        json::write_wtf8(&mut self.0, wtf8);
    }

    fn bytes(&mut self, value: &[u8], explicit: bool) {
        self.quoted("bytes", explicit, |out| text::write_base64(out, value));
    }

    fn uuid(&mut self, value: &[u8; 16], explicit: bool) {
        self.quoted("uuid", explicit, |out| out.extend_from_slice(&text::format_uuid(value)));
    }

    fn datetime(&mut self, moment: Moment, utc: bool, explicit: bool) {
        self.quoted("datetime", explicit, |out| {
            moment.write_datetime(out);
            if utc {
                out.extend_from_slice(b"+00:00");
            }
        });
    }

    fn datetime_text(&mut self, value: &str, explicit: bool) {
        if explicit {
            self.begin_tagged("datetime");
        }
        self.text(value);
        if explicit {
            self.end_tagged();
        }
    }

    fn utc(&mut self, micros: i64) -> bool {
        let moment = Moment::from_micros(micros);
        if let Some(moment) = moment {
            self.datetime(moment, true, false);
        }
        moment.is_some()
    }

    fn date(&mut self, moment: Moment, explicit: bool) {
        self.quoted("date", explicit, |out| moment.write_date(out));
    }

    fn time(&mut self, moment: Moment, explicit: bool) {
        self.quoted("time", explicit, |out| moment.write_time(out));
    }

    fn time_text(&mut self, value: &str, explicit: bool) {
        if explicit {
            self.begin_tagged("time");
        }
        self.text(value);
        if explicit {
            self.end_tagged();
        }
    }

    fn duration(&mut self, days: i64, seconds: i64, micros: i64, explicit: bool) {
        self.quoted("timedelta", explicit, |out| json::write_duration(out, days, seconds, micros));
    }

    fn decimal(&mut self, value: &str, explicit: bool) {
        self.quoted("decimal", explicit, |out| out.extend_from_slice(value.as_bytes()));
    }

    fn begin_items(&mut self, kind: Seq, _count: usize, explicit: bool) {
        match kind {
            Seq::Tuple if explicit => self.begin_tagged("tuple"),
            Seq::Set if explicit => self.begin_tagged("set"),
            Seq::FrozenSet if explicit => self.begin_tagged("frozenset"),
            _ => {}
        }
        self.0.push(b'[');
    }

    fn begin_named_tuple(&mut self, _count: usize) {
        self.0.push(b'[');
    }

    fn end_items(&mut self, kind: Seq, explicit: bool) {
        self.0.push(b']');
        if explicit && kind != Seq::List {
            self.end_tagged();
        }
    }

    fn begin_dict(&mut self, _count: usize, object: bool) {
        if object {
            self.0.push(b'{');
        } else {
            self.begin_tagged("dict");
            self.0.push(b'[');
        }
    }

    fn end_dict(&mut self, object: bool) {
        if object {
            self.0.push(b'}');
        } else {
            self.0.push(b']');
            self.end_tagged();
        }
    }

    fn int_key(&mut self, value: i64) {
        self.0.push(b'"');
        self.int(value);
        self.0.push(b'"');
    }

    fn next(&mut self, index: usize) {
        if index > 0 {
            self.0.push(b',');
        }
    }

    fn begin_pair(&mut self, index: usize, object: bool) {
        self.next(index);
        if !object {
            self.0.push(b'[');
        }
    }

    fn between_pair(&mut self, object: bool) {
        self.0.push(if object { b':' } else { b',' });
    }

    fn end_pair(&mut self, object: bool) {
        if !object {
            self.0.push(b']');
        }
    }

    fn begin_tagged(&mut self, name: &str) {
        self.0.extend_from_slice(TAG);
        self.text(name);
        self.0.extend_from_slice(VALUE);
    }

    fn end_tagged(&mut self) {
        self.0.push(b'}');
    }

    fn raw<'a>(json: &'a [u8], _binary: &'a [u8]) -> &'a [u8] {
        json
    }
}

#[derive(Default)]
pub struct Binary(pub Vec<u8>);

impl Binary {
    #[inline]
    fn tag(&mut self, tag: u8, explicit: bool) {
        self.0.push(if explicit { tag | wire::EXPLICIT } else { tag });
    }

    #[inline]
    fn string(&mut self, tag: u8, explicit: bool, value: &[u8]) {
        let tag = if explicit { tag | wire::EXPLICIT } else { tag };
        if value.len() < 0x80 {
            self.0.reserve(value.len() + 2);
            self.0.extend_from_slice(&[tag, value.len() as u8]);
            self.0.extend_from_slice(value);
        } else {
            self.0.push(tag);
            write_bytes(&mut self.0, value);
        }
    }

    #[inline]
    fn fixed(&mut self, tag: u8, explicit: bool, value: i64) {
        let mut piece = [0; 9];
        piece[0] = if explicit { tag | wire::EXPLICIT } else { tag };
        piece[1..].copy_from_slice(&value.to_le_bytes());
        self.0.extend_from_slice(&piece);
    }
}

impl Sink for Binary {
    const BINARY: bool = true;

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    fn none(&mut self) {
        self.0.push(wire::NONE);
    }

    #[inline]
    fn boolean(&mut self, value: bool) {
        self.0.push(if value { wire::TRUE } else { wire::FALSE });
    }

    fn int(&mut self, value: i64) {
        let zigzag = ((value << 1) ^ (value >> 63)) as u64;
        if zigzag < 0x80 {
            self.0.extend_from_slice(&[wire::INT, zigzag as u8]);
        } else {
            self.0.push(wire::INT);
            write_varint(&mut self.0, zigzag);
        }
    }

    fn big(&mut self, digits: &str) {
        self.string(wire::BIG, false, digits.as_bytes());
    }

    #[inline]
    fn float(&mut self, value: f64, explicit: bool) {
        self.fixed(wire::FLOAT, explicit, value.to_bits() as i64);
    }

    fn odd_float(&mut self, value: f64, _name: &str) {
        self.float(value, true);
    }

    #[inline]
    fn text(&mut self, value: &str) {
        self.string(wire::TEXT, false, value.as_bytes());
    }

    fn lone(&mut self, wtf8: &[u8]) {
        self.string(wire::LONE, false, wtf8);
    }

    fn bytes(&mut self, value: &[u8], explicit: bool) {
        self.string(wire::BYTES, explicit, value);
    }

    fn uuid(&mut self, value: &[u8; 16], explicit: bool) {
        let mut piece = [0; 17];
        piece[0] = if explicit { wire::UUID | wire::EXPLICIT } else { wire::UUID };
        piece[1..].copy_from_slice(value);
        self.0.extend_from_slice(&piece);
    }

    fn datetime(&mut self, moment: Moment, utc: bool, explicit: bool) {
        self.fixed(if utc { wire::UTC } else { wire::NAIVE }, explicit, moment.to_micros());
    }

    fn datetime_text(&mut self, value: &str, explicit: bool) {
        self.string(wire::MOMENT_TEXT, explicit, value.as_bytes());
    }

    fn utc(&mut self, micros: i64) -> bool {
        self.fixed(wire::UTC, false, micros);
        is_python_day(micros.div_euclid(DAY_US))
    }

    fn date(&mut self, moment: Moment, explicit: bool) {
        self.tag(wire::DATE, explicit);
        write_zigzag(&mut self.0, days_from_civil(moment.year, moment.month, moment.day));
    }

    fn time(&mut self, moment: Moment, explicit: bool) {
        self.tag(wire::TIME, explicit);
        write_varint(&mut self.0, moment.time_micros() as u64);
    }

    fn time_text(&mut self, value: &str, explicit: bool) {
        self.string(wire::TIME_TEXT, explicit, value.as_bytes());
    }

    fn duration(&mut self, days: i64, seconds: i64, micros: i64, explicit: bool) {
        self.tag(wire::DURATION, explicit);
        write_zigzag(&mut self.0, days);
        write_varint(&mut self.0, seconds as u64);
        write_varint(&mut self.0, micros as u64);
    }

    #[inline]
    fn decimal(&mut self, value: &str, explicit: bool) {
        self.string(wire::DECIMAL, explicit, value.as_bytes());
    }

    fn begin_items(&mut self, kind: Seq, count: usize, explicit: bool) {
        let tag = match kind {
            Seq::List => wire::LIST,
            Seq::Tuple => wire::TUPLE,
            Seq::Set => wire::SET,
            Seq::FrozenSet => wire::FROZEN_SET,
        };
        self.tag(tag, explicit && kind != Seq::List);
        write_varint(&mut self.0, count as u64);
    }

    fn begin_named_tuple(&mut self, count: usize) {
        self.0.push(wire::NAMED_TUPLE);
        write_varint(&mut self.0, count as u64);
    }

    fn end_items(&mut self, _kind: Seq, _explicit: bool) {}

    fn begin_dict(&mut self, count: usize, object: bool) {
        self.tag(wire::DICT, !object);
        write_varint(&mut self.0, count as u64);
    }

    fn end_dict(&mut self, _object: bool) {}

    fn int_key(&mut self, value: i64) {
        self.int(value);
    }

    fn next(&mut self, _index: usize) {}

    fn begin_pair(&mut self, _index: usize, _object: bool) {}

    fn between_pair(&mut self, _object: bool) {}

    fn end_pair(&mut self, _object: bool) {}

    fn begin_tagged(&mut self, name: &str) {
        self.string(wire::TAGGED, false, name.as_bytes());
    }

    fn end_tagged(&mut self) {}

    fn raw<'a>(_json: &'a [u8], binary: &'a [u8]) -> &'a [u8] {
        binary
    }
}
