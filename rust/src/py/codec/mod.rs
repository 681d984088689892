//! The codec: events and values to JSON or binary payloads and back, by plans compiled once per class.
mod build;
mod decode_binary;
mod decode_binary_record;
mod decode_json;
mod decode_json_record;
mod decode_tagged;
mod encode;
mod encode_items;
mod encode_meta;
mod encode_record;
mod encode_scalar;
mod encoded;
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

use std::cell::RefCell;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use self::encode::Encoder;
use self::encoded::{EncodedEvent, head, not_an_event, stored_again};
use self::fault::{Fault, Res, fail};
use self::known::Known;
use self::node::Node;
use self::record::RecordPlan;
use self::registry::Names;
use self::sink::{Buffers, Sink};
use self::sink_binary::Binary;
use self::sink_json::Json;
use crate::core::binary::Reader;
use crate::core::shapes::Shapes;
use crate::core::{transcode, wire};
use crate::errors::SerializationError;
use crate::py::event::{Planned, UNSTAMPED};
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
    /// Borrowed while in use, so that an encoder that is called by what it encodes takes its own.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
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
    fn encode<'py>(&self, event: &Bound<'py, PyAny>) -> PyResult<Bound<'py, EncodedEvent>> {
        let py = event.py();
        self.encode_event(event).map_err(|fault| {
            let name = event.get_type().name().map_or_else(|_| "event".to_owned(), |name| name.to_string());
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
        let known = known::get(py)?;
        let result = if self.binary {
            self.payload::<Binary>(py, known, wire::VALUE_MAGIC, |encoder| encoder.value(node, value, 0))
        } else {
            self.payload::<Json>(py, known, 0, |encoder| encoder.value(node, value, 0))
        };
        result.map_err(|fault| fault.into_error(py, ""))
    }

    /// Returns the value of bytes, under a compiled type.
    fn decode_value<'py>(&self, data: &Bound<'py, PyAny>, plan: &Bound<'py, TypePlan>) -> PyResult<Bound<'py, PyAny>> {
        let py = data.py();
        let bytes = payload_bytes(data)?;
        self.decode_node(py, known::get(py)?, &bytes, &plan.get().0, wire::VALUE_MAGIC)
            .map_err(|fault| fault.into_error(py, ""))
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
        let known = known::get(payload.py())?;
        let (name, event_type) = (type_name.to_str()?, event_type.to_str()?);
        let Some(plan) = self.names.of_event(payload.py(), name, event_type, known)? else { return Ok(None) };
        self.decode_event(&plan, payload, version, sequence_number, known).map(Some)
    }

    /// Returns the events of many rows; `unknown` makes those whose type is not registered.
    fn decode_rows<'py>(&self, rows: &Bound<'py, PyAny>, unknown: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let py = rows.py();
        let known = known::get(py)?;
        let mut events = Vec::new();
        // Rows of one type often follow one another.
        let mut recent: Option<(Bound<'py, PyString>, Py<RecordPlan>)> = None;
        for row in rows.try_iter()? {
            let row = match row?.cast_into_exact::<PyTuple>() {
                Ok(row) => row,
                Err(error) => PyTuple::new(py, error.into_inner().try_iter()?.collect::<PyResult<Vec<_>>>()?)?,
            };
            let (type_name, event_type, payload, version, sequence_number): RowParts<'py> = row.extract()?;
            let name = type_name.to_str()?;
            if let Some((last, plan)) = &recent
                && last.to_str()? == name
            {
                events.push(self.decode_event(plan, &payload, version, sequence_number, known)?);
                continue;
            }
            let Some(plan) = self.names.of_event(py, name, event_type.to_str()?, known)? else {
                events.push(unknown.call1((type_name, event_type, payload, version, sequence_number))?);
                continue;
            };
            events.push(self.decode_event(&plan, &payload, version, sequence_number, known)?);
            recent = self.names.keeps(name).then_some((type_name, plan));
        }
        PyList::new(py, events)
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
            transcode::value(&mut reader, &mut Shapes::default(), &mut out)?;
            reader.end()?;
            Res::Ok(out)
        };
        convert().map(|out| PyBytes::new(py, &out)).map_err(|fault| fault.into_error(py, "payload"))
    }
}

impl CodecCore {
    fn encode_event<'py>(&self, event: &Bound<'py, PyAny>) -> Res<Bound<'py, EncodedEvent>> {
        let py = event.py();
        let known = known::get(py)?;
        let Some((plan, name)) = self.names.of_event_class(&event.get_type(), known)? else {
            return not_an_event(event);
        };
        let record = plan.get();
        if record.class.is(&known.unknown_event) {
            return stored_again(event, record);
        }
        let fields = record.fields(py)?;
        let payload = if self.binary {
            self.payload::<Binary>(py, known, wire::EVENT_MAGIC, |encoder| encoder.event(record, fields, event))
        } else {
            self.payload::<Json>(py, known, 0, |encoder| encoder.event(record, fields, event))
        }?;
        head(event, record, name, payload.unbind())
    }

    /// Runs an encoder over a kept buffer and returns what it wrote.
    fn payload<'py, S: Sink>(
        &self,
        py: Python<'py>,
        known: &'static Known,
        magic: u8,
        write: impl FnOnce(&mut Encoder<'_, 'py, S>) -> Res<()>,
    ) -> Res<Bound<'py, PyBytes>> {
        BUFFERS.with(|kept| match kept.try_borrow_mut() {
            Ok(mut kept) => self.written(py, known, magic, &mut kept, write),
            Err(_) => self.written(py, known, magic, &mut Buffers::default(), write),
        })
    }

    #[inline(always)]
    fn written<'py, S: Sink>(
        &self,
        py: Python<'py>,
        known: &'static Known,
        magic: u8,
        buffers: &mut Buffers,
        write: impl FnOnce(&mut Encoder<'_, 'py, S>) -> Res<()>,
    ) -> Res<Bound<'py, PyBytes>> {
        let (sink, shapes) = S::of(buffers);
        sink.out().clear();
        shapes.clear();
        if magic != 0 {
            sink.out().push(magic);
        }
        let result = write(&mut Encoder { py, sink, names: &self.names, known, last_shape: (0, 0), shapes });
        let out = sink.out();
        let result = match result {
            Ok(()) if out.len() > MAX_PAYLOAD_BYTES => fail(format!("larger than {MAX_PAYLOAD_BYTES} bytes")),
            Ok(()) => Ok(PyBytes::new(py, out)),
            Err(fault) => Err(fault),
        };
        if out.capacity() > KEPT_BUFFER {
            *sink = S::default();
        }
        result
    }

    /// Returns the event of a payload under its plan, with version and position.
    fn decode_event<'py>(
        &self,
        plan: &Py<RecordPlan>,
        payload: &Bound<'py, PyAny>,
        version: u32,
        sequence_number: Option<i64>,
        known: &'static Known,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = payload.py();
        let made;
        let bytes = match payload.cast::<PyBytes>() {
            Ok(bytes) if bytes.as_bytes().len() <= MAX_PAYLOAD_BYTES => bytes.as_bytes(),
            _ => {
                made = payload_bytes(payload)?;
                &made
            }
        };
        let record = plan.get();
        let event = match bytes {
            [wire::EVENT_MAGIC, wire::EVENT, ..] => {
                let mut decoder = decode_binary::Decoder::new(py, &self.names, known, bytes);
                decoder.reader.at = 2;
                decoder.event(record, 0).and_then(|event| decoder.reader.end().map(|()| event).map_err(Fault::from))
            }
            _ => self.decode_node(py, known, bytes, &Node::Record(plan.clone_ref(py)), wire::EVENT_MAGIC),
        };
        event
            .and_then(|event| number(&event, record, version, sequence_number).map(|()| event))
            .map_err(|fault| fault.into_error(py, &record.name))
    }

    fn decode_node<'py>(
        &self,
        py: Python<'py>,
        known: &'static Known,
        bytes: &[u8],
        node: &Node,
        magic: u8,
    ) -> Res<Bound<'py, PyAny>> {
        if let [first @ (wire::EVENT_MAGIC | wire::VALUE_MAGIC), ..] = bytes {
            if *first != magic {
                return fail("damaged: an event where a value was expected, or the reverse");
            }
            let mut decoder = decode_binary::Decoder::new(py, &self.names, known, bytes);
            decoder.reader.at = 1;
            let value = decoder.value(node, 0)?;
            decoder.reader.end()?;
            return Ok(value);
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return fail("not JSON: not UTF-8") };
        let mut decoder = decode_json::Decoder::new(py, &self.names, known, text);
        let value = decoder.value(node, 0)?;
        decoder.scanner.end()?;
        Ok(value)
    }
}

type RowParts<'py> = (Bound<'py, PyString>, Bound<'py, PyString>, Bound<'py, PyAny>, u32, Option<i64>);

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
