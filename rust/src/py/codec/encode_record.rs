//! Objects with fields: events, messages, dataclasses, pydantic models, named tuples.
use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet, PyString, PyTuple};

use super::encode::Encoder;
use super::fault::{At, Res, fail, fault};
use super::metadata::{self, MetaPlan};
use super::node::Node;
use super::record::{Field, Fields, RecordPlan, Style};
use super::sink::Sink;
use crate::core::{binary, wire};
use crate::py::event::{MessageRef, Planned};
use crate::py::metadata::{Kind, Meta, stored};

/// Attributes beyond the declared fields, under the names they are written as.
type Extras<'py> = Vec<(String, Bound<'py, PyAny>)>;

impl<'py, S: Sink> Encoder<'_, 'py, S> {
    /// Writes an object under its own plan.
    pub fn record(&mut self, plan: &RecordPlan, value: &Bound<'py, PyAny>, depth: usize) -> Res<()> {
        let fields = plan.fields(self.py)?;
        match plan.style {
            Style::Event | Style::Message => return self.message(plan, fields, value, depth, true),
            Style::Contract => return self.contract(plan, fields, value, depth, true),
            Style::NamedTuple => return self.named_tuple(fields, value.cast()?, depth),
            Style::TypedDict => return self.typed_dict(fields, value.cast()?, depth),
            Style::Dataclass | Style::Pydantic => {}
        }
        if let Some(slots) = &fields.slots {
            self.begin_record(fields, plan, false);
            let mut first = true;
            for (index, field) in fields.list.iter().enumerate() {
                let found = slots.get(value, index);
                self.field(field, found.as_ref(), &mut first, depth)?;
            }
            self.close();
            return Ok(());
        }
        let own = if plan.has_dict { Some(own_dict(value)?) } else { None };
        let mut extras = Vec::new();
        if let Some(own) = &own
            && (own.len() > fields.list.len() || plan.style == Style::Pydantic)
        {
            collect_extras(plan, fields, own, &[], &mut extras)?;
        }
        if plan.style == Style::Pydantic {
            model_parts(fields, value, &mut extras)?;
        }
        self.begin_record(fields, plan, !extras.is_empty());
        let py = self.py;
        let mut first = true;
        for field in &fields.list {
            let name = field.name.bind(py);
            let found = match &own {
                Some(own) => own.get_item(name)?,
                None => None,
            };
            let found = match found {
                Some(found) => Some(found),
                None => attribute(value, name)?,
            };
            self.field(field, found.as_ref(), &mut first, depth)?;
        }
        self.extras(&extras, &mut first, depth)?;
        self.close();
        Ok(())
    }

    fn named_tuple(&mut self, fields: &Fields, value: &Bound<'py, PyTuple>, depth: usize) -> Res<()> {
        if value.len() != fields.list.len() {
            return fail("a named tuple of another length");
        }
        self.sink.begin_named_tuple(fields.list.len());
        for (index, (field, item)) in fields.list.iter().zip(value.iter_borrowed()).enumerate() {
            self.sink.next(index);
            self.value(&field.node, &item, depth + 1).at(&field.text)?;
        }
        if !S::BINARY {
            self.sink.out().push(b']');
        }
        Ok(())
    }

    fn typed_dict(&mut self, fields: &Fields, value: &Bound<'py, PyDict>, depth: usize) -> Res<()> {
        let items = value.items();
        self.sink.begin_dict(items.len(), true);
        for (index, pair) in items.iter().enumerate() {
            let (key, item): (Bound<'py, PyString>, Bound<'py, PyAny>) = pair.extract()?;
            self.sink.begin_pair(index, true);
            self.text(&key)?;
            self.sink.between_pair(true);
            let name = key.to_str().unwrap_or_default();
            let node = fields.index.get(name).map_or(&Node::Any, |index| &fields.list[*index].node);
            self.value(node, &item, depth + 1).at(name)?;
            self.sink.end_pair(true);
        }
        self.sink.end_dict(true);
        Ok(())
    }

    /// Begins an object; in binary that is its shape.
    fn begin_record(&mut self, fields: &Fields, plan: &RecordPlan, open: bool) {
        if !S::BINARY {
            self.sink.out().push(b'{');
            return;
        }
        let address = std::ptr::from_ref(plan) as usize;
        if self.last_shape.0 != address {
            let known = self.shapes.iter().position(|shape| *shape == address);
            self.last_shape = (address, known.map_or(0, |index| index as u64 + 1));
        }
        let tag = if open { wire::OPEN_RECORD } else { wire::RECORD };
        let out = self.sink.out();
        if self.last_shape.1 == 0 {
            out.extend_from_slice(&[tag, 0]);
            out.extend_from_slice(&fields.header);
            self.shapes.push(address);
            self.last_shape.1 = self.shapes.len() as u64;
        } else if self.last_shape.1 < 0x80 {
            out.extend_from_slice(&[tag, self.last_shape.1 as u8]);
        } else {
            out.push(tag);
            binary::write_varint(out, self.last_shape.1);
        }
    }

    fn close(&mut self) {
        if !S::BINARY {
            self.sink.out().push(b'}');
        }
    }

    /// Writes one field; None is one that the object does not have.
    #[inline(always)]
    fn field(&mut self, field: &Field, value: Option<&Bound<'py, PyAny>>, first: &mut bool, depth: usize) -> Res<()> {
        let Some(value) = value else {
            if S::BINARY {
                self.sink.out().push(wire::ABSENT);
            }
            return Ok(());
        };
        if !S::BINARY {
            self.comma(first);
            self.sink.out().extend_from_slice(&field.key);
        }
        self.put(&field.node, value, depth + 1).at(&field.text)
    }

    fn comma(&mut self, first: &mut bool) {
        if !*first {
            self.sink.out().push(b',');
        }
        *first = false;
    }

    fn extras(&mut self, extras: &Extras<'py>, first: &mut bool, depth: usize) -> Res<()> {
        if S::BINARY && !extras.is_empty() {
            binary::write_varint(self.sink.out(), extras.len() as u64);
        }
        for (name, value) in extras {
            if S::BINARY {
                binary::write_bytes(self.sink.out(), name.as_bytes());
            } else {
                self.comma(first);
                self.sink.text(name);
                self.sink.out().push(b':');
            }
            self.value(&Node::Any, value, depth + 1).at(name)?;
        }
        Ok(())
    }

    /// Writes an event or another message of ours; `nested` ones with their version and position.
    pub fn message(
        &mut self,
        plan: &RecordPlan,
        fields: &Fields,
        value: &Bound<'py, PyAny>,
        depth: usize,
        nested: bool,
    ) -> Res<()> {
        let Some(planned) = Planned::cast(value) else { return fail("not a message") };
        let (message, layout) = (planned.message(), planned.plan());
        let mut extras = Vec::new();
        if let Some(extra) = message.extra() {
            collect_extras(plan, fields, &extra, &[], &mut extras)?;
        }
        if S::BINARY {
            self.sink.out().push(wire::EVENT);
            self.message_meta(message, layout.kind, depth, nested)?;
        }
        self.begin_record(fields, plan, !extras.is_empty());
        let mut first = true;
        for (index, field) in fields.list.iter().enumerate() {
            let found = planned.get(index);
            self.field(field, found.as_ref(), &mut first, depth)?;
        }
        self.extras(&extras, &mut first, depth)?;
        if !S::BINARY {
            self.comma(&mut first);
            self.sink.out().extend_from_slice(b"\"$meta\":");
            self.message_meta(message, layout.kind, depth, nested)?;
        }
        self.close();
        Ok(())
    }

    fn message_meta(&mut self, message: MessageRef<'_, 'py>, kind: Kind, depth: usize, nested: bool) -> Res<()> {
        let plan = metadata::get();
        let mut writer = MetaWriter::begin(self);
        let (id, time) = if kind == Kind::Event { (0, 1) } else { (13, 14) };
        writer.name(self, id);
        self.sink.uuid(&message.body().id.get(), false);
        writer.name(self, time);
        if !self.sink.utc(message.body().time_us.get()) {
            return fail("a time beyond the years 1 to 9999").at("occurred_at");
        }
        let rare = message.body().rare().is_some();
        if kind == Kind::Event && !(rare && stored(message, Meta::SchemaVersion).is_some()) {
            writer.name(self, metadata::SCHEMA_VERSION);
            self.sink.int(i64::from(message.body().schema.get()));
        }
        for (meta, index) in if rare { &metadata::STORED[..] } else { &metadata::INLINE[..] } {
            let (meta, index) = (*meta, *index);
            let Some(value) = stored(message, meta) else { continue };
            // Commands keep the context here until somebody asks for their metadata.
            let value = if kind == Kind::Message { crate::py::metadata::get(message, meta)? } else { value };
            writer.name(self, index);
            self.value(plan.node(index, kind == Kind::Message), &value, depth + 1).at(wire::META[index])?;
        }
        if nested && kind == Kind::Event {
            let (version, sequence) = (message.body().version.get(), message.body().sequence.get());
            if version != 0 {
                writer.name(self, metadata::VERSION);
                self.sink.int(i64::from(version));
            }
            if sequence != crate::py::event::UNSTAMPED {
                writer.name(self, metadata::SEQUENCE_NUMBER);
                self.sink.int(sequence);
            }
        }
        writer.end(self);
        Ok(())
    }

    /// Writes an instance of the framework's own event class, whose attributes are all in its dictionary.
    pub fn contract(
        &mut self,
        plan: &RecordPlan,
        fields: &Fields,
        value: &Bound<'py, PyAny>,
        depth: usize,
        nested: bool,
    ) -> Res<()> {
        let py = self.py;
        let own = own_dict(value)?;
        let mut extras = Vec::new();
        collect_extras(plan, fields, &own, &metadata::CONTRACT, &mut extras)?;
        if S::BINARY {
            self.sink.out().push(wire::EVENT);
            self.contract_meta(value, depth, nested)?;
        }
        self.begin_record(fields, plan, !extras.is_empty());
        let mut first = true;
        for field in &fields.list {
            let name = field.name.bind(py);
            let found = match own.get_item(name)? {
                Some(found) => Some(found),
                None => attribute(value, name)?,
            };
            self.field(field, found.as_ref(), &mut first, depth)?;
        }
        self.extras(&extras, &mut first, depth)?;
        if !S::BINARY {
            self.comma(&mut first);
            self.sink.out().extend_from_slice(b"\"$meta\":");
            self.contract_meta(value, depth, nested)?;
        }
        self.close();
        Ok(())
    }

    fn contract_meta(&mut self, value: &Bound<'py, PyAny>, depth: usize, nested: bool) -> Res<()> {
        let plan: &MetaPlan = metadata::get();
        let class_name = value.get_type().name()?;
        let mut writer = MetaWriter::begin(self);
        for index in metadata::CONTRACT {
            let stamped = index == metadata::VERSION || index == metadata::SEQUENCE_NUMBER;
            if stamped && !nested {
                continue;
            }
            let name = wire::META[index];
            let Some(found) = attribute(value, &PyString::intern(self.py, name))? else { continue };
            let default = found.is_none() || (index == metadata::EVENT_TYPE && found.eq(&class_name)?);
            if default && index > 1 {
                continue;
            }
            writer.name(self, index);
            self.value(plan.node(index, false), &found, depth + 1).at(name)?;
        }
        writer.end(self);
        Ok(())
    }
}

/// Writes metadata entries; in binary their count goes where it begins.
struct MetaWriter {
    start: usize,
    count: u8,
}

impl MetaWriter {
    fn begin<S: Sink>(encoder: &mut Encoder<'_, '_, S>) -> Self {
        let out = encoder.sink.out();
        out.push(if S::BINARY { 0 } else { b'{' });
        Self { start: out.len() - 1, count: 0 }
    }

    fn name<S: Sink>(&mut self, encoder: &mut Encoder<'_, '_, S>, index: usize) {
        let out = encoder.sink.out();
        if S::BINARY {
            out.push(index as u8);
        } else {
            if self.count > 0 {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(wire::META[index].as_bytes());
            out.extend_from_slice(b"\":");
        }
        self.count += 1;
    }

    fn end<S: Sink>(self, encoder: &mut Encoder<'_, '_, S>) {
        let out = encoder.sink.out();
        if S::BINARY {
            // At most fifteen names: one byte.
            out[self.start] = self.count;
        } else {
            out.push(b'}');
        }
    }
}

fn own_dict<'py>(value: &Bound<'py, PyAny>) -> Res<Bound<'py, PyDict>> {
    let own = value.getattr(intern!(value.py(), "__dict__"))?;
    own.cast_into::<PyDict>().map_err(|_| fault("no plain __dict__"))
}

/// Returns an attribute, None if the object does not have it.
fn attribute<'py>(value: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> Res<Option<Bound<'py, PyAny>>> {
    match value.getattr(name) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_instance_of::<PyAttributeError>(value.py()) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Adds the attributes that are neither fields nor computed on demand; a name that begins with `$` gets a second one.
fn collect_extras<'py>(
    plan: &RecordPlan,
    fields: &Fields,
    own: &Bound<'py, PyDict>,
    meta: &[usize],
    extras: &mut Extras<'py>,
) -> Res<()> {
    for pair in own.items().iter() {
        let (key, value): (Bound<'py, PyAny>, Bound<'py, PyAny>) = pair.extract()?;
        let Ok(text) = key.cast::<PyString>() else { return fail("an attribute whose name is not text") };
        let name = text.to_str()?;
        let is_meta = meta.iter().any(|index| wire::META[*index] == name);
        if is_meta || name == "__orig_class__" || fields.index.contains_key(name) || plan.hides(own.py(), name)? {
            continue;
        }
        extras.push((if name.starts_with('$') { format!("${name}") } else { name.to_owned() }, value));
    }
    Ok(())
}

/// Adds what a pydantic model has beside its fields.
fn model_parts<'py>(fields: &Fields, value: &Bound<'py, PyAny>, extras: &mut Extras<'py>) -> Res<()> {
    let py = value.py();
    for (name, attribute) in [("$extra", "__pydantic_extra__"), ("$private", "__pydantic_private__")] {
        let part = value.getattr(attribute)?;
        if part.is_truthy()? {
            extras.push((name.to_owned(), part));
        }
    }
    let set = value.getattr(intern!(py, "__pydantic_fields_set__"))?;
    let set = set.cast::<PySet>()?;
    let unset = PyList::empty(py);
    for field in &fields.list {
        if !set.contains(&field.name)? {
            unset.append(&field.name)?;
        }
    }
    if !unset.is_empty() {
        extras.push(("$unset".to_owned(), unset.into_any()));
    }
    Ok(())
}
