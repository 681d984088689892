//! Objects with fields, and their metadata, from the binary form.
use super::build::Parts;
use super::decode_binary::{Decoder, Value};
use super::fault::{At, Res, fail};
use super::metadata;
use super::node::Node;
use super::record::{Field, Fields, RecordPlan, Style};
use crate::core::binary::Reader;
use crate::core::calendar::{DAY_US, is_python_day};
use crate::core::wire;

impl<'a, 'py> Decoder<'a, '_, 'py> {
    pub(super) fn named_tuple(&mut self, plan: &RecordPlan, depth: usize) -> Value<'py> {
        let fields = plan.fields(self.py)?;
        let mut parts = Parts::new(self.py, plan, fields)?;
        let count = self.reader.count()?;
        if !plan.is_array() || count > fields.list.len() {
            return fail(format!("at most {} items expected, {count} found", fields.list.len()));
        }
        for (index, field) in fields.list.iter().take(count).enumerate() {
            parts.set(index, self.value(&field.node, depth + 1).at(&field.text)?)?;
        }
        parts.build(self.known)
    }

    pub(super) fn record(&mut self, plan: &RecordPlan, open: bool, depth: usize) -> Value<'py> {
        let fields = plan.fields(self.py)?;
        let mut parts = Parts::new(self.py, plan, fields)?;
        self.fields(plan, fields, &mut parts, open, depth)?;
        parts.build(self.known)
    }

    fn fields(
        &mut self,
        plan: &RecordPlan,
        fields: &Fields,
        parts: &mut Parts<'_, 'py>,
        open: bool,
        depth: usize,
    ) -> Res<()> {
        let place = self.shapes.place(&mut self.reader)?;
        let mut header = self.reader.at_place(place);
        let defined_here = place == self.reader.at;
        if header.take_exact(&fields.header) && plan.style != Style::TypedDict {
            if defined_here {
                self.reader.at = header.at;
            }
            for (index, field) in fields.list.iter().enumerate() {
                self.field(index, field, parts, depth)?;
            }
        } else {
            // Written by another version of the class.
            self.other_fields(&mut header, defined_here, fields, parts, depth)?;
        }
        if open { self.open_fields(fields, parts, depth) } else { Ok(()) }
    }

    /// The fields of a shape that is not that of the class.
    #[cold]
    fn other_fields(
        &mut self,
        header: &mut Reader<'a>,
        defined_here: bool,
        fields: &Fields,
        parts: &mut Parts<'_, 'py>,
        depth: usize,
    ) -> Res<()> {
        let names = self.shapes.names(header)?;
        if defined_here {
            self.reader.at = header.at;
        }
        for name in names {
            match fields.index.get(name) {
                Some(index) => self.field(*index, &fields.list[*index], parts, depth)?,
                None if self.reader.peek() == Some(wire::ABSENT) => self.reader.at += 1,
                None => {
                    let value = self.by_json(&Node::Any, depth + 1).at(name)?;
                    parts.add_extra(name, value)?;
                }
            }
        }
        Ok(())
    }

    /// The fields that are not in a shape.
    #[cold]
    fn open_fields(&mut self, fields: &Fields, parts: &mut Parts<'_, 'py>, depth: usize) -> Res<()> {
        for _ in 0..self.reader.count()? {
            let name = self.reader.text()?;
            match fields.index.get(name) {
                Some(index) => self.field(*index, &fields.list[*index], parts, depth)?,
                None => {
                    let value = self.by_json(&Node::Any, depth + 1).at(name)?;
                    parts.add_extra(name, value)?;
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn field(&mut self, index: usize, field: &Field, parts: &mut Parts<'_, 'py>, depth: usize) -> Res<()> {
        if self.reader.peek() == Some(wire::ABSENT) {
            self.reader.at += 1;
            return Ok(());
        }
        match self.usual(&field.node).at(&field.text)? {
            Some(value) => parts.set_plain(index, field, value),
            None => {
                let value = self.compound(&field.node, depth + 1).at(&field.text)?;
                parts.set(index, value)
            }
        }
    }

    pub fn event(&mut self, plan: &RecordPlan, depth: usize) -> Value<'py> {
        if !matches!(plan.style, Style::Event | Style::Message | Style::Contract) {
            return fail(format!("an event where a {} was expected", plan.name));
        }
        let fields = plan.fields(self.py)?;
        let mut parts = Parts::new(self.py, plan, fields)?;
        let count = self.reader.count()?;
        let usual = if plan.style == Style::Event { self.usual_meta(count, &mut parts) } else { 0 };
        for _ in usual..count {
            let index = usize::from(self.reader.byte()?);
            let Some(name) = wire::META.get(index) else { return fail("damaged: a metadata name expected") };
            self.meta(plan.style, index, &mut parts, depth).at(name).at("$meta")?;
        }
        let open = match self.reader.byte()? {
            wire::RECORD => false,
            wire::OPEN_RECORD => true,
            _ => return fail("damaged: a record expected"),
        };
        self.fields(plan, fields, &mut parts, open, depth)?;
        parts.build(self.known)
    }

    /// Takes the id, time and schema version of an event where they come first and are written as usual; returns how many
    /// names that were.
    #[inline(always)]
    fn usual_meta(&mut self, count: usize, parts: &mut Parts<'_, 'py>) -> usize {
        const SCHEMA: u8 = metadata::SCHEMA_VERSION as u8;
        let Some([0, wire::UUID, rest @ .., SCHEMA, wire::INT, schema @ 0..0x80]) = self.reader.ahead::<31>() else {
            return 0;
        };
        let [id @ .., 1, wire::UTC, _, _, _, _, _, _, _, _] = rest else { return 0 };
        let Some(time) = rest.last_chunk() else { return 0 };
        let micros = i64::from_le_bytes(*time);
        // Zigzag: an odd number is negative.
        if count < 3 || schema & 1 != 0 || !is_python_day(micros.div_euclid(DAY_US)) {
            return 0;
        }
        let Some(id) = id.first_chunk() else { return 0 };
        if !parts.set_usual(*id, micros, u16::from(schema >> 1)) {
            return 0;
        }
        self.reader.at += 31;
        3
    }

    fn meta(&mut self, style: Style, index: usize, parts: &mut Parts<'_, 'py>, depth: usize) -> Res<()> {
        if style != Style::Contract {
            match (index, self.reader.peek()) {
                (0 | 13, Some(wire::UUID)) => {
                    self.reader.at += 1;
                    parts.set_id(self.reader.array()?);
                    return Ok(());
                }
                (1 | 14, Some(wire::UTC)) => {
                    self.reader.at += 1;
                    let micros = i64::from_le_bytes(self.reader.array()?);
                    if !is_python_day(micros.div_euclid(DAY_US)) {
                        return fail("a time beyond the years 1 to 9999");
                    }
                    parts.set_time_us(micros);
                    return Ok(());
                }
                (metadata::SCHEMA_VERSION, Some(wire::INT)) => {
                    self.reader.at += 1;
                    return parts.set_schema(self.reader.zigzag()?);
                }
                _ => {}
            }
        }
        let value = self.value(metadata::get().node(index, style == Style::Message), depth + 2)?;
        parts.set_meta(index, value)
    }
}
