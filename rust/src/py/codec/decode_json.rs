//! The JSON form to Python values.
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyString};

use super::build::Parts;
use super::enums::EnumPlan;
use super::fault::{At, Res, fail};
use super::known::{self, Known};
use super::make;
use super::metadata;
use super::node::{Node, Seq, token, token_of};
use super::record::{Fields, RecordPlan, Style};
use super::registry::Names;
use super::{BIG_FLOAT, MAX_DEPTH};
use crate::core::calendar::{Zone, parse_datetime};
use crate::core::json::{Class, Scanner, Text};
use crate::core::{text, wire};
use crate::py::values;

pub type Value<'py> = Res<Bound<'py, PyAny>>;

pub struct Decoder<'a, 'c, 'py> {
    pub py: Python<'py>,
    pub scanner: Scanner<'a>,
    pub names: &'c Names,
    pub known: &'static Known,
}

impl<'a, 'c, 'py> Decoder<'a, 'c, 'py> {
    pub fn new(py: Python<'py>, names: &'c Names, text: &'a str) -> PyResult<Self> {
        Ok(Self { py, scanner: Scanner::new(text), names, known: known::get(py)? })
    }

    /// Reads the next value under a node.
    pub fn value(&mut self, node: &Node, depth: usize) -> Value<'py> {
        if depth > MAX_DEPTH {
            return fail(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        match self.scanner.class()? {
            Class::Text => self.text(node),
            Class::Number => self.number(node),
            Class::Object => self.object(node, depth),
            Class::Array => self.array(node, depth),
            Class::Null | Class::Bool => self.literal(node),
        }
    }

    /// The node that reads a token: the inner one of an optional, the owner in a union.
    pub fn reader_of<'n>(&self, node: &'n Node, token: u8) -> &'n Node {
        match node {
            Node::Optional(inner) => self.reader_of(inner, token),
            Node::Union(union) => union.owner(token).unwrap_or(&Node::Any),
            other => other,
        }
    }

    fn literal(&mut self, node: &Node) -> Value<'py> {
        let value = match self.scanner.literal()? {
            None => return Ok(self.py.None().into_bound(self.py)),
            Some(flag) => flag.into_pyobject(self.py)?.to_owned().into_any(),
        };
        match self.reader_of(node, token::BOOL) {
            Node::Enum(plan) => self.look_up(plan, &value),
            _ => Ok(value),
        }
    }

    fn number(&mut self, node: &Node) -> Value<'py> {
        let number = self.scanner.number()?;
        let token = token_of(Class::Number, number.whole);
        let reader = self.reader_of(node, token);
        let value = if !number.whole {
            PyFloat::new(self.py, make::float(number.text)?).into_any()
        } else {
            let whole = make::int(self.py, number.text)?;
            match reader {
                // A whole float of this size may have lost its point in a database.
                Node::Float if make::float(number.text)?.abs() >= BIG_FLOAT => {
                    PyFloat::new(self.py, make::float(number.text)?).into_any()
                }
                _ => whole,
            }
        };
        match reader {
            Node::Enum(plan) => self.look_up(plan, &value),
            _ => Ok(value),
        }
    }

    fn text(&mut self, node: &Node) -> Value<'py> {
        let (reader, uuid_or_text) = match node {
            Node::Str => (node, false),
            Node::Optional(inner) => match &**inner {
                Node::Union(union) => (self.reader_of(inner, token::TEXT), union.uuid_or_text),
                inner => (inner, false),
            },
            Node::Union(union) => (self.reader_of(node, token::TEXT), union.uuid_or_text),
            node => (node, false),
        };
        if let Node::Enum(plan) = reader {
            return self.enum_text(plan);
        }
        let text = self.scanner.string()?;
        let text = match &text {
            Text::Plain(text) => text,
            Text::Unescaped(text) => text.as_str(),
            Text::Lone(bytes) => {
                let value = make::lone(self.py, bytes, self.known)?;
                return if reader.claims() & token::TEXT != 0 && !matches!(reader, Node::Str) {
                    fail("a text with lone surrogates where none can be")
                } else {
                    Ok(value)
                };
            }
        };
        if uuid_or_text && text::is_canonical_uuid(text.as_bytes()) {
            return make::of_text(self.py, &Node::Uuid, text, self.known);
        }
        make::of_text(self.py, reader, text, self.known)
    }

    fn enum_text(&mut self, plan: &EnumPlan) -> Value<'py> {
        self.scanner.peek();
        for member in &plan.members {
            if member.json.starts_with(b"\"") && self.scanner.take_exact(&member.json) {
                return Ok(member.object.bind(self.py).clone());
            }
        }
        let value = self.text(&Node::Str)?;
        self.look_up(plan, &value)
    }

    /// Returns the member of a value, as calling the class does.
    fn look_up(&self, plan: &EnumPlan, value: &Bound<'py, PyAny>) -> Value<'py> {
        match plan.class.bind(self.py).call1((value,)) {
            Ok(member) => Ok(member),
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(self.py) => {
                fail(format!("{} is not a {}", values::shown(value), plan.name))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn array(&mut self, node: &Node, depth: usize) -> Value<'py> {
        let reader = self.reader_of(node, token::ARRAY);
        self.scanner.expect(b'[', "[")?;
        match reader {
            Node::Seq(kind, inner) => {
                let items = self.items(inner, depth)?;
                make::items(self.py, *kind, items)
            }
            Node::Tuple(nodes) => self.fixed_tuple(nodes, depth),
            Node::Record(plan) if plan.get().is_array() => self.named_tuple(plan.get(), depth),
            _ => {
                let items = self.items(&Node::Any, depth)?;
                make::items(self.py, Seq::List, items)
            }
        }
    }

    pub fn items(&mut self, node: &Node, depth: usize) -> Res<Vec<Bound<'py, PyAny>>> {
        let mut items = Vec::new();
        let mut more = !self.scanner.take(b']');
        while more {
            items.push(self.value(node, depth + 1).at_item(items.len())?);
            more = self.scanner.more(b']', "comma or ]")?;
        }
        Ok(items)
    }

    fn fixed_tuple(&mut self, nodes: &[Node], depth: usize) -> Value<'py> {
        let mut items = Vec::with_capacity(nodes.len());
        let mut more = !self.scanner.take(b']');
        while more {
            let Some(node) = nodes.get(items.len()) else { return fail(format!("more than {} items", nodes.len())) };
            items.push(self.value(node, depth + 1).at_item(items.len())?);
            more = self.scanner.more(b']', "comma or ]")?;
        }
        if items.len() < nodes.len() {
            return fail(format!("{} items expected, {} found", nodes.len(), items.len()));
        }
        make::items(self.py, Seq::Tuple, items)
    }

    fn named_tuple(&mut self, plan: &RecordPlan, depth: usize) -> Value<'py> {
        let fields = plan.fields(self.py)?;
        let mut parts = Parts::new(self.py, plan, fields)?;
        let mut index = 0;
        let mut more = !self.scanner.take(b']');
        while more {
            let Some(field) = fields.list.get(index) else {
                return fail(format!("more than {} items", fields.list.len()));
            };
            parts.set(index, self.value(&field.node, depth + 1).at(&field.text)?);
            index += 1;
            more = self.scanner.more(b']', "comma or ]")?;
        }
        parts.build(self.known)
    }

    fn object(&mut self, node: &Node, depth: usize) -> Value<'py> {
        self.scanner.expect(b'{', "{")?;
        self.scanner.peek();
        if self.scanner.take_exact(b"\"$type\"") {
            return self.tagged(node, depth);
        }
        match self.reader_of(node, token::OBJECT) {
            Node::Record(plan) if plan.get().style == Style::TypedDict => self.typed_dict(plan.get(), depth),
            Node::Record(plan) if !plan.get().is_array() => self.record(plan.get(), depth),
            Node::Dict(nodes) => self.dict(&nodes.0, &nodes.1, depth),
            _ => self.dict(&Node::Any, &Node::Any, depth),
        }
    }

    fn key(&mut self) -> Res<Text<'a>> {
        let key = self.scanner.string()?;
        self.scanner.expect(b':', "colon")?;
        if matches!(&key, Text::Plain("$type")) || matches!(&key, Text::Unescaped(text) if text == "$type") {
            return fail("'$type' must be the first key");
        }
        Ok(key)
    }

    fn dict(&mut self, key_node: &Node, node: &Node, depth: usize) -> Value<'py> {
        let dict = PyDict::new(self.py);
        let mut more = !self.scanner.take(b'}');
        while more {
            let key = self.key()?;
            let shown = || match &key {
                Text::Plain(text) => format!("{text:.60?}"),
                Text::Unescaped(text) => format!("{text:.60?}"),
                Text::Lone(_) => "…".to_owned(),
            };
            let made = match &key {
                Text::Plain(text) => self.key_value(key_node, text).at_item("key")?,
                Text::Unescaped(text) => self.key_value(key_node, text).at_item("key")?,
                Text::Lone(bytes) => make::lone(self.py, bytes, self.known)?,
            };
            let value = self.value(node, depth + 1).map_err(|fault| fault.inside(format!("[{}]", shown())))?;
            dict.set_item(made, value)?;
            more = self.scanner.more(b'}', "comma or }")?;
        }
        Ok(dict.into_any())
    }

    fn key_value(&self, node: &Node, text: &str) -> Value<'py> {
        match node {
            Node::Int => {
                let digits = text.strip_prefix('-').unwrap_or(text);
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return fail(format!("not an integer: {text:.60?}"));
                }
                make::int(self.py, text)
            }
            Node::Enum(plan) => self.look_up(plan, PyString::new(self.py, text).as_any()),
            Node::Uuid | Node::Date | Node::Datetime => make::of_text(self.py, node, text, self.known),
            _ => Ok(PyString::new(self.py, text).into_any()),
        }
    }

    fn typed_dict(&mut self, plan: &RecordPlan, depth: usize) -> Value<'py> {
        let fields = plan.fields(self.py)?;
        let dict = PyDict::new(self.py);
        let mut more = !self.scanner.take(b'}');
        while more {
            let key = self.key()?;
            let (name, key) = match &key {
                Text::Plain(text) => (*text, PyString::new(self.py, text).into_any()),
                Text::Unescaped(text) => (text.as_str(), PyString::new(self.py, text).into_any()),
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
                parts.set(index, self.value(&field.node, depth + 1).at(&field.text)?);
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
        let mut more = !self.scanner.take(b'}');
        while more {
            let key = self.key()?;
            let name = match &key {
                Text::Plain(text) => text,
                Text::Unescaped(text) => text.as_str(),
                Text::Lone(_) => return fail("a name with lone surrogates"),
            };
            match wire::META.iter().position(|known| *known == name) {
                Some(index) => {
                    self.meta_value(style, plan.node(index, style == Style::Message), index, parts, depth).at(name)?
                }
                // A name from the future; nothing here could use it.
                None => drop(self.scanner.skip()?),
            }
            more = self.scanner.more(b'}', "comma or }")?;
        }
        Ok(())
    }

    fn meta_value(
        &mut self,
        style: Style,
        node: &Node,
        index: usize,
        parts: &mut Parts<'_, 'py>,
        depth: usize,
    ) -> Res<()> {
        if style != Style::Contract && matches!(index, 0 | 1 | 13 | 14) && self.scanner.peek() == b'"' {
            let place = self.scanner.at;
            if let Text::Plain(text) = self.scanner.string()? {
                let bytes = text.as_bytes();
                if matches!(index, 0 | 13) {
                    if text::parse_uuid(bytes).is_some_and(|id| parts.set_id(id)) {
                        return Ok(());
                    }
                } else if let Some((moment, Zone::Utc)) = parse_datetime(bytes)
                    && parts.set_time_us(moment.to_micros())
                {
                    return Ok(());
                }
            }
            self.scanner.at = place;
        }
        let value = self.value(node, depth + 1)?;
        parts.set_meta(index, value)
    }
}
