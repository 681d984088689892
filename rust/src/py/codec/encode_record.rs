//! Objects with fields: events, messages, dataclasses, pydantic models, named tuples.
use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet, PyString, PyTuple};

use super::encode::Encoder;
use super::fault::{At, Res, fail, fault};
use super::metadata::{self};
use super::node::Node;
use super::record::{Field, Fields, RecordPlan, Style};
use super::sink::Sink;
use crate::core::{binary, wire};
use crate::py::event::{self, Planned};

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
        let (mut first, mut place) = (true, 0);
        for field in &fields.list {
            let found = match &own {
                Some(own) => event::next_value(own, &mut place, &field.name),
                None => None,
            };
            let found = match found {
                Some(found) => Some(found),
                None => self.elsewhere(own.as_ref(), value, field)?,
            };
            self.field(field, found.as_ref(), &mut first, depth)?;
        }
        if !extras.is_empty() {
            self.extras(&extras, &mut first, depth)?;
        }
        self.close();
        Ok(())
    }

    /// Looks an attribute up that is not where most instances of its class have it.
    #[cold]
    fn elsewhere(
        &self,
        own: Option<&Bound<'py, PyDict>>,
        value: &Bound<'py, PyAny>,
        field: &Field,
    ) -> Res<Option<Bound<'py, PyAny>>> {
        let name = field.name.bind(self.py);
        match own.map(|own| own.get_item(name)).transpose()?.flatten() {
            Some(found) => Ok(Some(found)),
            None => attribute(value, name),
        }
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
    #[inline(always)]
    fn begin_record(&mut self, fields: &Fields, plan: &RecordPlan, open: bool) {
        if !S::BINARY {
            self.sink.out().push(b'{');
            return;
        }
        let tag = if open { wire::OPEN_RECORD } else { wire::RECORD };
        let (address, number) = self.last_shape;
        if address == std::ptr::from_ref(plan) as usize && number < 0x80 {
            self.sink.out().extend_from_slice(&[tag, number as u8]);
        } else {
            self.begin_shape(fields, plan, tag);
        }
    }

    /// Begins an object of another shape than the last one.
    #[inline(never)]
    fn begin_shape(&mut self, fields: &Fields, plan: &RecordPlan, tag: u8) {
        let address = std::ptr::from_ref(plan) as usize;
        let out = self.sink.out();
        match self.shapes.iter().position(|shape| *shape == address) {
            Some(index) => {
                self.last_shape = (address, index as u64 + 1);
                out.push(tag);
                binary::write_varint(out, self.last_shape.1);
            }
            None => {
                out.extend_from_slice(&[tag, 0]);
                out.extend_from_slice(&fields.header);
                self.shapes.push(address);
                self.last_shape = (address, self.shapes.len() as u64);
            }
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

    #[cold]
    fn extras(&mut self, extras: &Extras<'py>, first: &mut bool, depth: usize) -> Res<()> {
        if S::BINARY {
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

    /// Writes an event that is the whole payload.
    #[inline(always)]
    pub fn event(&mut self, plan: &RecordPlan, fields: &Fields, value: &Bound<'py, PyAny>) -> Res<()> {
        match plan.style {
            Style::Contract => self.contract(plan, fields, value, 0, false),
            _ => self.message(plan, fields, value, 0, false),
        }
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
        if !extras.is_empty() {
            self.extras(&extras, &mut first, depth)?;
        }
        if !S::BINARY {
            self.comma(&mut first);
            self.sink.out().extend_from_slice(b"\"$meta\":");
            self.message_meta(message, layout.kind, depth, nested)?;
        }
        self.close();
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
        if !extras.is_empty() {
            self.extras(&extras, &mut first, depth)?;
        }
        if !S::BINARY {
            self.comma(&mut first);
            self.sink.out().extend_from_slice(b"\"$meta\":");
            self.contract_meta(value, depth, nested)?;
        }
        self.close();
        Ok(())
    }
}

fn own_dict<'py>(value: &Bound<'py, PyAny>) -> Res<Bound<'py, PyDict>> {
    event::instance_dict(value)?.cast_into::<PyDict>().map_err(|_| fault("no plain __dict__"))
}

/// Returns an attribute, None if the object does not have it.
pub(super) fn attribute<'py>(value: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> Res<Option<Bound<'py, PyAny>>> {
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
