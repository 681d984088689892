//! Objects with fields from what a decoder found: no user code of the class runs, except a pydantic model's own parts.
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::fault::{At, Res, fail, fault};
use super::known::Known;
use super::metadata;
use super::record::{Field, Fields, RecordPlan, Style};
use crate::core::wire;
use crate::py::builder::Builder;
use crate::py::event::{self, SlotTable};
use crate::py::metadata::{Meta, store};
use crate::py::plan::Fallback;
use crate::py::values;

/// Where the values of the fields go.
enum Target<'p, 'py> {
    /// Straight into an event or another message of ours.
    Message(Builder<'py>),
    /// Straight into an instance of a slotted class.
    Slots(Bound<'py, PyAny>, &'p SlotTable),
    /// Straight into an instance of a class whose attributes are in a dictionary.
    Attributes(Bound<'py, PyAny>),
    /// Kept until the object is made.
    Values(Vec<Option<Bound<'py, PyAny>>>),
}

/// The parts of one object, as they are found.
pub struct Parts<'p, 'py> {
    py: Python<'py>,
    plan: &'p RecordPlan,
    fields: &'p Fields,
    target: Target<'p, 'py>,
    /// One bit for each field that was found; fields from the 64th on have none.
    found: u64,
    /// Names that are not fields; the leading `$` of escaped names is off.
    extra: Option<Bound<'py, PyDict>>,
    /// Metadata of an event of the framework's own class.
    meta: Option<Box<[Option<Bound<'py, PyAny>>; wire::META.len()]>>,
    has_id: bool,
    has_time: bool,
}

impl<'p, 'py> Parts<'p, 'py> {
    #[inline(always)]
    pub fn new(py: Python<'py>, plan: &'p RecordPlan, fields: &'p Fields) -> Res<Self> {
        let target = match (fields.message, &fields.slots) {
            (Some(layout), _) => Target::Message(Builder::new(py, layout)?),
            (None, Some(slots)) => Target::Slots(bare(py, plan)?, slots),
            (None, None) if plan.style == Style::Dataclass && fields.all != 0 => Target::Attributes(bare(py, plan)?),
            (None, None) => Target::Values(std::iter::repeat_with(|| None).take(fields.list.len()).collect()),
        };
        Ok(Self { py, plan, fields, target, found: 0, extra: None, meta: None, has_id: false, has_time: false })
    }

    /// Keeps the value of a field.
    #[inline(always)]
    pub fn set(&mut self, index: usize, value: Bound<'py, PyAny>) -> Res<()> {
        self.found |= 1_u64.checked_shl(index as u32).unwrap_or(0);
        match &mut self.target {
            Target::Message(builder) => builder.set_field(index, value),
            Target::Slots(object, slots) => drop(slots.put(object, index, value)),
            Target::Attributes(object) => {
                event::generic_setattr(object, self.fields.list[index].name.bind(self.py), &value)?;
            }
            Target::Values(values) => values[index] = Some(value),
        }
        Ok(())
    }

    /// Keeps the value of a field, which cannot lead back to the object.
    #[inline(always)]
    pub fn set_plain(&mut self, index: usize, field: &Field, value: Bound<'py, PyAny>) -> Res<()> {
        if let Target::Message(builder) = &self.target {
            self.found |= field.bit;
            builder.set_plain(index, value);
            return Ok(());
        }
        self.set(index, value)
    }

    /// Whether the field at an index was found, where the object itself does not tell.
    fn is_found(&self, index: usize) -> bool {
        1_u64.checked_shl(index as u32).is_some_and(|bit| self.found & bit != 0)
    }

    /// Whether every field was found.
    #[inline]
    fn is_complete(&self) -> bool {
        self.fields.all != 0 && self.found == self.fields.all
    }

    /// Keeps the value of a name that is no field.
    pub fn add_extra(&mut self, name: &str, value: Bound<'py, PyAny>) -> Res<()> {
        let extra = self.extra.get_or_insert_with(|| PyDict::new(self.py));
        let name = if name.starts_with("$$") { &name[1..] } else { name };
        extra.set_item(name, value)?;
        Ok(())
    }

    /// Keeps the id of a message of ours; false if the object is something else.
    pub fn set_id(&mut self, id: [u8; 16]) -> bool {
        let Target::Message(builder) = &self.target else { return false };
        builder.set_id(id);
        self.has_id = true;
        true
    }

    /// Keeps the time of a message of ours; false if the object is something else.
    pub fn set_time_us(&mut self, time_us: i64) -> bool {
        let Target::Message(builder) = &self.target else { return false };
        builder.set_time_us(time_us);
        self.has_time = true;
        true
    }

    /// Keeps the schema version of an event of ours.
    pub fn set_schema(&mut self, number: i64) -> Res<()> {
        if let (Target::Message(builder), Ok(small), Style::Event) =
            (&self.target, u16::try_from(number), self.plan.style)
        {
            builder.set_schema(small);
            return Ok(());
        }
        self.set_meta(metadata::SCHEMA_VERSION, number.into_pyobject(self.py)?.into_any())
    }

    /// Keeps id, time and schema version of an event of ours; false if the object is something else.
    #[inline(always)]
    pub fn set_usual(&mut self, id: [u8; 16], time_us: i64, schema: u16) -> bool {
        let Target::Message(builder) = &self.target else { return false };
        builder.set_id(id);
        builder.set_time_us(time_us);
        builder.set_schema(schema);
        (self.has_id, self.has_time) = (true, true);
        true
    }

    /// Keeps metadata by its index in `wire::META`.
    pub fn set_meta(&mut self, index: usize, value: Bound<'py, PyAny>) -> Res<()> {
        let Target::Message(builder) = &self.target else {
            self.meta.get_or_insert_default()[index] = Some(value);
            return Ok(());
        };
        let meta = metadata::OURS[index];
        match meta {
            Meta::EventId => drop(self.set_id(values::uuid_to_bytes(&value, "event_id")?)),
            Meta::OccurredAt => drop(self.set_time_us(values::datetime_to_us(&value, "occurred_at")?)),
            Meta::Tags if is_tags(&value) => store(builder.planned().message(), meta, Some(value)),
            _ if self.plan.style == Style::Event || meta == Meta::Metadata => builder.set_meta(meta, &value)?,
            _ => {}
        }
        Ok(())
    }

    /// Makes the object.
    #[inline(always)]
    pub fn build(self, known: &Known) -> Res<Bound<'py, PyAny>> {
        if self.is_complete() && self.extra.is_none() {
            match self.target {
                Target::Message(builder) if self.has_id && self.has_time => return Ok(builder.into_object()),
                Target::Slots(object, _) | Target::Attributes(object) => return Ok(object),
                target => return Self { target, ..self }.finish(known),
            }
        }
        self.finish(known)
    }

    /// Makes an object that is not of the usual kinds, or for which something was missing or too much.
    #[inline(never)]
    fn finish(mut self, known: &Known) -> Res<Bound<'py, PyAny>> {
        match self.plan.style {
            Style::Event | Style::Message => self.message(),
            Style::NamedTuple => self.named_tuple(),
            Style::Pydantic => self.model(known),
            Style::Contract | Style::Dataclass | Style::TypedDict => self.instance(known),
        }
    }

    fn instance(&mut self, known: &Known) -> Res<Bound<'py, PyAny>> {
        let (py, plan, fields) = (self.py, self.plan, self.fields);
        let object = match &self.target {
            Target::Slots(object, slots) => {
                for index in 0..if self.is_complete() { 0 } else { fields.list.len() } {
                    if slots.get(object, index).is_none() {
                        slots.put(object, index, self.default(index)?);
                    }
                }
                object.clone()
            }
            Target::Attributes(object) => {
                for index in 0..if self.is_complete() { 0 } else { fields.list.len() } {
                    if !self.is_found(index) {
                        event::generic_setattr(object, fields.list[index].name.bind(py), &self.default(index)?)?;
                    }
                }
                object.clone()
            }
            _ => {
                let object = bare(py, plan)?;
                for index in 0..fields.list.len() {
                    let value = self.value(index)?;
                    event::generic_setattr(&object, fields.list[index].name.bind(py), &value)?;
                }
                object
            }
        };
        if plan.style == Style::Contract {
            self.contract_meta(&object)?;
        }
        if let Some(extra) = &self.extra {
            // Straight into the dictionary: a name from the data must not reach a property or `__class__`.
            if plan.has_dict {
                object.getattr(intern!(py, "__dict__"))?.cast::<PyDict>()?.update(extra.as_mapping())?;
            } else {
                for name in extra.keys() {
                    known.drop_field.bind(py).call1((&plan.class, name))?;
                }
            }
        }
        Ok(object)
    }

    /// Takes the value of a field, its default if the data does not have it.
    fn value(&mut self, index: usize) -> Res<Bound<'py, PyAny>> {
        if let Target::Values(values) = &mut self.target
            && let Some(value) = values[index].take()
        {
            return Ok(value);
        }
        self.default(index)
    }

    /// Returns the default of a field, which is an error for one that has none.
    fn default(&self, index: usize) -> Res<Bound<'py, PyAny>> {
        let field = &self.fields.list[index];
        match field.make_default(self.py).at(&field.text)? {
            Some(value) => Ok(value),
            None => self.missing(index),
        }
    }

    fn missing<T>(&self, index: usize) -> Res<T> {
        let message = format!("missing in the stored data, and {} has no default for it", self.plan.name);
        fail(message).at(&self.fields.list[index].text)
    }

    fn named_tuple(&mut self) -> Res<Bound<'py, PyAny>> {
        let values = (0..self.fields.list.len()).map(|index| self.value(index)).collect::<Res<Vec<_>>>()?;
        let tuple = PyTuple::new(self.py, values)?;
        let class = self.py.get_type::<PyTuple>();
        Ok(class.call_method1(intern!(self.py, "__new__"), (&self.plan.class, tuple))?)
    }

    fn model(&mut self, known: &Known) -> Res<Bound<'py, PyAny>> {
        let values = PyDict::new(self.py);
        for index in 0..self.fields.list.len() {
            let value = self.value(index)?;
            values.set_item(&self.fields.list[index].name, value)?;
        }
        Ok(known.finish_model.bind(self.py).call1((&self.plan.class, values, &self.extra))?)
    }

    fn message(self) -> Res<Bound<'py, PyAny>> {
        let (true, true) = (self.has_id, self.has_time) else {
            return fail("missing in the stored data")
                .at(if self.has_id { "occurred_at" } else { "event_id" })
                .at("$meta");
        };
        let is_complete = self.is_complete();
        let Target::Message(builder) = &self.target else { return fail("not a message class") };
        if !is_complete {
            let planned = builder.planned();
            for (index, field) in planned.plan().fields.iter().enumerate() {
                // Other defaults are filled in at the end.
                if matches!(field.fallback, Fallback::Required) && !planned.is_set(index) {
                    return self.missing(index);
                }
            }
        }
        if let Some(extra) = &self.extra {
            builder.set_extra(extra)?;
        }
        let Target::Message(builder) = self.target else { return fail("not a message class") };
        if is_complete { Ok(builder.into_object()) } else { Ok(builder.finish()?) }
    }

    fn contract_meta(&mut self, object: &Bound<'py, PyAny>) -> Res<()> {
        let py = self.py;
        let mut meta = self.meta.take().unwrap_or_default();
        for index in metadata::CONTRACT {
            let name = wire::META[index];
            let value = match (index, meta[index].take()) {
                (_, Some(value)) => value,
                (0 | 1, None) => return fail("missing in the stored data").at(name).at("$meta"),
                (metadata::EVENT_TYPE, None) => PyString::new(py, &self.plan.name).into_any(),
                (metadata::SCHEMA_VERSION, None) => 1_i64.into_pyobject(py)?.into_any(),
                (metadata::VERSION, None) => continue,
                _ => py.None().into_bound(py),
            };
            event::generic_setattr(object, &PyString::intern(py, name), &value)?;
        }
        Ok(())
    }
}

/// Whether a value is a tuple of distinct, non-empty texts, as events keep their tags.
fn is_tags(value: &Bound<'_, PyAny>) -> bool {
    let Ok(tags) = value.cast_exact::<PyTuple>() else { return false };
    let texts: Vec<_> = tags
        .iter_borrowed()
        .filter_map(|tag| Some(tag.cast_exact::<PyString>().ok()?.to_str().ok()?.to_owned()))
        .collect();
    !texts.is_empty()
        && texts.len() == tags.len()
        && texts.iter().enumerate().all(|(at, tag)| !tag.is_empty() && !texts[..at].contains(tag))
}

/// An instance without any attribute, where `object.__new__` would make one.
fn bare<'py>(py: Python<'py>, plan: &RecordPlan) -> Res<Bound<'py, PyAny>> {
    if plan.allocates(py)? {
        let class = plan.class.bind(py);
        return Ok(if plan.has_dict { event::new_object(class)? } else { event::bare_instance(class)? });
    }
    Err(fault(format!("{} cannot be made without calling it", plan.name)))
}
