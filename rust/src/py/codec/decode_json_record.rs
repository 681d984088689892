//! Objects with fields, and their metadata, from the JSON form.
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::build::Parts;
use super::decode_json::{Decoder, Value};
use super::fault::{At, Res, fail};
use super::make;
use super::metadata;
use super::node::Node;
use super::record::{Fields, RecordPlan, Style};
use crate::core::calendar::{Zone, parse_datetime};
use crate::core::json::Text;
use crate::core::{text, wire};
use crate::py::event;

impl<'a, 'c, 'py> Decoder<'a, 'c, 'py> {
    pub(super) fn named_tuple(&mut self, plan: &RecordPlan, depth: usize) -> Value<'py> {
        let fields = plan.fields(self.py)?;
        let mut parts = Parts::new(self.py, plan, fields)?;
        let mut index = 0;
        let mut more = !self.scanner.take(b']');
        while more {
            let Some(field) = fields.list.get(index) else {
                return fail(format!("more than {} items", fields.list.len()));
            };
            parts.set(index, self.value(&field.node, depth + 1).at(&field.text)?)?;
            index += 1;
            more = self.scanner.more(b']', "comma or ]")?;
        }
        parts.build(self.known)
    }

    pub(super) fn typed_dict(&mut self, plan: &RecordPlan, depth: usize) -> Value<'py> {
        let fields = plan.fields(self.py)?;
        let dict = PyDict::new(self.py);
        let mut more = !self.scanner.take(b'}');
        while more {
            let key = self.key()?;
            let (name, key) = match &key {
                Text::Plain(text) => (*text, event::text(self.py, text.as_bytes())?.into_any()),
                Text::Unescaped(text) => (text.as_str(), event::text(self.py, text.as_bytes())?.into_any()),
                Text::Lone(bytes) => ("", make::lone(self.py, bytes, self.known)?),
            };
            let node = fields.index.get(name).map_or(&Node::Any, |index| &fields.list[*index].node);
            let value = self.value(node, depth + 1).at(name)?;
            dict.set_item(key, value)?;
            more = self.scanner.more(b'}', "comma or }")?;
        }
        Ok(dict.into_any())
    }

    /// Reads the rest of an object whose brace has been taken.
    pub fn record(&mut self, plan: &RecordPlan, depth: usize) -> Value<'py> {
        let fields = plan.fields(self.py)?;
        let parts = self.parts(plan, fields, depth)?;
        parts.build(self.known)
    }

    fn parts<'p>(&mut self, plan: &'p RecordPlan, fields: &'p Fields, depth: usize) -> Res<Parts<'p, 'py>> {
        let mut parts = Parts::new(self.py, plan, fields)?;
        let mut expected = 0;
        let mut more = !self.scanner.take(b'}');
        while more {
            self.scanner.peek();
            let next = fields.list.get(expected);
            let index = match next {
                // What we wrote ourselves comes in this order and without white space.
                Some(field) if self.scanner.take_exact(&field.key) => Some(expected),
                _ => self.other(plan, fields, &mut parts, depth)?,
            };
            if let Some(index) = index {
                let field = &fields.list[index];
                parts.set(index, self.next(&field.node, depth + 1).at(&field.text)?)?;
                expected = index + 1;
            }
            more = self.scanner.more(b'}', "comma or }")?;
        }
        Ok(parts)
    }

    /// Reads a key that does not come in the usual place: the index of its field, or None if it was dealt with here.
    fn other(
        &mut self,
        plan: &RecordPlan,
        fields: &Fields,
        parts: &mut Parts<'_, 'py>,
        depth: usize,
    ) -> Res<Option<usize>> {
        let key = self.key()?;
        let name = match &key {
            Text::Plain(text) => text,
            Text::Unescaped(text) => text.as_str(),
            Text::Lone(_) => return fail("a field name with lone surrogates"),
        };
        if let Some(index) = fields.index.get(name) {
            return Ok(Some(*index));
        }
        if name == "$meta" && matches!(plan.style, Style::Event | Style::Message | Style::Contract) {
            self.meta(plan.style, parts, depth + 1).at("$meta")?;
            return Ok(None);
        }
        let value = self.value(&Node::Any, depth + 1).at(name)?;
        parts.add_extra(name, value)?;
        Ok(None)
    }

    fn meta(&mut self, style: Style, parts: &mut Parts<'_, 'py>, depth: usize) -> Res<()> {
        self.scanner.expect(b'{', "an object")?;
        let plan = metadata::get();
        let mut expected = 0;
        let mut more = !self.scanner.take(b'}');
        while more {
            // What we wrote ourselves comes in this order and without white space.
            let next = (expected..plan.keys.len()).find(|index| self.scanner.take_exact(&plan.keys[*index]));
            if let Some(index) = next.map_or_else(|| self.meta_name(), |index| Ok(Some(index)))? {
                let node = plan.node(index, style == Style::Message);
                self.meta_value(style, node, index, parts, depth).at(wire::META[index])?;
                expected = index + 1;
            }
            more = self.scanner.more(b'}', "comma or }")?;
        }
        Ok(())
    }

    /// Reads a metadata name: its index, or None if it was dealt with here.
    fn meta_name(&mut self) -> Res<Option<usize>> {
        let key = self.key()?;
        let name = match &key {
            Text::Plain(text) => text,
            Text::Unescaped(text) => text.as_str(),
            Text::Lone(_) => return fail("a name with lone surrogates"),
        };
        let index = wire::META.iter().position(|known| *known == name);
        if index.is_none() {
            // A name from the future; nothing here could use it.
            self.scanner.skip()?;
        }
        Ok(index)
    }

    fn meta_value(
        &mut self,
        style: Style,
        node: &Node,
        index: usize,
        parts: &mut Parts<'_, 'py>,
        depth: usize,
    ) -> Res<()> {
        if style != Style::Contract {
            let place = self.scanner.at;
            match index {
                0 | 13 => {
                    let id = self.scanner.plain().and_then(|text| text::parse_uuid(text.as_bytes()));
                    if id.is_some_and(|id| parts.set_id(id)) {
                        return Ok(());
                    }
                }
                1 | 14 => {
                    if let Some((moment, Zone::Utc)) =
                        self.scanner.plain().and_then(|text| parse_datetime(text.as_bytes()))
                        && parts.set_time_us(moment.to_micros())
                    {
                        return Ok(());
                    }
                }
                metadata::SCHEMA_VERSION => {
                    if let Some(number) = self.scanner.small_int() {
                        return parts.set_schema(number);
                    }
                }
                _ => {}
            }
            self.scanner.at = place;
        }
        let value = self.value(node, depth + 1)?;
        parts.set_meta(index, value)
    }
}
