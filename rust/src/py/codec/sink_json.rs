//! The JSON form.
use super::node::Seq;
use super::sink::{Buffers, Sink};
use crate::core::calendar::Moment;
use crate::core::{json_text, text};

/// The key of the type, and what follows it, in JSON.
const TAG: &[u8] = b"{\"$type\":";
const VALUE: &[u8] = b",\"value\":";

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

    fn of(buffers: &mut Buffers) -> (&mut Self, &mut Vec<usize>) {
        (&mut buffers.json, &mut buffers.shapes)
    }

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
        json_text::write_string(&mut self.0, value);
    }

    fn lone(&mut self, wtf8: &[u8]) {
        json_text::write_wtf8(&mut self.0, wtf8);
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
        self.quoted("timedelta", explicit, |out| json_text::write_duration(out, days, seconds, micros));
    }

    fn decimal(&mut self, text: &[u8], explicit: bool) {
        self.quoted("decimal", explicit, |out| out.extend_from_slice(text));
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
