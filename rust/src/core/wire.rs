//! The tags of the binary form. Every value begins with one; values that carry their type for lack of an annotation
//! have `EXPLICIT` set, so that the JSON form can be made from the binary one without knowing any class.

/// First byte of a payload that is an event, and of one that is another value.
pub const EVENT_MAGIC: u8 = 0xE1;
pub const VALUE_MAGIC: u8 = 0xE2;

pub const EXPLICIT: u8 = 0x80;

pub const NONE: u8 = 0;
pub const FALSE: u8 = 1;
pub const TRUE: u8 = 2;
/// Zigzag integer of 64 bits.
pub const INT: u8 = 3;
/// Longer integer: decimal or `0x` text, as in JSON.
pub const BIG: u8 = 4;
/// Eight bytes, little-endian.
pub const FLOAT: u8 = 5;
/// Length and UTF-8.
pub const TEXT: u8 = 6;
/// Length and WTF-8: a text with lone surrogates.
pub const LONE: u8 = 7;
pub const BYTES: u8 = 8;
pub const UUID: u8 = 9;
/// Microseconds since 1970, eight bytes little-endian: in UTC, without a zone, or ISO text where it is neither.
pub const UTC: u8 = 10;
pub const NAIVE: u8 = 11;
pub const MOMENT_TEXT: u8 = 12;
/// Zigzag days since 1970.
pub const DATE: u8 = 13;
/// Microseconds since midnight, or ISO text.
pub const TIME: u8 = 14;
pub const TIME_TEXT: u8 = 15;
/// Zigzag days, seconds, microseconds.
pub const DURATION: u8 = 16;
pub const DECIMAL: u8 = 17;
/// Count and items.
pub const LIST: u8 = 18;
pub const TUPLE: u8 = 19;
pub const SET: u8 = 20;
pub const FROZEN_SET: u8 = 21;
/// Count and pairs. Explicit: keys that are not text.
pub const DICT: u8 = 22;
/// Count and items of a named tuple.
pub const NAMED_TUPLE: u8 = 23;
/// Shape and one value per field.
pub const RECORD: u8 = 24;
/// The same, then a count of further names with their values.
pub const OPEN_RECORD: u8 = 25;
/// Place of a field that the object did not have.
pub const ABSENT: u8 = 26;
/// Type name and value.
pub const TAGGED: u8 = 27;
/// Metadata names with their values (as a `DICT`), then a record.
pub const EVENT: u8 = 28;

/// Metadata names by the byte that stands for them.
pub const META: [&str; 15] = [
    "event_id",
    "occurred_at",
    "event_type",
    "aggregate_id",
    "aggregate_type",
    "sequence_number",
    "actor_id",
    "schema_version",
    "version",
    "correlation_id",
    "causation_id",
    "tags",
    "metadata",
    "id",
    "timestamp",
];
