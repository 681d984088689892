//! Python values from native parts; shared by both decoders.
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDate, PyDateTime, PyDelta, PyFrozenSet, PyInt, PyList, PySet, PyTime, PyTuple};

use smallvec::SmallVec;

use super::fault::{Res, fail, fault};
use super::known::Known;
use super::node::{Node, Seq};
use crate::core::calendar::{self, Moment, Zone};
use crate::core::{json_text, text};
use crate::py::{event, values};

type Value<'py> = Res<Bound<'py, PyAny>>;

/// A text that may have lone surrogates.
pub fn lone<'py>(py: Python<'py>, wtf8: &[u8], known: &Known) -> Value<'py> {
    let bytes = PyBytes::new(py, wtf8);
    Ok(bytes.call_method1(intern!(py, "decode"), (intern!(py, "utf-8"), &known.encode_error))?)
}

pub fn datetime<'py>(py: Python<'py>, moment: Moment, utc: bool, known: &Known) -> Value<'py> {
    let zone = utc.then(|| known.utc.bind(py));
    let Moment { year, month, day, hour, minute, second, micro } = moment;
    Ok(PyDateTime::new(py, year, month, day, hour, minute, second, micro, zone)?.into_any())
}

pub fn date(py: Python<'_>, year: i32, month: u8, day: u8) -> Value<'_> {
    Ok(PyDate::new(py, year, month, day)?.into_any())
}

pub fn time(py: Python<'_>, hour: u8, minute: u8, second: u8, micro: u32) -> Value<'_> {
    Ok(PyTime::new(py, hour, minute, second, micro, None)?.into_any())
}

pub fn duration(py: Python<'_>, days: i64, seconds: i64, micros: i64) -> Value<'_> {
    let narrow = |part: i64| i32::try_from(part).map_err(|_| fault("a duration out of range"));
    Ok(PyDelta::new(py, narrow(days)?, narrow(seconds)?, narrow(micros)?, true)?.into_any())
}

/// A decimal of its text, which must be one that `str(Decimal)` writes.
pub fn decimal<'py>(text: &Bound<'py, PyAny>, known: &Known) -> Value<'py> {
    let made = known.make_decimal.bind(text.py()).call1((text,));
    made.or_else(|_| fail(format!("not a decimal: {}", values::shown(text))))
}

/// An integer of its decimal digits.
pub fn int<'py>(py: Python<'py>, digits: &str) -> Value<'py> {
    if let Ok(small) = digits.parse::<i64>() {
        return Ok(small.into_pyobject(py)?.into_any());
    }
    if digits.len() > 4000 {
        return fail("an integer of more than 4000 digits");
    }
    Ok(py.get_type::<PyInt>().call1((digits,))?)
}

/// An integer of `0x…`.
pub fn hex<'py>(py: Python<'py>, digits: &str) -> Value<'py> {
    let plain = digits.strip_prefix('-').unwrap_or(digits).strip_prefix("0x").unwrap_or("");
    if plain.is_empty() || !plain.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return fail("hexadecimal digits expected");
    }
    Ok(py.get_type::<PyInt>().call1((digits, 16))?)
}

/// A finite float of JSON digits.
pub fn float(digits: &str) -> Res<f64> {
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => fail("a float out of range"),
    }
}

/// The value of a text under a node whose values are written as text.
pub fn of_text<'py>(py: Python<'py>, node: &Node, text: &str, known: &Known) -> Value<'py> {
    let shown = || text.chars().take(60).collect::<String>();
    match node {
        Node::Uuid => match text::parse_uuid(text.as_bytes()) {
            Some(bytes) => Ok(values::uuid_from_bytes(py, bytes)?),
            None => fail(format!("not a uuid: {:?}", shown())),
        },
        Node::Datetime => match calendar::parse_datetime(text.as_bytes()) {
            Some((moment, zone)) => datetime(py, moment, zone == Zone::Utc, known),
            None => Ok(known.parse_datetime.bind(py).call1((text,))?),
        },
        Node::Date => match calendar::parse_date(text.as_bytes()) {
            Some((year, month, day)) => date(py, year, month, day),
            None => fail(format!("not a date: {:?}", shown())),
        },
        Node::Time => match calendar::parse_time(text.as_bytes()) {
            Some((hour, minute, second, micro)) => time(py, hour, minute, second, micro),
            None => Ok(known.parse_time.bind(py).call1((text,))?),
        },
        Node::Timedelta => match json_text::parse_duration(text) {
            Some((days, seconds, micros)) => duration(py, days, seconds, micros),
            None => fail(format!("not a timedelta: {:?}", shown())),
        },
        Node::Decimal => decimal(event::text(py, text.as_bytes())?.as_any(), known),
        Node::Bytes => match text::read_base64(text.as_bytes()) {
            Some(bytes) => Ok(PyBytes::new(py, &bytes).into_any()),
            None => fail("not base64"),
        },
        _ => Ok(event::text(py, text.as_bytes())?.into_any()),
    }
}

/// The items of a sequence, a few of them without asking for memory.
pub type Items<'py> = SmallVec<[Bound<'py, PyAny>; 8]>;

/// A list, tuple, set or frozenset of items.
pub fn items<'py>(py: Python<'py>, kind: Seq, mut items: Items<'py>) -> Value<'py> {
    if kind == Seq::Tuple {
        let count = items.len();
        let mut items = items.drain(..);
        let next = |_| items.next().ok_or_else(|| fault("an item is gone"));
        return Ok(event::tuple_of(py, count, next)?.into_any());
    }
    let items = items.drain(..);
    Ok(match kind {
        Seq::List => PyList::new(py, items)?.into_any(),
        Seq::Tuple => PyTuple::new(py, items)?.into_any(),
        Seq::Set => PySet::new(py, items)?.into_any(),
        Seq::FrozenSet => PyFrozenSet::new(py, items)?.into_any(),
    })
}
