//! The fields of one class of events, messages or values, compiled on first use.
use std::collections::HashMap;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

use super::known;
use super::node::{self, Node};
use crate::core::{binary, json_text};
use crate::py::event::SlotTable;
use crate::py::plan::{self, Plan};

/// How instances of a class hold their fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// An event of ours.
    Event,
    /// A command or query of ours.
    Message,
    /// An instance of the framework's own event class.
    Contract,
    Dataclass,
    Pydantic,
    NamedTuple,
    TypedDict,
}

pub struct Field {
    pub name: Py<PyString>,
    pub text: String,
    /// `"name":`
    pub key: Vec<u8>,
    pub node: Node,
    /// Its own bit among those of `Fields::all`; 0 from the 65th field on.
    pub bit: u64,
    default: Option<Py<PyAny>>,
    factory: Option<Py<PyAny>>,
}

impl Field {
    /// The default of a field that stored data does not have; None if it is required.
    pub fn make_default<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(default) = &self.default {
            return Ok(Some(default.bind(py).clone()));
        }
        self.factory.as_ref().map(|factory| factory.bind(py).call0()).transpose()
    }
}

pub struct Fields {
    pub list: Vec<Field>,
    /// The names in binary: how many, then each.
    pub header: Vec<u8>,
    pub index: HashMap<String, usize>,
    /// One bit for each field; 0 if there are none, or more than 64.
    pub all: u64,
    hidden: Vec<String>,
    /// Where the fields of a slotted class lie; same order as `list`.
    pub slots: Option<SlotTable>,
    /// Where the fields of an event of ours lie; same order as `list`.
    pub message: Option<&'static Plan>,
}

/// The plan of one class with its type arguments.
#[pyclass(frozen, module = "lexigram.events._core")]
pub struct RecordPlan {
    pub class: Py<PyType>,
    pub style: Style,
    pub has_dict: bool,
    /// The class name, for messages.
    pub name: String,
    source: Py<PyAny>,
    fields: PyOnceLock<Fields>,
    allocates: PyOnceLock<bool>,
}

/// The content of a cell, made now if this is the first use. Making it runs user code (a property of an enumeration, a
/// finalizer), which may come back here or let another thread come: both make their own, and the first one is kept.
fn once<'a, T>(py: Python<'_>, cell: &'a PyOnceLock<T>, make: impl FnOnce() -> PyResult<T>) -> PyResult<&'a T> {
    if let Some(found) = cell.get(py) {
        return Ok(found);
    }
    let made = make()?;
    let second = cell.set(py, made);
    drop(second);
    cell.get(py).ok_or_else(|| PyTypeError::new_err("a plan was not kept"))
}

impl RecordPlan {
    /// Returns the plan of a `shapes.Record`, which keeps it.
    pub fn of(record: &Bound<'_, PyAny>) -> PyResult<Py<RecordPlan>> {
        let py = record.py();
        let kept = record.getattr(intern!(py, "plan"))?;
        if !kept.is_none() {
            return Ok(kept.cast_into::<RecordPlan>()?.unbind());
        }
        let class = record.getattr(intern!(py, "cls"))?.cast_into::<PyType>()?;
        let style: String = record.getattr(intern!(py, "style"))?.extract()?;
        let style = match style.as_str() {
            "event" => Style::Event,
            "message" => Style::Message,
            "contract" => Style::Contract,
            "dataclass" => Style::Dataclass,
            "pydantic" => Style::Pydantic,
            "namedtuple" => Style::NamedTuple,
            "typeddict" => Style::TypedDict,
            other => return Err(PyTypeError::new_err(format!("{other} is not a style of records"))),
        };
        let plan = RecordPlan {
            name: class.name()?.to_string(),
            has_dict: class.getattr(intern!(py, "__dictoffset__"))?.extract::<isize>()? != 0,
            class: class.unbind(),
            style,
            source: record.clone().unbind(),
            fields: PyOnceLock::new(),
            allocates: PyOnceLock::new(),
        };
        let plan = Py::new(py, plan)?;
        record.setattr(intern!(py, "plan"), &plan)?;
        Ok(plan)
    }

    /// Whether an attribute is computed on demand and kept (`functools.cached_property`).
    pub fn hides(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        Ok(self.fields(py)?.hidden.iter().any(|hidden| hidden == name))
    }

    /// Whether `object.__new__` makes instances; it refuses abstract classes and those with a native base.
    pub fn allocates(&self, py: Python<'_>) -> PyResult<bool> {
        let found = once(py, &self.allocates, || {
            let made = py.get_type::<PyAny>().call_method1(intern!(py, "__new__"), (&self.class,));
            Ok(made.is_ok())
        })?;
        Ok(*found)
    }

    pub fn is_array(&self) -> bool {
        self.style == Style::NamedTuple
    }

    #[inline(always)]
    pub fn fields(&self, py: Python<'_>) -> PyResult<&Fields> {
        if let Some(fields) = self.fields.get(py) {
            return Ok(fields);
        }
        once(py, &self.fields, || self.compile(py))
    }

    fn compile(&self, py: Python<'_>) -> PyResult<Fields> {
        let missing = known::get(py)?.missing.bind(py);
        let mut list = Vec::new();
        for field in self.source.bind(py).getattr(intern!(py, "fields"))?.try_iter()? {
            let field = field?;
            let given = |name: &Bound<'_, PyString>| {
                let value = field.getattr(name)?;
                PyResult::Ok((!value.is(missing)).then(|| value.unbind()))
            };
            let text: String = field.getattr(intern!(py, "name"))?.extract()?;
            let mut key = Vec::new();
            json_text::write_string(&mut key, &text);
            key.push(b':');
            list.push(Field {
                name: PyString::intern(py, &text).unbind(),
                key,
                node: node::compile(&field.getattr(intern!(py, "node"))?)?,
                bit: 1_u64.checked_shl(list.len() as u32).unwrap_or(0),
                default: given(intern!(py, "default"))?,
                factory: given(intern!(py, "default_factory"))?,
                text,
            });
        }
        let mut header = Vec::new();
        binary::write_varint(&mut header, list.len() as u64);
        for field in &list {
            binary::write_bytes(&mut header, field.text.as_bytes());
        }
        let index = list.iter().enumerate().map(|(index, field)| (field.text.clone(), index)).collect();
        let hidden = self.source.bind(py).getattr(intern!(py, "hidden"))?.extract()?;
        let message = match self.style {
            Style::Event | Style::Message => Some(self.message_plan(py, &list)?),
            _ => None,
        };
        let slots = match self.style {
            Style::Dataclass if !self.has_dict => {
                let names: Vec<_> = list.iter().map(|field| field.name.bind(py).clone()).collect();
                SlotTable::of(self.class.bind(py), &names)?
            }
            _ => None,
        };
        let all = if (1..=64).contains(&list.len()) { u64::MAX >> (64 - list.len()) } else { 0 };
        Ok(Fields { list, header, index, all, hidden, slots, message })
    }

    /// The layout of an event of ours, whose fields must be ours in the same order.
    fn message_plan(&self, py: Python<'_>, list: &[Field]) -> PyResult<&'static Plan> {
        let found = plan::finalized(self.class.bind(py))?;
        let same = found.fields.len() == list.len()
            && found
                .fields
                .iter()
                .zip(list)
                .all(|(theirs, ours)| theirs.name.bind(py).to_str().is_ok_and(|name| name == ours.text));
        if same { Ok(found) } else { Err(PyTypeError::new_err(format!("the fields of {} changed", self.name))) }
    }
}
