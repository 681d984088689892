//! The binary form.
use super::node::Seq;
use super::sink::{Buffers, Sink};
use crate::core::binary::{write_bytes, write_few, write_varint, write_zigzag};
use crate::core::calendar::{DAY_US, Moment, days_from_civil, is_python_day};
use crate::core::wire;

#[derive(Default)]
pub struct Binary(pub Vec<u8>);

impl Binary {
    #[inline]
    fn tag(&mut self, tag: u8, explicit: bool) {
        self.0.push(if explicit { tag | wire::EXPLICIT } else { tag });
    }

    #[inline(always)]
    fn string(&mut self, tag: u8, explicit: bool, value: &[u8]) {
        let tag = if explicit { tag | wire::EXPLICIT } else { tag };
        if value.len() < 0x80 {
            self.0.reserve(value.len() + 2);
            self.0.extend_from_slice(&[tag, value.len() as u8]);
            write_few(&mut self.0, value);
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

    fn of(buffers: &mut Buffers) -> (&mut Self, &mut Vec<usize>) {
        (&mut buffers.binary, &mut buffers.shapes)
    }

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

    #[inline]
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
    fn decimal(&mut self, text: &[u8], explicit: bool) {
        self.string(wire::DECIMAL, explicit, text);
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
