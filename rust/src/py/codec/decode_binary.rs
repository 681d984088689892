//! The binary form to Python values. What is written as its node expects is read here; everything else (values with
//! type names, fields whose type has changed since) goes through the JSON form, so that both forms mean the same.
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat};

use super::MAX_DEPTH;
use super::decode_json;
use super::enums::EnumPlan;
use super::fault::{At, Res, fail};
use super::known::Known;
use super::make;
use super::node::{Node, Seq};
use super::registry::Names;
use crate::core::binary::Reader;
use crate::core::calendar::{DAY_US, Moment, civil_from_days};
use crate::core::shapes::Shapes;
use crate::core::{transcode, wire};
use crate::py::{event, values};

pub type Value<'py> = Res<Bound<'py, PyAny>>;

/// Up to this many places for items are made before the items are there.
const AT_ONCE: usize = 1024;

pub struct Decoder<'a, 'c, 'py> {
    pub py: Python<'py>,
    pub reader: Reader<'a>,
    names: &'c Names,
    pub known: &'static Known,
    pub shapes: Shapes,
}

impl<'a, 'c, 'py> Decoder<'a, 'c, 'py> {
    #[inline(always)]
    pub fn new(py: Python<'py>, names: &'c Names, known: &'static Known, bytes: &'a [u8]) -> Self {
        Self { py, reader: Reader::new(bytes), names, known, shapes: Shapes::default() }
    }

    /// Reads the next value under a node: the usual cases here, where they can be inlined, the others by `value`.
    #[inline(always)]
    pub(super) fn next(&mut self, node: &Node, depth: usize) -> Value<'py> {
        match self.usual(node)? {
            Some(value) => Ok(value),
            None => self.compound(node, depth),
        }
    }

    /// Reads the next value under a node: objects and tuples without a detour, the others by `value`.
    #[inline]
    pub(super) fn compound(&mut self, node: &Node, depth: usize) -> Value<'py> {
        if depth <= MAX_DEPTH {
            match (node, self.reader.peek()) {
                (Node::Record(plan), Some(wire::RECORD)) => {
                    self.reader.at += 1;
                    return self.record(plan.get(), false, depth);
                }
                (Node::Seq(Seq::Tuple, inner), Some(wire::TUPLE)) => {
                    let before = self.reader.at;
                    self.reader.at += 1;
                    let count = self.reader.count()?;
                    if count <= AT_ONCE {
                        return self.tuple(inner, count, depth);
                    }
                    self.reader.at = before;
                }
                _ => {}
            }
        }
        self.value(node, depth)
    }

    /// As `next`, not inlined.
    fn item(&mut self, node: &Node, depth: usize) -> Value<'py> {
        self.next(node, depth)
    }

    fn tuple(&mut self, inner: &Node, count: usize, depth: usize) -> Value<'py> {
        let py = self.py;
        let item = |index| self.next(inner, depth + 1).at_item(index);
        event::tuple_of(py, count, item).map(Bound::into_any)
    }

    /// Reads a value of a node's own type that refers to nothing else; None, with nothing taken, if it is another one.
    #[inline(always)]
    pub(super) fn usual(&mut self, node: &Node) -> Res<Option<Bound<'py, PyAny>>> {
        let py = self.py;
        let node = match node {
            Node::Optional(_) if self.reader.peek() == Some(wire::NONE) => {
                self.reader.at += 1;
                return Ok(Some(py.None().into_bound(py)));
            }
            Node::Optional(inner) => inner,
            other => other,
        };
        Ok(match node {
            Node::Str => return self.ascii(wire::TEXT),
            Node::Int if self.reader.peek() == Some(wire::INT) => {
                self.reader.at += 1;
                Some(self.reader.zigzag()?.into_pyobject(py)?.into_any())
            }
            Node::Float => {
                self.reader.fixed(wire::FLOAT).map(|bytes| PyFloat::new(py, f64::from_le_bytes(bytes)).into_any())
            }
            Node::Bool => match self.reader.peek() {
                Some(tag @ (wire::TRUE | wire::FALSE)) => {
                    self.reader.at += 1;
                    Some((tag == wire::TRUE).into_pyobject(py)?.to_owned().into_any())
                }
                _ => None,
            },
            Node::Uuid => match self.reader.fixed(wire::UUID) {
                Some(bytes) => Some(values::uuid_from_bytes(py, bytes)?),
                None => None,
            },
            Node::Decimal => match self.ascii(wire::DECIMAL)? {
                Some(text) => Some(make::decimal(&text, self.known)?),
                None => None,
            },
            Node::Datetime => match self.reader.peek() {
                Some(tag @ (wire::UTC | wire::NAIVE)) => {
                    self.reader.at += 1;
                    Some(self.moment(tag == wire::UTC)?)
                }
                _ => None,
            },
            Node::Enum(plan) => self.member(plan),
            _ => None,
        })
    }

    /// Takes a short text of ASCII behind a tag.
    #[inline(always)]
    fn ascii(&mut self, tag: u8) -> Res<Option<Bound<'py, PyAny>>> {
        let before = self.reader.at;
        let Some(bytes) = self.reader.short(tag) else { return Ok(None) };
        let made = event::ascii_text(self.py, bytes);
        if made.is_none() {
            self.reader.at = before;
        }
        Ok(made.map(Bound::into_any))
    }

    fn moment(&mut self, utc: bool) -> Value<'py> {
        match Moment::from_micros(i64::from_le_bytes(self.reader.array()?)) {
            Some(moment) => make::datetime(self.py, moment, utc, self.known),
            None => fail("a time beyond the years 1 to 9999"),
        }
    }

    /// Takes the member of an enum that is written next.
    #[inline(always)]
    fn member(&mut self, plan: &EnumPlan) -> Option<Bound<'py, PyAny>> {
        let found = plan.members.iter().find(|member| self.reader.take_exact(&member.binary))?;
        Some(found.object.bind(self.py).clone())
    }

    /// Reads the next value under a node.
    pub fn value(&mut self, node: &Node, depth: usize) -> Value<'py> {
        if depth > MAX_DEPTH {
            return fail(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        let start = self.reader.at;
        let Some(byte) = self.reader.peek() else { return fail("damaged: a value expected at the end") };
        if let Some(value) = self.expected(node, byte, depth)? {
            return Ok(value);
        }
        self.reader.at = start;
        self.by_json(node, depth)
    }

    /// Reads a value by way of its JSON form.
    pub(super) fn by_json(&mut self, node: &Node, depth: usize) -> Value<'py> {
        let mut out = Vec::new();
        transcode::value(&mut self.reader, &mut self.shapes, &mut out)?;
        let Ok(text) = std::str::from_utf8(&out) else { return fail("damaged: UTF-8 expected") };
        let mut decoder = decode_json::Decoder::new(self.py, self.names, self.known, text);
        decoder.value(node, depth)
    }

    /// Reads a value of the type that the node expects; None if it is something else.
    fn expected(&mut self, node: &Node, byte: u8, depth: usize) -> Res<Option<Bound<'py, PyAny>>> {
        let py = self.py;
        let value = match (node, byte & !wire::EXPLICIT) {
            (Node::Optional(inner), tag) if tag != wire::NONE => return self.expected(inner, byte, depth),
            (Node::Optional(_) | Node::Any | Node::None, wire::NONE) => {
                self.reader.at += 1;
                py.None().into_bound(py)
            }
            (Node::Str | Node::Any, wire::TEXT) => {
                self.reader.at += 1;
                event::text(py, self.reader.bytes()?)?.into_any()
            }
            (Node::Int | Node::Any | Node::Float, wire::INT) => {
                self.reader.at += 1;
                self.reader.zigzag()?.into_pyobject(py)?.into_any()
            }
            (Node::Float | Node::Any, wire::FLOAT) => {
                self.reader.at += 1;
                PyFloat::new(py, f64::from_le_bytes(self.reader.array()?)).into_any()
            }
            (Node::Bool | Node::Any, wire::TRUE | wire::FALSE) => {
                self.reader.at += 1;
                (byte == wire::TRUE).into_pyobject(py)?.to_owned().into_any()
            }
            (Node::Enum(plan), _) => return Ok(self.member(plan)),
            (Node::Record(plan), wire::RECORD | wire::OPEN_RECORD) => {
                self.reader.at += 1;
                return self.record(plan.get(), byte == wire::OPEN_RECORD, depth).map(Some);
            }
            (Node::Record(plan), wire::EVENT) => {
                self.reader.at += 1;
                return self.event(plan.get(), depth).map(Some);
            }
            (Node::Record(plan), wire::NAMED_TUPLE) => {
                self.reader.at += 1;
                return self.named_tuple(plan.get(), depth).map(Some);
            }
            (Node::Seq(..) | Node::Tuple(_) | Node::Dict(_) | Node::Any, tag)
                if (wire::LIST..=wire::DICT).contains(&tag) =>
            {
                return self.container(node, byte, depth);
            }
            (_, tag) => return self.scalar(node, tag),
        };
        Ok(Some(value))
    }

    fn scalar(&mut self, node: &Node, tag: u8) -> Res<Option<Bound<'py, PyAny>>> {
        let py = self.py;
        let fits = match tag {
            wire::UUID => matches!(node, Node::Uuid | Node::Any),
            wire::UTC | wire::NAIVE => matches!(node, Node::Datetime | Node::Any),
            wire::DECIMAL => matches!(node, Node::Decimal | Node::Any),
            wire::DATE => matches!(node, Node::Date | Node::Any),
            wire::TIME => matches!(node, Node::Time | Node::Any),
            wire::DURATION => matches!(node, Node::Timedelta | Node::Any),
            wire::BYTES => matches!(node, Node::Bytes | Node::Any),
            _ => false,
        };
        if !fits {
            return Ok(None);
        }
        self.reader.at += 1;
        Ok(Some(match tag {
            wire::UUID => values::uuid_from_bytes(py, self.reader.array()?)?,
            wire::UTC | wire::NAIVE => self.moment(tag == wire::UTC)?,
            wire::DECIMAL => make::decimal(event::text(py, self.reader.bytes()?)?.as_any(), self.known)?,
            wire::DATE => match civil_from_days(self.reader.zigzag()?) {
                Some((year, month, day)) => make::date(py, year, month, day)?,
                None => return fail("a day beyond the years 1 to 9999"),
            },
            wire::TIME => match i64::try_from(self.reader.varint()?)
                .ok()
                .filter(|micros| *micros < DAY_US)
                .and_then(Moment::from_micros)
            {
                Some(moment) => make::time(py, moment.hour, moment.minute, moment.second, moment.micro)?,
                None => return fail("a time beyond the day"),
            },
            wire::DURATION => {
                let (days, seconds, micros) = transcode::duration(&mut self.reader)?;
                make::duration(py, days, seconds, micros)?
            }
            _ => PyBytes::new(py, self.reader.bytes()?).into_any(),
        }))
    }

    fn container(&mut self, node: &Node, byte: u8, depth: usize) -> Res<Option<Bound<'py, PyAny>>> {
        let explicit = byte & wire::EXPLICIT != 0;
        let found = match byte & !wire::EXPLICIT {
            wire::LIST => Seq::List,
            wire::TUPLE => Seq::Tuple,
            wire::SET => Seq::Set,
            wire::FROZEN_SET => Seq::FrozenSet,
            _ => return self.dict(node, explicit, depth),
        };
        let typed = !explicit;
        let (kind, inner) = match node {
            Node::Seq(kind, inner) if typed => (*kind, &**inner),
            Node::Tuple(nodes) if typed => return self.fixed_tuple(nodes, depth).map(Some),
            Node::Any if explicit || found == Seq::List => (found, &Node::Any),
            _ => return Ok(None),
        };
        self.reader.at += 1;
        let count = self.reader.count()?;
        if kind == Seq::Tuple && count <= AT_ONCE {
            return self.tuple(inner, count, depth).map(Some);
        }
        // Every item takes a byte, so the payload bounds the allocation; grow in steps all the same.
        let mut items = make::Items::with_capacity(count.min(AT_ONCE));
        for index in 0..count {
            items.push(self.item(inner, depth + 1).at_item(index)?);
        }
        make::items(self.py, kind, items).map(Some)
    }

    fn fixed_tuple(&mut self, nodes: &[Node], depth: usize) -> Value<'py> {
        self.reader.at += 1;
        let count = self.reader.count()?;
        if count != nodes.len() {
            return fail(format!("{} items expected, {count} found", nodes.len()));
        }
        let py = self.py;
        let item = |index: usize| self.value(&nodes[index], depth + 1).at_item(index);
        event::tuple_of(py, count, item).map(Bound::into_any)
    }

    fn dict(&mut self, node: &Node, explicit: bool, depth: usize) -> Res<Option<Bound<'py, PyAny>>> {
        // A dictionary under an annotation is written by it, explicit or not; without one its parts carry their types.
        let (key_node, value_node) = match node {
            Node::Dict(nodes) => (&nodes.0, &nodes.1),
            Node::Any => (&Node::Any, &Node::Any),
            _ => return Ok(None),
        };
        let plain_keys = matches!(key_node, Node::Any | Node::Str | Node::Int | Node::Uuid);
        if !explicit && !plain_keys {
            return Ok(None);
        }
        self.reader.at += 1;
        let dict = PyDict::new(self.py);
        for _ in 0..self.reader.count()? {
            let key = self.value(key_node, depth + 1).at_item("key")?;
            let value = match self.value(value_node, depth + 1) {
                Ok(value) => value,
                Err(fault) => {
                    let shown = key.repr().map_or_else(|_| "?".to_owned(), |text| text.to_string_lossy().into_owned());
                    return Err(fault.inside(format!("[{shown:.60}]")));
                }
            };
            dict.set_item(key, value)?;
        }
        Ok(Some(dict.into_any()))
    }
}
