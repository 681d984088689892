//! The binary form to Python values. What is written as its node expects is read here; everything else (values with
//! type names, fields whose type has changed since) goes through the JSON form, so that both forms mean the same.
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyString};

use super::MAX_DEPTH;
use super::build::Parts;
use super::decode_json;
use super::fault::{At, Res, fail};
use super::known::{self, Known};
use super::make;
use super::metadata;
use super::node::{Node, Seq};
use super::record::{Field, Fields, RecordPlan, Style};
use super::registry::Names;
use crate::core::binary::Reader;
use crate::core::calendar::{DAY_US, Moment, civil_from_days, is_python_day};
use crate::core::{transcode, wire};
use crate::py::values;

type Value<'py> = Res<Bound<'py, PyAny>>;

pub struct Decoder<'a, 'c, 'py> {
    py: Python<'py>,
    pub reader: Reader<'a>,
    names: &'c Names,
    known: &'static Known,
    shapes: transcode::Shapes,
}

impl<'a, 'c, 'py> Decoder<'a, 'c, 'py> {
    pub fn new(py: Python<'py>, names: &'c Names, bytes: &'a [u8]) -> PyResult<Self> {
        let reader = Reader::new(bytes);
        Ok(Self { py, reader, names, known: known::get(py)?, shapes: transcode::Shapes::default() })
    }

    /// Reads the next value under a node: the usual cases here, where they can be inlined, the others by `value`.
    #[inline(always)]
    fn next(&mut self, node: &Node, depth: usize) -> Value<'py> {
        let py = self.py;
        let Some(tag) = self.reader.peek() else { return fail("damaged: a value expected at the end") };
        match (node, tag) {
            (Node::Str, wire::TEXT) => {
                self.reader.at += 1;
                Ok(PyString::from_bytes(py, self.reader.bytes()?)?.into_any())
            }
            (Node::Int, wire::INT) => {
                self.reader.at += 1;
                Ok(self.reader.zigzag()?.into_pyobject(py)?.into_any())
            }
            (Node::Float, wire::FLOAT) => {
                self.reader.at += 1;
                Ok(PyFloat::new(py, f64::from_le_bytes(self.reader.array()?)).into_any())
            }
            (Node::Bool, wire::TRUE | wire::FALSE) => {
                self.reader.at += 1;
                Ok((tag == wire::TRUE).into_pyobject(py)?.to_owned().into_any())
            }
            (Node::Uuid, wire::UUID) => {
                self.reader.at += 1;
                Ok(values::uuid_from_bytes(py, self.reader.array()?)?)
            }
            (Node::Decimal, wire::DECIMAL) => {
                self.reader.at += 1;
                make::decimal(PyString::from_bytes(py, self.reader.bytes()?)?.as_any(), self.known)
            }
            _ => self.value(node, depth),
        }
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
    fn by_json(&mut self, node: &Node, depth: usize) -> Value<'py> {
        let mut out = Vec::new();
        transcode::value(&mut self.reader, &mut self.shapes, &mut out)?;
        let Ok(text) = std::str::from_utf8(&out) else { return fail("damaged: UTF-8 expected") };
        let mut decoder = decode_json::Decoder::new(self.py, self.names, text)?;
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
                PyString::from_bytes(py, self.reader.bytes()?)?.into_any()
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
            (Node::Enum(plan), _) => {
                for member in &plan.members {
                    if self.reader.take_exact(&member.binary) {
                        return Ok(Some(member.object.bind(py).clone()));
                    }
                }
                return Ok(None);
            }
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
            wire::UTC | wire::NAIVE => {
                let micros = i64::from_le_bytes(self.reader.array()?);
                match Moment::from_micros(micros) {
                    Some(moment) => make::datetime(py, moment, tag == wire::UTC, self.known)?,
                    None => return fail("a time beyond the years 1 to 9999"),
                }
            }
            wire::DECIMAL => make::decimal(PyString::from_bytes(py, self.reader.bytes()?)?.as_any(), self.known)?,
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
        let items = self.items(inner, depth)?;
        make::items(self.py, kind, items).map(Some)
    }

    fn items(&mut self, inner: &Node, depth: usize) -> Res<Vec<Bound<'py, PyAny>>> {
        let count = self.reader.count()?;
        // Every item takes a byte, so the payload bounds the allocation; grow in steps all the same.
        let mut items = Vec::with_capacity(count.min(1024));
        for index in 0..count {
            items.push(self.next(inner, depth + 1).at_item(index)?);
        }
        Ok(items)
    }

    fn fixed_tuple(&mut self, nodes: &[Node], depth: usize) -> Value<'py> {
        self.reader.at += 1;
        let count = self.reader.count()?;
        if count != nodes.len() {
            return fail(format!("{} items expected, {count} found", nodes.len()));
        }
        let mut items = Vec::with_capacity(count);
        for (index, node) in nodes.iter().enumerate() {
            items.push(self.value(node, depth + 1).at_item(index)?);
        }
        make::items(self.py, Seq::Tuple, items)
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

    fn named_tuple(&mut self, plan: &RecordPlan, depth: usize) -> Value<'py> {
        let fields = plan.fields(self.py)?;
        let mut parts = Parts::new(self.py, plan, fields)?;
        let count = self.reader.count()?;
        if !plan.is_array() || count > fields.list.len() {
            return fail(format!("at most {} items expected, {count} found", fields.list.len()));
        }
        for (index, field) in fields.list.iter().take(count).enumerate() {
            parts.set(index, self.value(&field.node, depth + 1).at(&field.text)?);
        }
        parts.build(self.known)
    }

    fn record(&mut self, plan: &RecordPlan, open: bool, depth: usize) -> Value<'py> {
        let fields = plan.fields(self.py)?;
        let mut parts = Parts::new(self.py, plan, fields)?;
        self.fields(plan, fields, &mut parts, open, depth)?;
        parts.build(self.known)
    }

    fn fields(
        &mut self,
        plan: &RecordPlan,
        fields: &Fields,
        parts: &mut Parts<'_, 'py>,
        open: bool,
        depth: usize,
    ) -> Res<()> {
        let place = transcode::shape(&mut self.reader, &mut self.shapes)?;
        let mut header = self.reader.at_place(place);
        let defined_here = place == self.reader.at;
        if header.take_exact(&fields.header) && plan.style != Style::TypedDict {
            if defined_here {
                self.reader.at = header.at;
            }
            for (index, field) in fields.list.iter().enumerate() {
                self.field(index, field, parts, depth)?;
            }
        } else {
            // Written by another version of the class.
            let names = self.shapes.names(&mut header)?;
            if defined_here {
                self.reader.at = header.at;
            }
            for name in names {
                match fields.index.get(name) {
                    Some(index) => self.field(*index, &fields.list[*index], parts, depth)?,
                    None if self.reader.peek() == Some(wire::ABSENT) => self.reader.at += 1,
                    None => {
                        let value = self.by_json(&Node::Any, depth + 1).at(name)?;
                        parts.add_extra(name, value)?;
                    }
                }
            }
        }
        for _ in 0..if open { self.reader.count()? } else { 0 } {
            let name = self.reader.text()?;
            match fields.index.get(name) {
                Some(index) => self.field(*index, &fields.list[*index], parts, depth)?,
                None => {
                    let value = self.by_json(&Node::Any, depth + 1).at(name)?;
                    parts.add_extra(name, value)?;
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn field(&mut self, index: usize, field: &Field, parts: &mut Parts<'_, 'py>, depth: usize) -> Res<()> {
        if self.reader.peek() == Some(wire::ABSENT) {
            self.reader.at += 1;
            return Ok(());
        }
        let value = self.next(&field.node, depth + 1).at(&field.text)?;
        parts.set(index, value);
        Ok(())
    }

    fn event(&mut self, plan: &RecordPlan, depth: usize) -> Value<'py> {
        if !matches!(plan.style, Style::Event | Style::Message | Style::Contract) {
            return fail(format!("an event where a {} was expected", plan.name));
        }
        let fields = plan.fields(self.py)?;
        let mut parts = Parts::new(self.py, plan, fields)?;
        for _ in 0..self.reader.count()? {
            let index = usize::from(self.reader.byte()?);
            let Some(name) = wire::META.get(index) else { return fail("damaged: a metadata name expected") };
            self.meta(plan.style, index, &mut parts, depth).at(name).at("$meta")?;
        }
        let open = match self.reader.byte()? {
            wire::RECORD => false,
            wire::OPEN_RECORD => true,
            _ => return fail("damaged: a record expected"),
        };
        self.fields(plan, fields, &mut parts, open, depth)?;
        parts.build(self.known)
    }

    fn meta(&mut self, style: Style, index: usize, parts: &mut Parts<'_, 'py>, depth: usize) -> Res<()> {
        if style != Style::Contract {
            match (index, self.reader.peek()) {
                (0 | 13, Some(wire::UUID)) => {
                    self.reader.at += 1;
                    parts.set_id(self.reader.array()?);
                    return Ok(());
                }
                (1 | 14, Some(wire::UTC)) => {
                    self.reader.at += 1;
                    let micros = i64::from_le_bytes(self.reader.array()?);
                    if !is_python_day(micros.div_euclid(DAY_US)) {
                        return fail("a time beyond the years 1 to 9999");
                    }
                    parts.set_time_us(micros);
                    return Ok(());
                }
                _ => {}
            }
        }
        let value = self.value(metadata::get().node(index, style == Style::Message), depth + 2)?;
        parts.set_meta(index, value)
    }
}
