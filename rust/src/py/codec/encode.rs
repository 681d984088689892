//! Python values to bytes, in either form.
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet,
    PyString, PyTime, PyTimeAccess, PyTuple, PyType, PyTzInfoAccess,
};

use super::enums::EnumPlan;
use super::fault::{At, Fault, Res, fail};
use super::known::{self, Known};
use super::node::{Node, Seq, Union, token};
use super::record::{RecordPlan, Style};
use super::registry::{Entry, Names};
use super::sink::Sink;
use super::{BIG_FLOAT, MAX_DEPTH};
use crate::core::calendar::Moment;
use crate::core::text;
use crate::py::values;

/// Longest integer written as decimal digits.
const BIG_INT_BITS: u64 = 8192;

pub struct Encoder<'c, 'py, S> {
    pub py: Python<'py>,
    pub sink: S,
    pub names: &'c Names,
    pub known: &'static Known,
    /// The plan whose shape was written last, and its number.
    pub last_shape: (usize, u64),
    /// Addresses of the record plans whose names were written, in order; 0 for one that cannot be referred to.
    pub shapes: Vec<usize>,
}

impl<'c, 'py, S: Sink> Encoder<'c, 'py, S> {
    pub fn new(py: Python<'py>, names: &'c Names, sink: S) -> PyResult<Self> {
        Ok(Self { py, sink, names, known: known::get(py)?, last_shape: (0, 0), shapes: Vec::new() })
    }

    /// Writes a value under a node: the usual cases here, where they can be inlined, the others by `value`.
    #[inline(always)]
    pub fn put(&mut self, node: &Node, value: &Bound<'py, PyAny>, depth: usize) -> Res<()> {
        match node {
            Node::Str => {
                if let Ok(text) = value.cast_exact::<PyString>()
                    && let Ok(plain) = text.to_str()
                {
                    self.sink.text(plain);
                    return Ok(());
                }
            }
            Node::Int if value.is_exact_instance_of::<PyInt>() => return self.int(value),
            Node::Float => {
                if let Ok(number) = value.cast_exact::<PyFloat>()
                    && number.value().is_finite()
                {
                    self.sink.float(number.value(), false);
                    return Ok(());
                }
            }
            Node::Bool => {
                if let Ok(flag) = value.cast_exact::<PyBool>() {
                    self.sink.boolean(flag.is_true());
                    return Ok(());
                }
            }
            Node::Enum(plan) if is_exactly(value, &plan.class) => {
                if let Some(member) = plan.member(value) {
                    self.sink.out().extend_from_slice(S::raw(&member.json, &member.binary));
                    return Ok(());
                }
            }
            Node::Decimal if self.is_decimal(value) => return self.decimal(value, false),
            Node::Uuid => {
                if let Some(bytes) = values::exact_uuid(value) {
                    self.sink.uuid(&bytes, false);
                    return Ok(());
                }
            }
            Node::Datetime => {
                if let Ok(moment) = value.cast_exact::<PyDateTime>() {
                    return self.datetime(moment, false);
                }
            }
            Node::Record(plan) if is_exactly(value, &plan.get().class) && depth <= MAX_DEPTH => {
                return self.record(plan.get(), value, depth);
            }
            _ => {}
        }
        self.value(node, value, depth)
    }

    /// Writes a value under a node.
    pub fn value(&mut self, node: &Node, value: &Bound<'py, PyAny>, depth: usize) -> Res<()> {
        match node {
            Node::Any => return self.any(value, depth),
            Node::Optional(inner) if !value.is_none() => return self.value(inner, value, depth),
            Node::Optional(_) => {
                self.sink.none();
                return Ok(());
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            return too_deep();
        }
        if self.expected(node, value, depth)? { Ok(()) } else { self.mismatch(node, value, depth) }
    }

    /// Writes a value that is of exactly the type that the node expects; false if it is not.
    fn expected(&mut self, node: &Node, value: &Bound<'py, PyAny>, depth: usize) -> Res<bool> {
        match node {
            Node::Str => match value.cast_exact::<PyString>() {
                Ok(text) => self.text(text)?,
                Err(_) => return Ok(false),
            },
            Node::Int if value.is_exact_instance_of::<PyInt>() => self.int(value)?,
            Node::Bool => match value.cast_exact::<PyBool>() {
                Ok(flag) => self.sink.boolean(flag.is_true()),
                Err(_) => return Ok(false),
            },
            Node::Float => return self.number(value),
            Node::Uuid if values::is_uuid(value) => self.uuid(value, false)?,
            Node::Decimal if self.is_decimal(value) => self.decimal(value, false)?,
            Node::Datetime => match value.cast_exact::<PyDateTime>() {
                Ok(moment) => self.datetime(moment, false)?,
                Err(_) => return Ok(false),
            },
            Node::Enum(plan) if is_exactly(value, &plan.class) => self.enumeration(plan, value, depth)?,
            Node::Union(union) => return self.union(union, value, depth),
            Node::Record(plan) => {
                if !self.fits(plan.get(), value)? {
                    return Ok(false);
                }
                self.record(plan.get(), value, depth)?;
            }
            Node::Foreign(annotation) => return self.foreign(annotation, value, depth),
            Node::Seq(..) | Node::Tuple(_) | Node::Dict(_) => return self.container(node, value, depth),
            _ => return self.rare_scalar(node, value),
        }
        Ok(true)
    }

    fn rare_scalar(&mut self, node: &Node, value: &Bound<'py, PyAny>) -> Res<bool> {
        match node {
            Node::None if value.is_none() => self.sink.none(),
            Node::Bytes if value.is_exact_instance_of::<PyBytes>() => self.bytes(value, false)?,
            Node::Date if value.is_exact_instance_of::<PyDate>() => self.date(value, false)?,
            Node::Time if value.is_exact_instance_of::<PyTime>() => self.time(value, false)?,
            Node::Timedelta if value.is_exact_instance_of::<PyDelta>() => self.duration(value, false)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn container(&mut self, node: &Node, value: &Bound<'py, PyAny>, depth: usize) -> Res<bool> {
        match node {
            Node::Seq(Seq::List, inner) if value.is_exact_instance_of::<PyList>() => {
                self.list(value.cast()?, inner, depth)?;
            }
            Node::Seq(Seq::Tuple, inner) if value.is_exact_instance_of::<PyTuple>() => {
                self.tuple(value.cast()?, inner, false, depth)?;
            }
            Node::Seq(Seq::Set, inner) if value.is_exact_instance_of::<PySet>() => {
                self.set(value, Seq::Set, inner, false, depth)?;
            }
            Node::Seq(Seq::FrozenSet, inner) if value.is_exact_instance_of::<PyFrozenSet>() => {
                self.set(value, Seq::FrozenSet, inner, false, depth)?;
            }
            Node::Tuple(nodes) => match value.cast_exact::<PyTuple>() {
                Ok(tuple) if tuple.len() == nodes.len() => self.fixed_tuple(tuple, nodes, depth)?,
                _ => return Ok(false),
            },
            Node::Dict(nodes) => match value.cast_exact::<PyDict>() {
                Ok(dict) => self.dict(dict, &nodes.0, &nodes.1, depth)?,
                Err(_) => return Ok(false),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Writes a value of another type than the node expects, so that decoding gives it back.
    fn mismatch(&mut self, node: &Node, value: &Bound<'py, PyAny>, depth: usize) -> Res<()> {
        if node.claims() & plain_token(value) == 0 {
            return self.any(value, depth);
        }
        self.sink.begin_tagged("any");
        self.any(value, depth)?;
        self.sink.end_tagged();
        Ok(())
    }

    /// Writes a value together with its type.
    pub fn any(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> Res<()> {
        if depth > MAX_DEPTH {
            return too_deep();
        }
        if let Ok(text) = value.cast_exact::<PyString>() {
            return self.text(text);
        }
        if value.is_none() {
            self.sink.none();
        } else if value.is_exact_instance_of::<PyInt>() {
            self.int(value)?;
        } else if let Ok(number) = value.cast_exact::<PyFloat>() {
            self.float(number.value(), true);
        } else if let Ok(flag) = value.cast_exact::<PyBool>() {
            self.sink.boolean(flag.is_true());
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.dict(dict, &Node::Any, &Node::Any, depth)?;
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.list(list, &Node::Any, depth)?;
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.tuple(tuple, &Node::Any, true, depth)?;
        } else if values::is_uuid(value) {
            self.uuid(value, true)?;
        } else if let Ok(moment) = value.cast_exact::<PyDateTime>() {
            self.datetime(moment, true)?;
        } else if self.is_decimal(value) {
            self.decimal(value, true)?;
        } else if value.is_exact_instance_of::<PyBytes>() {
            self.bytes(value, true)?;
        } else if value.is_exact_instance_of::<PyDate>() {
            self.date(value, true)?;
        } else if value.is_exact_instance_of::<PyTime>() {
            self.time(value, true)?;
        } else if value.is_exact_instance_of::<PyDelta>() {
            self.duration(value, true)?;
        } else if value.is_exact_instance_of::<PySet>() {
            self.set(value, Seq::Set, &Node::Any, true, depth)?;
        } else if value.is_exact_instance_of::<PyFrozenSet>() {
            self.set(value, Seq::FrozenSet, &Node::Any, true, depth)?;
        } else {
            self.object(value, depth)?;
        }
        Ok(())
    }

    /// Writes an instance of a class with the class's name.
    fn object(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> Res<()> {
        let class = value.get_type();
        match self.names.of_class(&class, self.known)? {
            Entry::Enum(plan, name) => {
                self.sink.begin_tagged(name.bind(self.py).to_str()?);
                self.enumeration(&plan, value, depth)?;
            }
            Entry::Record(plan, name) => {
                self.sink.begin_tagged(name.bind(self.py).to_str()?);
                self.record(plan.get(), value, depth)?;
            }
            Entry::Other => {
                let parts = self.known.dismantle.bind(self.py).call1((value, self.names.registry.bind(self.py)))?;
                let (name, data): (String, Bound<'py, PyAny>) = parts.extract()?;
                self.sink.begin_tagged(&name);
                self.any(&data, depth + 1)?;
            }
        }
        self.sink.end_tagged();
        Ok(())
    }

    fn union(&mut self, union: &Union, value: &Bound<'py, PyAny>, depth: usize) -> Res<bool> {
        let mut chosen = None;
        for member in &union.members {
            if self.belongs(member, value)? {
                chosen = Some(member);
                break;
            }
        }
        let Some(member) = chosen else {
            return union.foreign().map_or(Ok(false), |annotation| self.foreign(annotation, value, depth));
        };
        match member {
            // Written by name, which another enum of the union may have too.
            Node::Enum(plan) if plan.member(value).is_none() => return Ok(false),
            Node::Float if value.extract::<f64>()?.abs() >= BIG_FLOAT => return Ok(false),
            Node::Uuid if union.uuid_or_text => return self.expected(member, value, depth),
            Node::Str if union.uuid_or_text => {
                let text = value.cast::<PyString>()?;
                if text.to_str().is_ok_and(|text| text::is_canonical_uuid(text.as_bytes())) {
                    return Ok(false);
                }
            }
            _ if !union.owns(member, member.writes()) => return Ok(false),
            _ => {}
        }
        self.expected(member, value, depth)
    }

    /// Whether a value is of exactly the type of a union's member.
    fn belongs(&self, node: &Node, value: &Bound<'py, PyAny>) -> Res<bool> {
        Ok(match node {
            Node::Str => value.is_exact_instance_of::<PyString>(),
            Node::Int => value.is_exact_instance_of::<PyInt>(),
            Node::Bool => value.is_exact_instance_of::<PyBool>(),
            Node::Float => value.is_exact_instance_of::<PyFloat>(),
            Node::None => value.is_none(),
            Node::Uuid => values::is_uuid(value),
            Node::Decimal => self.is_decimal(value),
            Node::Datetime => value.is_exact_instance_of::<PyDateTime>(),
            Node::Bytes => value.is_exact_instance_of::<PyBytes>(),
            Node::Date => value.is_exact_instance_of::<PyDate>(),
            Node::Time => value.is_exact_instance_of::<PyTime>(),
            Node::Timedelta => value.is_exact_instance_of::<PyDelta>(),
            Node::Enum(plan) => is_exactly(value, &plan.class),
            Node::Record(plan) => self.fits(plan.get(), value)?,
            Node::Seq(Seq::List, _) => value.is_exact_instance_of::<PyList>(),
            Node::Seq(Seq::Tuple, _) => value.is_exact_instance_of::<PyTuple>(),
            Node::Seq(Seq::Set, _) => value.is_exact_instance_of::<PySet>(),
            Node::Seq(Seq::FrozenSet, _) => value.is_exact_instance_of::<PyFrozenSet>(),
            Node::Tuple(nodes) => value.cast_exact::<PyTuple>().is_ok_and(|tuple| tuple.len() == nodes.len()),
            Node::Dict(_) => value.is_exact_instance_of::<PyDict>(),
            Node::Any | Node::Optional(_) | Node::Union(_) | Node::Foreign(_) => false,
        })
    }

    fn fits(&self, plan: &RecordPlan, value: &Bound<'py, PyAny>) -> Res<bool> {
        if plan.style != Style::TypedDict {
            return Ok(is_exactly(value, &plan.class));
        }
        let Ok(dict) = value.cast_exact::<PyDict>() else { return Ok(false) };
        Ok(dict.keys().iter().all(|key| is_plain_key(&key)))
    }

    fn foreign(&mut self, annotation: &Py<PyAny>, value: &Bound<'py, PyAny>, depth: usize) -> Res<bool> {
        let dumped = self.known.dump_foreign.bind(self.py).call1((annotation, value))?;
        if dumped.is_none() {
            return Ok(false);
        }
        self.sink.begin_tagged("foreign");
        self.any(&dumped.cast::<PyTuple>()?.get_item(0)?, depth + 1)?;
        self.sink.end_tagged();
        Ok(true)
    }

    pub fn enumeration(&mut self, plan: &EnumPlan, value: &Bound<'py, PyAny>, depth: usize) -> Res<()> {
        if let Some(member) = plan.member(value) {
            self.sink.out().extend_from_slice(S::raw(&member.json, &member.binary));
            return Ok(());
        }
        // Composite flags have no entry of their own; other members without one are known by name.
        let raw = value.getattr(intern!(self.py, "value"))?;
        if raw.is_exact_instance_of::<PyInt>() && plan.class.bind(self.py).call1((&raw,)).is_ok_and(|found| found.is(value)) {
            return self.any(&raw, depth + 1);
        }
        let name = value.getattr(intern!(self.py, "name"))?;
        let Ok(name) = name.cast::<PyString>() else {
            return fail(format!("{} has neither a storable value nor a name", values::shown(value)));
        };
        self.sink.begin_tagged("member");
        self.text(name)?;
        self.sink.end_tagged();
        Ok(())
    }

    fn list(&mut self, list: &Bound<'py, PyList>, inner: &Node, depth: usize) -> Res<()> {
        let count = list.len();
        self.sink.begin_items(Seq::List, count, false);
        let mut written = 0;
        for item in list.iter() {
            self.sink.next(written);
            self.put(inner, &item, depth + 1).at_item(written)?;
            written += 1;
        }
        self.sink.end_items(Seq::List, false);
        unchanged(count, written)
    }

    fn tuple(&mut self, tuple: &Bound<'py, PyTuple>, inner: &Node, explicit: bool, depth: usize) -> Res<()> {
        self.sink.begin_items(Seq::Tuple, tuple.len(), explicit);
        for (index, item) in tuple.iter_borrowed().enumerate() {
            self.sink.next(index);
            self.put(inner, &item, depth + 1).at_item(index)?;
        }
        self.sink.end_items(Seq::Tuple, explicit);
        Ok(())
    }

    fn fixed_tuple(&mut self, tuple: &Bound<'py, PyTuple>, nodes: &[Node], depth: usize) -> Res<()> {
        self.sink.begin_items(Seq::Tuple, nodes.len(), false);
        for (index, (item, node)) in tuple.iter_borrowed().zip(nodes).enumerate() {
            self.sink.next(index);
            self.value(node, &item, depth + 1).at_item(index)?;
        }
        self.sink.end_items(Seq::Tuple, false);
        Ok(())
    }

    fn set(&mut self, set: &Bound<'py, PyAny>, kind: Seq, inner: &Node, explicit: bool, depth: usize) -> Res<()> {
        let count = set.len()?;
        self.sink.begin_items(kind, count, explicit);
        let mut written = 0;
        for item in set.try_iter()? {
            self.sink.next(written);
            self.value(inner, &item?, depth + 1).at_item(written)?;
            written += 1;
        }
        self.sink.end_items(kind, explicit);
        unchanged(count, written)
    }

    fn dict(&mut self, dict: &Bound<'py, PyDict>, key_node: &Node, node: &Node, depth: usize) -> Res<()> {
        let object = self.keys_are_text(dict, key_node);
        let count = dict.len();
        self.sink.begin_dict(count, object);
        if key_node.is_plain() && node.is_plain() {
            for (index, (key, item)) in dict.iter().enumerate() {
                self.pair(index, &key, &item, (key_node, node), object, depth)?;
            }
        } else {
            // Values may run code that changes the dictionary, so its items are taken first.
            let items = dict.items();
            unchanged(count, items.len())?;
            for (index, pair) in items.iter().enumerate() {
                let pair = pair.cast_into::<PyTuple>().map_err(PyErr::from)?;
                self.pair(index, &pair.get_item(0)?, &pair.get_item(1)?, (key_node, node), object, depth)?;
            }
        }
        self.sink.end_dict(object);
        Ok(())
    }

    fn pair(
        &mut self,
        index: usize,
        key: &Bound<'py, PyAny>,
        item: &Bound<'py, PyAny>,
        nodes: (&Node, &Node),
        object: bool,
        depth: usize,
    ) -> Res<()> {
        self.sink.begin_pair(index, object);
        match nodes.0 {
            Node::Int if object => self.sink.int_key(key.extract()?),
            node => self.value(node, key, depth + 1).at_item("key")?,
        }
        self.sink.between_pair(object);
        self.value(nodes.1, item, depth + 1).map_err(|fault| label(fault, key))?;
        self.sink.end_pair(object);
        Ok(())
    }

    /// Whether all keys of a dictionary can be written as the keys of a JSON object and be told apart again.
    fn keys_are_text(&self, dict: &Bound<'py, PyDict>, node: &Node) -> bool {
        dict.keys().iter().all(|key| match node {
            Node::Any | Node::Str => is_plain_key(&key),
            Node::Uuid => values::is_uuid(&key),
            Node::Int => key.is_exact_instance_of::<PyInt>() && key.extract::<i64>().is_ok(),
            Node::Date => key.is_exact_instance_of::<PyDate>(),
            Node::Datetime => key.is_exact_instance_of::<PyDateTime>(),
            Node::Enum(plan) => {
                let text = |json: &[u8]| json.starts_with(b"\"") && json != b"\"$type\"";
                is_exactly(&key, &plan.class) && plan.member(&key).is_some_and(|member| text(&member.json))
            }
            _ => false,
        })
    }

    pub fn text(&mut self, text: &Bound<'py, PyString>) -> Res<()> {
        if let Ok(plain) = text.to_str() {
            self.sink.text(plain);
            return Ok(());
        }
        let bytes = text.call_method1(intern!(self.py, "encode"), (intern!(self.py, "utf-8"), &self.known.encode_error))?;
        self.sink.lone(bytes.cast::<PyBytes>()?.as_bytes());
        Ok(())
    }

    pub fn int(&mut self, value: &Bound<'py, PyAny>) -> Res<()> {
        if let Ok(small) = value.extract::<i64>() {
            self.sink.int(small);
            return Ok(());
        }
        let bits: u64 = value.call_method0(intern!(self.py, "bit_length"))?.extract()?;
        let digits = if bits > BIG_INT_BITS {
            value.call_method1(intern!(self.py, "__format__"), (intern!(self.py, "#x"),))?.extract::<String>()?
        } else {
            value.str()?.to_str()?.to_owned()
        };
        self.sink.big(&digits);
        Ok(())
    }

    /// A float node takes integers too, as long as no database makes floats of them or the other way round.
    fn number(&mut self, value: &Bound<'py, PyAny>) -> Res<bool> {
        if let Ok(number) = value.cast_exact::<PyFloat>() {
            self.float(number.value(), false);
            return Ok(true);
        }
        if !value.is_exact_instance_of::<PyInt>() {
            return Ok(false);
        }
        match value.extract::<i64>() {
            Ok(number) if number.unsigned_abs() < BIG_FLOAT as u64 => self.sink.int(number),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn float(&mut self, value: f64, tagged_if_big: bool) {
        if value.is_finite() {
            self.sink.float(value, tagged_if_big && value.abs() >= BIG_FLOAT);
        } else {
            let name = if value.is_nan() { "nan" } else if value > 0.0 { "inf" } else { "-inf" };
            self.sink.odd_float(value, name);
        }
    }

    fn uuid(&mut self, value: &Bound<'py, PyAny>, explicit: bool) -> Res<()> {
        let bytes = values::uuid_to_bytes(value, "value")?;
        self.sink.uuid(&bytes, explicit);
        Ok(())
    }

    fn is_decimal(&self, value: &Bound<'py, PyAny>) -> bool {
        is_exactly(value, &self.known.decimal)
    }

    fn decimal(&mut self, value: &Bound<'py, PyAny>, explicit: bool) -> Res<()> {
        let text = value.str()?;
        self.sink.decimal(text.to_str()?, explicit);
        Ok(())
    }

    fn bytes(&mut self, value: &Bound<'py, PyAny>, explicit: bool) -> Res<()> {
        self.sink.bytes(value.cast::<PyBytes>()?.as_bytes(), explicit);
        Ok(())
    }

    pub fn datetime(&mut self, value: &Bound<'py, PyDateTime>, explicit: bool) -> Res<()> {
        let zone = value.get_tzinfo();
        let utc = zone.as_ref().is_some_and(|zone| zone.is(&self.known.utc));
        if !value.get_fold() && (utc || zone.is_none()) {
            let moment = Moment {
                year: value.get_year(),
                month: value.get_month(),
                day: value.get_day(),
                hour: value.get_hour(),
                minute: value.get_minute(),
                second: value.get_second(),
                micro: value.get_microsecond(),
            };
            self.sink.datetime(moment, utc, explicit);
            return Ok(());
        }
        let text = self.known.format_moment.bind(self.py).call1((value,))?;
        self.sink.datetime_text(text.cast::<PyString>()?.to_str()?, explicit);
        Ok(())
    }

    fn date(&mut self, value: &Bound<'py, PyAny>, explicit: bool) -> Res<()> {
        let date = value.cast::<PyDate>()?;
        let (year, month, day) = (date.get_year(), date.get_month(), date.get_day());
        self.sink.date(Moment { year, month, day, hour: 0, minute: 0, second: 0, micro: 0 }, explicit);
        Ok(())
    }

    fn time(&mut self, value: &Bound<'py, PyAny>, explicit: bool) -> Res<()> {
        let time = value.cast::<PyTime>()?;
        if time.get_tzinfo().is_none() && !time.get_fold() {
            let (hour, minute, second) = (time.get_hour(), time.get_minute(), time.get_second());
            let micro = time.get_microsecond();
            self.sink.time(Moment { year: 1970, month: 1, day: 1, hour, minute, second, micro }, explicit);
            return Ok(());
        }
        let text = self.known.format_moment.bind(self.py).call1((value,))?;
        self.sink.time_text(text.cast::<PyString>()?.to_str()?, explicit);
        Ok(())
    }

    fn duration(&mut self, value: &Bound<'py, PyAny>, explicit: bool) -> Res<()> {
        let delta = value.cast::<PyDelta>()?;
        let (days, seconds) = (i64::from(delta.get_days()), i64::from(delta.get_seconds()));
        self.sink.duration(days, seconds, i64::from(delta.get_microseconds()), explicit);
        Ok(())
    }
}

fn label(fault: Fault, key: &Bound<'_, PyAny>) -> Fault {
    let shown: String = key.repr().map_or_else(|_| "?".to_owned(), |text| text.to_string_lossy().chars().take(60).collect());
    fault.inside(format!("[{shown}]"))
}

#[inline]
fn is_exactly(value: &Bound<'_, PyAny>, class: &Py<PyType>) -> bool {
    value.get_type_ptr() as usize == class.as_ptr() as usize
}

fn too_deep<T>() -> Res<T> {
    fail(format!("nested deeper than {MAX_DEPTH} levels, or contains itself"))
}

fn unchanged(count: usize, written: usize) -> Res<()> {
    if count == written { Ok(()) } else { fail("changed while it was being encoded") }
}

fn is_plain_key(key: &Bound<'_, PyAny>) -> bool {
    // A text with lone surrogates fails the comparison and counts as plain too.
    key.cast_exact::<PyString>().is_ok_and(|text| text.to_str().map_or(true, |text| text != "$type"))
}

/// The token that `any` writes a value as, 0 where it will be tagged.
fn plain_token(value: &Bound<'_, PyAny>) -> u8 {
    if value.is_exact_instance_of::<PyString>() {
        token::TEXT
    } else if value.is_exact_instance_of::<PyInt>() {
        token::INT
    } else if value.is_exact_instance_of::<PyFloat>() {
        token::FLOAT
    } else if value.is_exact_instance_of::<PyBool>() {
        token::BOOL
    } else if value.is_exact_instance_of::<PyList>() {
        token::ARRAY
    } else if value.is_exact_instance_of::<PyDict>() {
        token::OBJECT
    } else {
        0
    }
}
