//! Where an encoder writes to: the JSON form or the binary one.
use super::node::Seq;
use super::sink_binary::Binary;
use super::sink_json::Json;
use crate::core::calendar::Moment;

/// What is kept from one payload to the next, so that memory is asked for once.
#[derive(Default)]
pub struct Buffers {
    pub json: Json,
    pub binary: Binary,
    /// For the encoder's list of shapes.
    pub shapes: Vec<usize>,
}

/// A scalar that both forms write in their own way. `explicit` says that its type must be recognisable.
pub trait Sink: Default {
    const BINARY: bool;
    /// The kept sink of this form, and the list of shapes.
    fn of(buffers: &mut Buffers) -> (&mut Self, &mut Vec<usize>);
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
    /// A decimal's text, which is ASCII without anything to be escaped.
    fn decimal(&mut self, text: &[u8], explicit: bool);
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
