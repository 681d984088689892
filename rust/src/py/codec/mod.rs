//! The codec: events and values to JSON or binary payloads and back, by plans compiled once per class.
mod build;
mod decode_binary;
mod decode_json;
mod decode_tagged;
mod encode;
mod encode_items;
mod encode_record;
mod encode_scalar;
mod enums;
mod fault;
mod known;
mod make;
mod metadata;
mod node;
mod record;
mod registry;
mod sink;
mod sink_binary;
mod sink_json;

use std::cell::Cell;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyList, PyString, PyTuple};

use self::encode::Encoder;
use self::fault::{At, Res, fail};
use self::node::Node;
use self::record::{RecordPlan, Style};
use self::registry::{Entry, Names};
use self::sink::Sink;
use self::sink_binary::Binary;
use self::sink_json::Json;
use crate::core::binary::Reader;
use crate::core::{transcode, wire};
use crate::errors::{EventValidationError, SerializationError};
use crate::py::event::{Planned, UNSTAMPED};
use crate::py::metadata::{Meta, stored};
use crate::py::{builder, event, values};

/// Deepest nesting of values, written or read.
pub const MAX_DEPTH: usize = 128;
/// From here on a whole float may be rewritten as an integer by databases, so that it is written with its type.
pub const BIG_FLOAT: f64 = 1e16;
/// Largest payload in bytes, written or read.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024 * 1024;
/// Buffers up to this size are kept for the next payload.
const KEPT_BUFFER: usize = 64 * 1024;

thread_local! {
    /// Taken while in use, so that an encoder that is called by what it encodes gets its own.
    static BUFFERS: Cell<(Vec<u8>, Vec<usize>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// One event as a store writes it; `payload` has everything except version and position.
#[pyclass(frozen, module = "lexigram.events._core")]
pub struct EncodedEvent {
    event_id: [u8; 16],
    #[pyo3(get)]
    type_name: Py<PyString>,
    #[pyo3(get)]
    event_type: Py<PyString>,
    #[pyo3(get)]
    occurred_at_us: i64,
    tags: Option<Py<PyTuple>>,
    #[pyo3(get)]
    payload: Py<PyBytes>,
}

#[pymethods]
impl EncodedEvent {
    #[new]
    fn new(
        event_id: [u8; 16],
        type_name: Py<PyString>,
        event_type: Py<PyString>,
        occurred_at_us: i64,
        tags: Py<PyTuple>,
        payload: Py<PyBytes>,
    ) -> Self {
        Self { event_id, type_name, event_type, occurred_at_us, tags: Some(tags), payload }
    }

    /// The sixteen bytes of the event's id.
    #[getter]
    fn event_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.event_id)
    }

    #[getter]
    fn tags<'py>(&self, py: Python<'py>) -> Bound<'py, PyTuple> {
        self.tags.as_ref().map_or_else(|| PyTuple::empty(py), |tags| tags.bind(py).clone())
    }

    /// Unpacks into the six parts, in order.
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let (id, tags) = (self.event_id(py), self.tags(py));
        let parts = (id, &self.type_name, &self.event_type, self.occurred_at_us, tags, &self.payload);
        parts.into_pyobject(py)?.try_iter()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let size = self.payload.bind(py).as_bytes().len();
        Ok(format!("EncodedEvent({}, {size} bytes)", self.type_name.bind(py)))
    }
}

/// A type's node, compiled; made by `compile_node`.
#[pyclass(frozen, module = "lexigram.events._core")]
pub struct TypePlan(Node);

/// Compiles a node of `messages/shapes.py`.
#[pyfunction]
fn compile_node(node: &Bound<'_, PyAny>) -> PyResult<TypePlan> {
    node::compile(node).map(TypePlan)
}

/// Encoder and decoder over one registry.
#[pyclass(frozen, module = "lexigram.events._core")]
pub struct CodecCore {
    names: Names,
    binary: bool,
}

#[pymethods]
impl CodecCore {
    #[new]
    fn new(registry: Py<PyAny>, binary: bool) -> Self {
        Self { names: Names::new(registry), binary }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.names.traverse(&visit)
    }

    /// Returns an event of ours or of the framework's class as it is stored.
    fn encode(&self, event: &Bound<'_, PyAny>) -> PyResult<EncodedEvent> {
        let py = event.py();
        let class = event.get_type();
        self.encode_event(event).map_err(|fault| {
            let name = class.name().map_or_else(|_| "event".to_owned(), |name| name.to_string());
            fault.into_error(py, &name)
        })
    }

    /// Returns any value as bytes, under a compiled type.
    fn encode_value<'py>(
        &self,
        value: &Bound<'py, PyAny>,
        plan: &Bound<'py, TypePlan>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let py = value.py();
        let node = &plan.get().0;
        let result = if self.binary {
            self.payload(py, Binary, wire::VALUE_MAGIC, |encoder| encoder.value(node, value, 0))
        } else {
            self.payload(py, Json, 0, |encoder| encoder.value(node, value, 0))
        };
        result.map_err(|fault| fault.into_error(py, ""))
    }

    /// Returns the value of bytes, under a compiled type.
    fn decode_value<'py>(&self, data: &Bound<'py, PyAny>, plan: &Bound<'py, TypePlan>) -> PyResult<Bound<'py, PyAny>> {
        let py = data.py();
        let bytes = payload_bytes(data)?;
        self.decode_node(py, &bytes, &plan.get().0, wire::VALUE_MAGIC).map_err(|fault| fault.into_error(py, ""))
    }

    /// Returns the event of a stored row, None if its type is not registered.
    fn decode<'py>(
        &self,
        type_name: &Bound<'py, PyString>,
        event_type: &Bound<'py, PyString>,
        payload: &Bound<'py, PyAny>,
        version: u32,
        sequence_number: Option<i64>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = payload.py();
        let known = known::get(py)?;
        let name = type_name.to_str()?;
        let Some(plan) = self.names.of_event(py, name, event_type.to_str()?, known)? else { return Ok(None) };
        let bytes = payload_bytes(payload)?;
        let node = Node::Record(plan.clone_ref(py));
        let event = self
            .decode_node(py, &bytes, &node, wire::EVENT_MAGIC)
            .and_then(|event| number(&event, plan.get(), version, sequence_number).map(|()| event))
            .map_err(|fault| fault.into_error(py, &plan.get().name))?;
        Ok(Some(event))
    }

    /// Returns the events of many rows; `unknown` makes those whose type is not registered.
    fn decode_rows<'py>(&self, rows: &Bound<'py, PyAny>, unknown: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let mut events = Vec::new();
        for row in rows.try_iter()? {
            let row = row?;
            let parts: RowParts<'py> = match row.cast_exact::<PyTuple>() {
                Ok(row) => row.extract()?,
                Err(_) => PyTuple::new(row.py(), row.try_iter()?.collect::<PyResult<Vec<_>>>()?)?.extract()?,
            };
            let (type_name, event_type, payload, version, sequence_number) = &parts;
            events.push(match self.decode(type_name, event_type, payload, *version, *sequence_number)? {
                Some(event) => event,
                None => unknown.call1((type_name, event_type, payload, version, sequence_number))?,
            });
        }
        PyList::new(rows.py(), events)
    }

    /// Returns the JSON text of a payload in either form, without looking at any class.
    #[staticmethod]
    fn to_json<'py>(payload: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let py = payload.py();
        let bytes = payload_bytes(payload)?;
        let convert = || {
            let mut reader = Reader::new(&bytes);
            let mut out = Vec::new();
            match bytes.first() {
                Some(&(wire::EVENT_MAGIC | wire::VALUE_MAGIC)) => reader.at = 1,
                _ => return Ok(bytes.to_vec()),
            }
            transcode::value(&mut reader, &mut transcode::Shapes::default(), &mut out)?;
            reader.end()?;
            Res::Ok(out)
        };
        convert().map(|out| PyBytes::new(py, &out)).map_err(|fault| fault.into_error(py, "payload"))
    }
}

impl CodecCore {
    fn encode_event(&self, event: &Bound<'_, PyAny>) -> Res<EncodedEvent> {
        let py = event.py();
        let known = known::get(py)?;
        let Entry::Record(plan, name) = self.names.of_class(&event.get_type(), known)? else {
            return not_an_event(event);
        };
        let record = plan.get();
        if !matches!(record.style, Style::Event | Style::Contract) {
            return not_an_event(event);
        }
        if record.class.is(&known.unknown_event) {
            return stored_again(event, record);
        }
        let fields = record.fields(py)?;
        let payload = if self.binary {
            self.payload(py, Binary, wire::EVENT_MAGIC, |encoder| match record.style {
                Style::Contract => encoder.contract(record, fields, event, 0, false),
                _ => encoder.message(record, fields, event, 0, false),
            })
        } else {
            self.payload(py, Json, 0, |encoder| match record.style {
                Style::Contract => encoder.contract(record, fields, event, 0, false),
                _ => encoder.message(record, fields, event, 0, false),
            })
        }?;
        head(event, record, name, payload.unbind())
    }

    /// Runs an encoder over a kept buffer and returns what it wrote.
    fn payload<'py, S: Sink>(
        &self,
        py: Python<'py>,
        sink: impl FnOnce(Vec<u8>) -> S,
        magic: u8,
        write: impl FnOnce(&mut Encoder<'_, 'py, S>) -> Res<()>,
    ) -> Res<Bound<'py, PyBytes>> {
        let (mut buffer, shapes) = BUFFERS.take();
        buffer.clear();
        if magic != 0 {
            buffer.push(magic);
        }
        let mut encoder = Encoder::new(py, &self.names, sink(buffer), shapes)?;
        let written = write(&mut encoder);
        let buffer = std::mem::take(encoder.sink.out());
        let mut shapes = encoder.shapes;
        let result = match written {
            Ok(()) if buffer.len() > MAX_PAYLOAD_BYTES => fail(format!("larger than {MAX_PAYLOAD_BYTES} bytes")),
            Ok(()) => Ok(PyBytes::new(py, &buffer)),
            Err(fault) => Err(fault),
        };
        if buffer.capacity() <= KEPT_BUFFER {
            shapes.clear();
            BUFFERS.set((buffer, shapes));
        }
        result
    }

    fn decode_node<'py>(&self, py: Python<'py>, bytes: &[u8], node: &Node, magic: u8) -> Res<Bound<'py, PyAny>> {
        if let [first @ (wire::EVENT_MAGIC | wire::VALUE_MAGIC), ..] = bytes {
            if *first != magic {
                return fail("damaged: an event where a value was expected, or the reverse");
            }
            let mut decoder = decode_binary::Decoder::new(py, &self.names, bytes)?;
            decoder.reader.at = 1;
            let value = decoder.value(node, 0)?;
            decoder.reader.end()?;
            return Ok(value);
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return fail("not JSON: not UTF-8") };
        let mut decoder = decode_json::Decoder::new(py, &self.names, text)?;
        let value = decoder.value(node, 0)?;
        decoder.scanner.end()?;
        Ok(value)
    }
}

fn not_an_event<T>(value: &Bound<'_, PyAny>) -> Res<T> {
    let message = format!("an event expected, not {}", values::shown(value));
    Err(EventValidationError::new_err((message, "event")).into())
}

/// An event whose class is not known is stored again as it was read.
fn stored_again(event: &Bound<'_, PyAny>, record: &RecordPlan) -> Res<EncodedEvent> {
    let py = event.py();
    let type_name = event.getattr(intern!(py, "type_name"))?.extract()?;
    let payload = event.getattr(intern!(py, "payload"))?.extract()?;
    head(event, record, type_name, payload)
}

type RowParts<'py> = (Bound<'py, PyString>, Bound<'py, PyString>, Bound<'py, PyAny>, u32, Option<i64>);

/// Puts id, time, event type and tags of an event, which stores keep too, beside its payload.
fn head(
    event: &Bound<'_, PyAny>,
    plan: &RecordPlan,
    type_name: Py<PyString>,
    payload: Py<PyBytes>,
) -> Res<EncodedEvent> {
    let py = event.py();
    if let Some(planned) = Planned::cast(event) {
        let (message, plan) = (planned.message(), planned.plan());
        let tags =
            stored(message, Meta::Tags).map(|tags| tags.cast_into::<PyTuple>().map(Bound::unbind)).transpose()?;
        let event_type = match stored(message, Meta::EventType) {
            Some(event_type) => event_type.cast_into::<PyString>()?.unbind(),
            None => plan.event_type.clone_ref(py),
        };
        let (event_id, occurred_at_us) = (message.body().id.get(), message.body().time_us.get());
        return Ok(EncodedEvent { event_id, type_name, event_type, occurred_at_us, tags, payload });
    }
    let id = event.getattr(intern!(py, "event_id"))?;
    if !values::is_uuid(&id) {
        return fail(format!("a UUID expected, not {}", values::shown(&id))).at("event_id");
    }
    let event_id = values::uuid_to_bytes(&id, "event_id").at("event_id")?;
    let time = event.getattr(intern!(py, "occurred_at"))?;
    let occurred_at_us = values::datetime_to_us(&time, "occurred_at").at("occurred_at")?;
    let event_type = match event.getattr(intern!(py, "event_type"))?.cast_into::<PyString>() {
        Ok(event_type) => event_type,
        Err(_) => PyString::new(py, &plan.name),
    };
    Ok(EncodedEvent { event_id, type_name, event_type: event_type.unbind(), occurred_at_us, tags: None, payload })
}

/// Gives a decoded event its version and position.
fn number(event: &Bound<'_, PyAny>, plan: &RecordPlan, version: u32, sequence_number: Option<i64>) -> Res<()> {
    let py = event.py();
    if let Some(planned) = plan.fields(py)?.message.and_then(|layout| Planned::fresh(event, layout)) {
        builder::stamp(planned.message(), version, sequence_number.unwrap_or(UNSTAMPED));
        return Ok(());
    }
    event::generic_setattr(event, intern!(py, "version"), version.into_pyobject(py)?.as_any())?;
    event::generic_setattr(event, intern!(py, "sequence_number"), sequence_number.into_pyobject(py)?.as_any())?;
    Ok(())
}

/// The bytes of a payload: `bytes`, `str` (a text column), or anything else that `bytes()` takes.
fn payload_bytes<'a>(payload: &'a Bound<'_, PyAny>) -> PyResult<std::borrow::Cow<'a, [u8]>> {
    let py = payload.py();
    let bytes: std::borrow::Cow<'a, [u8]> = if let Ok(bytes) = payload.cast::<PyBytes>() {
        bytes.as_bytes().into()
    } else if let Ok(text) = payload.cast::<PyString>() {
        match text.to_str() {
            Ok(text) => text.as_bytes().into(),
            Err(_) => return Err(SerializationError::new_err(("payload: not UTF-8", "payload"))),
        }
    } else if payload.is_instance_of::<pyo3::types::PyByteArray>()
        || payload.is_instance_of::<pyo3::types::PyMemoryView>()
    {
        let made = py.get_type::<PyBytes>().call1((payload,))?.cast_into::<PyBytes>()?;
        made.as_bytes().to_vec().into()
    } else {
        let message = format!("payload: bytes expected, not {}", values::shown(payload));
        return Err(SerializationError::new_err((message, "payload")));
    };
    if bytes.len() > MAX_PAYLOAD_BYTES {
        let message = format!("payload: larger than {MAX_PAYLOAD_BYTES} bytes");
        return Err(SerializationError::new_err((message, "payload")));
    }
    Ok(bytes)
}

/// Adds the classes and functions of this part to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("MAX_PAYLOAD_BYTES", MAX_PAYLOAD_BYTES)?;
    module.add("MAX_VALUE_DEPTH", MAX_DEPTH)?;
    module.add_class::<CodecCore>()?;
    module.add_class::<EncodedEvent>()?;
    module.add_class::<TypePlan>()?;
    module.add_class::<RecordPlan>()?;
    module.add_function(wrap_pyfunction!(compile_node, module)?)?;
    module.add_function(wrap_pyfunction!(registry::registry_changed, module)?)?;
    Ok(())
}
