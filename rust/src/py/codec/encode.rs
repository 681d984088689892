//! Python values to bytes, in either form.
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDate, PyDateTime, PyDelta, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTime,
    PyTuple, PyType,
};

use super::enums::EnumPlan;
use super::fault::{Res, fail};
use super::known::Known;
use super::node::{Node, Seq, Union, token};
use super::record::{RecordPlan, Style};
use super::registry::{Entry, Names};
use super::sink::Sink;
use super::{BIG_FLOAT, MAX_DEPTH};
use crate::core::text;
use crate::py::{event, values};

pub struct Encoder<'c, 'py, S> {
    pub py: Python<'py>,
    pub sink: &'c mut S,
    pub names: &'c Names,
    pub known: &'static Known,
    /// The plan whose shape was written last, and its number.
    pub last_shape: (usize, u64),
    /// Addresses of the record plans whose names were written, in order; 0 for one that cannot be referred to.
    pub shapes: &'c mut Vec<usize>,
}

impl<'c, 'py, S: Sink> Encoder<'c, 'py, S> {
    /// Writes a value under a node: the usual cases here, where they can be inlined, the others by `value`.
    #[inline(always)]
    pub fn put(&mut self, node: &Node, value: &Bound<'py, PyAny>, depth: usize) -> Res<()> {
        match node {
            Node::Str => {
                if let Ok(text) = value.cast_exact::<PyString>()
                    && let Some(plain) = event::ascii(text)
                {
                    self.sink.text(plain);
                    return Ok(());
                }
            }
            Node::Int => {
                if let Some(small) = event::small_int(value) {
                    self.sink.int(small);
                    return Ok(());
                }
            }
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
            _ => return self.compound(node, value, depth),
        }
        self.value(node, value, depth)
    }

    /// Writes a value under a node: objects, tuples and what may be none without a detour, the others by `value`.
    fn compound(&mut self, node: &Node, value: &Bound<'py, PyAny>, depth: usize) -> Res<()> {
        match node {
            Node::Optional(_) if value.is_none() => {
                self.sink.none();
                return Ok(());
            }
            Node::Record(plan) if is_exactly(value, &plan.get().class) && depth <= MAX_DEPTH => {
                return self.record(plan.get(), value, depth);
            }
            Node::Seq(Seq::Tuple, inner) if depth <= MAX_DEPTH => {
                if let Ok(tuple) = value.cast_exact::<PyTuple>() {
                    return self.tuple(tuple, inner, false, depth);
                }
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
        if raw.is_exact_instance_of::<PyInt>()
            && plan.class.bind(self.py).call1((&raw,)).is_ok_and(|found| found.is(value))
        {
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
}

/// Whether a value is an instance of exactly this class.
#[inline]
pub fn is_exactly(value: &Bound<'_, PyAny>, class: &Py<PyType>) -> bool {
    std::ptr::eq(value.get_type_ptr().cast(), class.as_ptr())
}

fn too_deep<T>() -> Res<T> {
    fail(format!("nested deeper than {MAX_DEPTH} levels, or contains itself"))
}

pub fn is_plain_key(key: &Bound<'_, PyAny>) -> bool {
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
