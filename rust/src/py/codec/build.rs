//! Objects with fields from what a decoder found: no user code of the class runs, except a pydantic model's own parts.
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::fault::{At, Res, fail, fault};
use super::known::Known;
use super::metadata;
use super::record::{Fields, RecordPlan, Style};
use crate::core::wire;
use crate::py::builder::Builder;
use crate::py::event;
use crate::py::metadata::{Kind, Meta, store};
use crate::py::plan::Fallback;

/// The parts of one object, as they are found.
pub struct Parts<'py> {
    pub values: Vec<Option<Bound<'py, PyAny>>>,
    /// Names that are not fields; the leading `$` of escaped names is off.
    pub extra: Option<Bound<'py, PyDict>>,
    pub meta: [Option<Bound<'py, PyAny>>; wire::META.len()],
    pub id: Option<[u8; 16]>,
    pub time_us: Option<i64>,
}

impl<'py> Parts<'py> {
    pub fn new(fields: &Fields) -> Self {
        let values = std::iter::repeat_with(|| None).take(fields.list.len()).collect();
        Self { values, extra: None, meta: Default::default(), id: None, time_us: None }
    }

    /// Keeps the value of a name that is no field.
    pub fn add_extra(&mut self, py: Python<'py>, name: &str, value: Bound<'py, PyAny>) -> Res<()> {
        let extra = self.extra.get_or_insert_with(|| PyDict::new(py));
        let name = if name.starts_with("$$") { &name[1..] } else { name };
        extra.set_item(name, value)?;
        Ok(())
    }

    /// Makes the object.
    pub fn build(mut self, py: Python<'py>, plan: &RecordPlan, known: &Known) -> Res<Bound<'py, PyAny>> {
        let fields = plan.fields(py)?;
        match plan.style {
            Style::Event | Style::Message => return self.message(py, plan, fields),
            Style::NamedTuple => return self.named_tuple(py, plan, fields),
            Style::Pydantic => return self.model(py, plan, fields, known),
            Style::Contract | Style::Dataclass | Style::TypedDict => {}
        }
        let object = bare(py, plan)?;
        for index in 0..fields.list.len() {
            let value = self.value(py, plan, fields, index)?;
            match &fields.slots {
                Some(slots) if slots.put(&object, index, value.clone()) => {}
                _ => event::generic_setattr(&object, fields.list[index].name.bind(py), &value)?,
            }
        }
        if plan.style == Style::Contract {
            self.contract_meta(py, plan, &object)?;
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
    fn value(&mut self, py: Python<'py>, plan: &RecordPlan, fields: &Fields, index: usize) -> Res<Bound<'py, PyAny>> {
        if let Some(value) = self.values[index].take() {
            return Ok(value);
        }
        let field = &fields.list[index];
        match field.make_default(py).at(&field.text)? {
            Some(value) => Ok(value),
            None => fail(format!("missing in the stored data, and {} has no default for it", plan.name)).at(&field.text),
        }
    }

    fn named_tuple(mut self, py: Python<'py>, plan: &RecordPlan, fields: &Fields) -> Res<Bound<'py, PyAny>> {
        let values = (0..fields.list.len()).map(|index| self.value(py, plan, fields, index)).collect::<Res<Vec<_>>>()?;
        let tuple = PyTuple::new(py, values)?;
        Ok(py.get_type::<PyTuple>().call_method1(intern!(py, "__new__"), (&plan.class, tuple))?)
    }

    fn model(mut self, py: Python<'py>, plan: &RecordPlan, fields: &Fields, known: &Known) -> Res<Bound<'py, PyAny>> {
        let values = PyDict::new(py);
        for index in 0..fields.list.len() {
            let value = self.value(py, plan, fields, index)?;
            values.set_item(&fields.list[index].name, value)?;
        }
        Ok(known.finish_model.bind(py).call1((&plan.class, values, self.extra))?)
    }

    fn message(mut self, py: Python<'py>, plan: &RecordPlan, fields: &Fields) -> Res<Bound<'py, PyAny>> {
        let Some(layout) = fields.message else { return fail("not a message class") };
        let builder = Builder::new(py, layout)?;
        for index in 0..fields.list.len() {
            match (self.values[index].take(), &layout.fields[index].fallback) {
                (Some(value), _) => builder.set_field(index, value),
                // Reports what is missing; other defaults are filled in at the end.
                (None, Fallback::Required) => drop(self.value(py, plan, fields, index)?),
                (None, _) => {}
            }
        }
        match self.id {
            Some(id) => builder.set_id(id),
            None => return fail("missing in the stored data").at("event_id").at("$meta"),
        }
        match self.time_us {
            Some(time_us) => builder.set_time_us(time_us),
            None => return fail("missing in the stored data").at("occurred_at").at("$meta"),
        }
        for (index, value) in self.meta.iter_mut().enumerate() {
            let Some(value) = value.take() else { continue };
            let meta = metadata::OURS[index];
            let fits = layout.kind == Kind::Event || matches!(meta, Meta::EventId | Meta::OccurredAt | Meta::Metadata);
            if meta == Meta::Tags && is_tags(&value) {
                store(builder.planned().message(), meta, Some(value));
            } else if fits {
                builder.set_meta(meta, &value).at(wire::META[index])?;
            }
        }
        if let Some(extra) = &self.extra {
            builder.set_extra(extra)?;
        }
        Ok(builder.finish()?)
    }

    fn contract_meta(&mut self, py: Python<'py>, plan: &RecordPlan, object: &Bound<'py, PyAny>) -> Res<()> {
        for index in metadata::CONTRACT {
            let name = wire::META[index];
            let value = match (index, self.meta[index].take(), self.id, self.time_us) {
                (_, Some(value), ..) => value,
                (0, None, Some(id), _) => crate::py::values::uuid_from_bytes(py, id)?,
                (1, None, _, Some(time_us)) => crate::py::values::datetime_from_us(py, time_us)?,
                (0 | 1, None, ..) => return fail("missing in the stored data").at(name).at("$meta"),
                (metadata::EVENT_TYPE, ..) => PyString::new(py, &plan.name).into_any(),
                (metadata::SCHEMA_VERSION, ..) => 1_i64.into_pyobject(py)?.into_any(),
                (metadata::VERSION, ..) => continue,
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
    let texts: Vec<_> = tags.iter_borrowed().filter_map(|tag| Some(tag.cast_exact::<PyString>().ok()?.to_str().ok()?.to_owned())).collect();
    !texts.is_empty() && texts.len() == tags.len() && texts.iter().enumerate().all(|(at, tag)| !tag.is_empty() && !texts[..at].contains(tag))
}

/// An instance without any attribute, where `object.__new__` would make one.
fn bare<'py>(py: Python<'py>, plan: &RecordPlan) -> Res<Bound<'py, PyAny>> {
    if plan.allocates(py)? {
        return Ok(event::bare_instance(plan.class.bind(py))?);
    }
    Err(fault(format!("{} cannot be made without calling it", plan.name)))
}
