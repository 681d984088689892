//! The JSON form to Python values.
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyString};

use super::enums::{EnumPlan, Member};
use super::fault::{At, Res, fail};
use super::known::Known;
use super::make;
use super::node::{Node, Seq, token, token_of};
use super::record::Style;
use super::registry::Names;
use super::{BIG_FLOAT, MAX_DEPTH};
use crate::core::json::{Class, Scanner, Text};
use crate::core::text;
use crate::py::{event, values};

pub type Value<'py> = Res<Bound<'py, PyAny>>;

pub struct Decoder<'a, 'c, 'py> {
    pub py: Python<'py>,
    pub scanner: Scanner<'a>,
    pub names: &'c Names,
    pub known: &'static Known,
}

impl<'a, 'c, 'py> Decoder<'a, 'c, 'py> {
    #[inline(always)]
    pub fn new(py: Python<'py>, names: &'c Names, known: &'static Known, text: &'a str) -> Self {
        Self { py, scanner: Scanner::new(text), names, known }
    }

    /// Reads the next value under a node: the usual cases as we write them here, the others by `value`.
    #[inline(always)]
    pub(super) fn next(&mut self, node: &Node, depth: usize) -> Value<'py> {
        let py = self.py;
        match node {
            Node::Str => {
                if let Some(text) = self.scanner.plain() {
                    return Ok(event::text(py, text.as_bytes())?.into_any());
                }
            }
            Node::Int => {
                if let Some(number) = self.scanner.small_int() {
                    return Ok(number.into_pyobject(py)?.into_any());
                }
            }
            Node::Uuid | Node::Datetime | Node::Decimal => {
                if let Some(text) = self.scanner.plain() {
                    return make::of_text(py, node, text, self.known);
                }
            }
            Node::Enum(plan) => {
                if let Some(member) = self.enum_member(plan) {
                    return Ok(member);
                }
            }
            _ => {}
        }
        self.value(node, depth)
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
        if let Some(member) = self.enum_member(plan) {
            return Ok(member);
        }
        let value = self.text(&Node::Str)?;
        self.look_up(plan, &value)
    }

    /// Takes the member of an enum whose value is a text that comes next.
    #[inline]
    fn enum_member(&mut self, plan: &EnumPlan) -> Option<Bound<'py, PyAny>> {
        let is_next = |member: &&Member| member.json.first() == Some(&b'"') && self.scanner.take_exact(&member.json);
        plan.members.iter().find(is_next).map(|member| member.object.bind(self.py).clone())
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

    pub fn items(&mut self, node: &Node, depth: usize) -> Res<make::Items<'py>> {
        let mut items = make::Items::new();
        let mut more = !self.scanner.take(b']');
        while more {
            items.push(self.next(node, depth + 1).at_item(items.len())?);
            more = self.scanner.more(b']', "comma or ]")?;
        }
        Ok(items)
    }

    fn fixed_tuple(&mut self, nodes: &[Node], depth: usize) -> Value<'py> {
        let mut items = make::Items::with_capacity(nodes.len());
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

    pub(super) fn key(&mut self) -> Res<Text<'a>> {
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
}
