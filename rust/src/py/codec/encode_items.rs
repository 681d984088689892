//! Lists, tuples, sets and dictionaries to bytes, in either form.
use pyo3::prelude::*;
use pyo3::types::{PyDate, PyDateTime, PyDict, PyFrozenSet, PyInt, PyList, PySet, PyTuple};

use super::encode::{Encoder, is_exactly, is_plain_key};
use super::fault::{At, Fault, Res, fail};
use super::node::{Node, Seq};
use super::sink::Sink;
use crate::py::values;

impl<'py, S: Sink> Encoder<'_, 'py, S> {
    pub fn container(&mut self, node: &Node, value: &Bound<'py, PyAny>, depth: usize) -> Res<bool> {
        match node {
            Node::Seq(Seq::List, inner) if value.is_exact_instance_of::<PyList>() => {
                self.list(value.cast()?, inner, depth)?;
            }
            Node::Seq(Seq::Tuple, inner) if value.is_exact_instance_of::<PyTuple>() => {
                self.tuple(value.cast()?, inner, false, depth)?;
            }
            Node::Seq(Seq::Set, inner) if value.is_exact_instance_of::<PySet>() => {
                self.set(value, Seq::Set, inner, false, depth)?;
            }
            Node::Seq(Seq::FrozenSet, inner) if value.is_exact_instance_of::<PyFrozenSet>() => {
                self.set(value, Seq::FrozenSet, inner, false, depth)?;
            }
            Node::Tuple(nodes) => match value.cast_exact::<PyTuple>() {
                Ok(tuple) if tuple.len() == nodes.len() => self.fixed_tuple(tuple, nodes, depth)?,
                _ => return Ok(false),
            },
            Node::Dict(nodes) => match value.cast_exact::<PyDict>() {
                Ok(dict) => self.dict(dict, &nodes.0, &nodes.1, depth)?,
                Err(_) => return Ok(false),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub fn list(&mut self, list: &Bound<'py, PyList>, inner: &Node, depth: usize) -> Res<()> {
        let count = list.len();
        self.sink.begin_items(Seq::List, count, false);
        let mut written = 0;
        for item in list.iter() {
            self.sink.next(written);
            self.put(inner, &item, depth + 1).at_item(written)?;
            written += 1;
        }
        self.sink.end_items(Seq::List, false);
        unchanged(count, written)
    }

    pub fn tuple(&mut self, tuple: &Bound<'py, PyTuple>, inner: &Node, explicit: bool, depth: usize) -> Res<()> {
        self.sink.begin_items(Seq::Tuple, tuple.len(), explicit);
        for (index, item) in tuple.iter_borrowed().enumerate() {
            self.sink.next(index);
            self.put(inner, &item, depth + 1).at_item(index)?;
        }
        self.sink.end_items(Seq::Tuple, explicit);
        Ok(())
    }

    fn fixed_tuple(&mut self, tuple: &Bound<'py, PyTuple>, nodes: &[Node], depth: usize) -> Res<()> {
        self.sink.begin_items(Seq::Tuple, nodes.len(), false);
        for (index, (item, node)) in tuple.iter_borrowed().zip(nodes).enumerate() {
            self.sink.next(index);
            self.value(node, &item, depth + 1).at_item(index)?;
        }
        self.sink.end_items(Seq::Tuple, false);
        Ok(())
    }

    pub fn set(&mut self, set: &Bound<'py, PyAny>, kind: Seq, inner: &Node, explicit: bool, depth: usize) -> Res<()> {
        let count = set.len()?;
        self.sink.begin_items(kind, count, explicit);
        let mut written = 0;
        for item in set.try_iter()? {
            self.sink.next(written);
            self.value(inner, &item?, depth + 1).at_item(written)?;
            written += 1;
        }
        self.sink.end_items(kind, explicit);
        unchanged(count, written)
    }

    pub fn dict(&mut self, dict: &Bound<'py, PyDict>, key_node: &Node, node: &Node, depth: usize) -> Res<()> {
        let object = self.keys_are_text(dict, key_node);
        let count = dict.len();
        self.sink.begin_dict(count, object);
        if key_node.is_plain() && node.is_plain() {
            let mut written = 0;
            for (key, item) in dict.iter().take(count) {
                self.pair(written, &key, &item, (key_node, node), object, depth)?;
                // An item of another type than its node's may have run code; the iterator would panic over a change.
                unchanged(count, dict.len())?;
                written += 1;
            }
            unchanged(count, written)?;
        } else {
            // Values may run code that changes the dictionary, so its items are taken first.
            let items = dict.items();
            unchanged(count, items.len())?;
            for (index, pair) in items.iter().enumerate() {
                let pair = pair.cast_into::<PyTuple>().map_err(PyErr::from)?;
                self.pair(index, &pair.get_item(0)?, &pair.get_item(1)?, (key_node, node), object, depth)?;
            }
        }
        self.sink.end_dict(object);
        Ok(())
    }

    fn pair(
        &mut self,
        index: usize,
        key: &Bound<'py, PyAny>,
        item: &Bound<'py, PyAny>,
        nodes: (&Node, &Node),
        object: bool,
        depth: usize,
    ) -> Res<()> {
        self.sink.begin_pair(index, object);
        match nodes.0 {
            Node::Int if object => self.sink.int_key(key.extract()?),
            node => self.value(node, key, depth + 1).at_item("key")?,
        }
        self.sink.between_pair(object);
        self.value(nodes.1, item, depth + 1).map_err(|fault| label(fault, key))?;
        self.sink.end_pair(object);
        Ok(())
    }

    /// Whether all keys of a dictionary can be written as the keys of a JSON object and be told apart again.
    fn keys_are_text(&self, dict: &Bound<'py, PyDict>, node: &Node) -> bool {
        dict.keys().iter().all(|key| match node {
            Node::Any | Node::Str => is_plain_key(&key),
            Node::Uuid => values::is_uuid(&key),
            Node::Int => key.is_exact_instance_of::<PyInt>() && key.extract::<i64>().is_ok(),
            Node::Date => key.is_exact_instance_of::<PyDate>(),
            Node::Datetime => key.is_exact_instance_of::<PyDateTime>(),
            Node::Enum(plan) => {
                let text = |json: &[u8]| json.starts_with(b"\"") && json != b"\"$type\"";
                is_exactly(&key, &plan.class) && plan.member(&key).is_some_and(|member| text(&member.json))
            }
            _ => false,
        })
    }
}

fn label(fault: Fault, key: &Bound<'_, PyAny>) -> Fault {
    let shown: String =
        key.repr().map_or_else(|_| "?".to_owned(), |text| text.to_string_lossy().chars().take(60).collect());
    fault.inside(format!("[{shown}]"))
}

fn unchanged(count: usize, written: usize) -> Res<()> {
    if count == written { Ok(()) } else { fail("changed while it was being encoded") }
}
