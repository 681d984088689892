//! The metadata of events and other messages to bytes, in either form.
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::encode::Encoder;
use super::encode_record::attribute;
use super::fault::{At, Res, fail};
use super::metadata::{self, MetaPlan};
use super::sink::Sink;
use crate::core::calendar::{DAY_US, is_python_day};
use crate::core::wire;
use crate::py::event::MessageRef;
use crate::py::metadata::{Kind, Meta, stored};

impl<'py, S: Sink> Encoder<'_, 'py, S> {
    pub(super) fn message_meta(
        &mut self,
        message: MessageRef<'_, 'py>,
        kind: Kind,
        depth: usize,
        nested: bool,
    ) -> Res<()> {
        let plan = metadata::get();
        let mut writer = MetaWriter::begin(self);
        let rare = message.body().rare().is_some();
        let schema = message.body().schema.get();
        if S::BINARY && kind == Kind::Event && !rare && schema < 0x40 {
            writer.usual(self, &message.body().id.get(), message.body().time_us.get(), schema as u8)?;
        } else {
            let (id, time) = if kind == Kind::Event { (0, 1) } else { (13, 14) };
            writer.name(self, id);
            self.sink.uuid(&message.body().id.get(), false);
            writer.name(self, time);
            if !self.sink.utc(message.body().time_us.get()) {
                return beyond();
            }
            if kind == Kind::Event && !(rare && stored(message, Meta::SchemaVersion).is_some()) {
                writer.name(self, metadata::SCHEMA_VERSION);
                self.sink.int(i64::from(schema));
            }
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

    pub(super) fn contract_meta(&mut self, value: &Bound<'py, PyAny>, depth: usize, nested: bool) -> Res<()> {
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

#[cold]
fn beyond<T>() -> Res<T> {
    fail("a time beyond the years 1 to 9999").at("occurred_at")
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
            out.extend_from_slice(&metadata::get().keys[index]);
        }
        self.count += 1;
    }

    /// Writes id, time and schema version of an event in binary, in one piece.
    #[inline(always)]
    fn usual<S: Sink>(&mut self, encoder: &mut Encoder<'_, '_, S>, id: &[u8; 16], time: i64, schema: u8) -> Res<()> {
        if !is_python_day(time.div_euclid(DAY_US)) {
            return beyond();
        }
        let mut piece = [0; 31];
        piece[..2].copy_from_slice(&[0, wire::UUID]);
        piece[2..18].copy_from_slice(id);
        piece[18..20].copy_from_slice(&[1, wire::UTC]);
        piece[20..28].copy_from_slice(&time.to_le_bytes());
        piece[28..].copy_from_slice(&[metadata::SCHEMA_VERSION as u8, wire::INT, schema << 1]);
        encoder.sink.out().extend_from_slice(&piece);
        self.count += 3;
        Ok(())
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
