//! Values that carry their type in JSON: `{"$type": …, "value": …}`.
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat};

use super::decode_json::{Decoder, Value};
use super::enums::EnumPlan;
use super::fault::{At, fail};
use super::make;
use super::node::{Node, Seq, token};
use super::registry::Entry;
use crate::core::json::Text;

impl<'py> Decoder<'_, '_, 'py> {
    /// Reads the rest of `{"$type"` up to the closing brace.
    pub fn tagged(&mut self, node: &Node, depth: usize) -> Value<'py> {
        self.scanner.expect(b':', "colon")?;
        let name = match self.scanner.string()? {
            Text::Plain(text) => text.to_owned(),
            Text::Unescaped(text) => text,
            Text::Lone(_) => return fail("a type name with lone surrogates"),
        };
        self.scanner.expect(b',', "comma")?;
        self.scanner.peek();
        if !self.scanner.take_exact(b"\"value\"") {
            return fail("a tagged value has exactly the keys '$type' and 'value'");
        }
        self.scanner.expect(b':', "colon")?;
        let value = self.tagged_value(node, &name, depth)?;
        self.scanner.expect(b'}', "}")?;
        Ok(value)
    }

    fn tagged_value(&mut self, node: &Node, name: &str, depth: usize) -> Value<'py> {
        let mut inner = node;
        while let Node::Optional(next) = inner {
            inner = next;
        }
        let foreign = match inner {
            Node::Foreign(annotation) => Some(annotation),
            Node::Union(union) => union.foreign(),
            _ => None,
        };
        match (name, inner) {
            ("any", _) => self.value(&Node::Any, depth + 1),
            ("dict", _) => match self.reader_of(inner, token::OBJECT) {
                Node::Dict(nodes) => self.pairs(&nodes.0, &nodes.1, depth),
                _ => self.pairs(&Node::Any, &Node::Any, depth),
            },
            ("member", Node::Enum(plan)) => self.member(plan),
            ("foreign", _) if foreign.is_some() => {
                let value = self.value(&Node::Any, depth + 1)?;
                Ok(self.known.load_foreign.bind(self.py).call1((foreign, value))?)
            }
            ("int", _) => self.plain_text(|py, text| make::hex(py, text)),
            ("float", _) => self.plain_text(|py, text| match text.parse::<f64>() {
                Ok(number) => Ok(PyFloat::new(py, number).into_any()),
                Err(_) => fail("not a float"),
            }),
            ("uuid", _) => self.of_text(&Node::Uuid),
            ("datetime", _) => self.of_text(&Node::Datetime),
            ("date", _) => self.of_text(&Node::Date),
            ("time", _) => self.of_text(&Node::Time),
            ("timedelta", _) => self.of_text(&Node::Timedelta),
            ("decimal", _) => self.of_text(&Node::Decimal),
            ("bytes", _) => self.of_text(&Node::Bytes),
            ("tuple", _) => self.sequence(Seq::Tuple, depth),
            ("set", _) => self.sequence(Seq::Set, depth),
            ("frozenset", _) => self.sequence(Seq::FrozenSet, depth),
            _ => self.instance(name, depth),
        }
    }

    fn plain_text(&mut self, make: impl FnOnce(Python<'py>, &str) -> Value<'py>) -> Value<'py> {
        match self.scanner.string()? {
            Text::Plain(text) => make(self.py, text),
            Text::Unescaped(text) => make(self.py, &text),
            Text::Lone(_) => fail("a text with lone surrogates where none can be"),
        }
    }

    fn of_text(&mut self, node: &Node) -> Value<'py> {
        let known = self.known;
        self.plain_text(|py, text| make::of_text(py, node, text, known))
    }

    fn sequence(&mut self, kind: Seq, depth: usize) -> Value<'py> {
        self.scanner.expect(b'[', "an array")?;
        let items = self.items(&Node::Any, depth)?;
        make::items(self.py, kind, items)
    }

    fn pairs(&mut self, key_node: &Node, node: &Node, depth: usize) -> Value<'py> {
        let dict = PyDict::new(self.py);
        self.scanner.expect(b'[', "an array of pairs")?;
        let mut more = !self.scanner.take(b']');
        while more {
            self.scanner.expect(b'[', "a pair")?;
            let key = self.value(key_node, depth + 1).at_item("key")?;
            self.scanner.expect(b',', "comma")?;
            let value = self.value(node, depth + 1).at_item("value")?;
            self.scanner.expect(b']', "]")?;
            dict.set_item(key, value)?;
            more = self.scanner.more(b']', "comma or ]")?;
        }
        Ok(dict.into_any())
    }

    fn member(&mut self, plan: &EnumPlan) -> Value<'py> {
        self.plain_text(|py, name| {
            let members = plan.class.bind(py).getattr(intern!(py, "__members__"))?;
            if members.contains(name)? {
                Ok(members.get_item(name)?)
            } else {
                fail(format!("no enum member {name:.60?}"))
            }
        })
    }

    /// Reads an instance of a class that the data names.
    fn instance(&mut self, name: &str, depth: usize) -> Value<'py> {
        match self.names.of_name(self.py, name, self.known)? {
            Some(Entry::Enum(plan, _)) => self.value(&Node::Enum(plan), depth + 1),
            Some(Entry::Record(plan, _)) => self.value(&Node::Record(plan), depth + 1),
            _ => {
                let value = self.value(&Node::Any, depth + 1)?;
                Ok(self.known.restore.bind(self.py).call1((name, value, self.names.registry.bind(self.py)))?)
            }
        }
    }
}
