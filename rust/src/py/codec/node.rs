//! A type's plan: the tree that `messages/shapes.py` made of an annotation, compiled.
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use super::enums::EnumPlan;
use super::record::RecordPlan;
use crate::core::json::Class;

/// The four sequence types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seq {
    List,
    Tuple,
    Set,
    FrozenSet,
}

pub enum Node {
    Any,
    None,
    Bool,
    Int,
    Float,
    Str,
    Bytes,
    Uuid,
    Datetime,
    Date,
    Time,
    Timedelta,
    Decimal,
    Enum(Arc<EnumPlan>),
    Seq(Seq, Box<Node>),
    Tuple(Box<[Node]>),
    Dict(Box<(Node, Node)>),
    Optional(Box<Node>),
    Union(Box<Union>),
    Record(Py<RecordPlan>),
    /// An annotation that only pydantic understands.
    Foreign(Py<PyAny>),
}

/// Classes of JSON tokens, as bits.
pub mod token {
    pub const TEXT: u8 = 1;
    pub const INT: u8 = 2;
    pub const FLOAT: u8 = 4;
    pub const BOOL: u8 = 8;
    pub const ARRAY: u8 = 16;
    pub const OBJECT: u8 = 32;
}

/// The members of a union, and which of them reads which token without a tag.
pub struct Union {
    pub members: Vec<Node>,
    owners: [Option<u8>; 6],
    /// Both UUID and str are members: a UUID is written plain, and so is a string that does not look like one.
    pub uuid_or_text: bool,
}

impl Union {
    pub fn new(members: Vec<Node>) -> Self {
        let mut owners = [None; 6];
        let mut own = |tokens: u8, index: usize, always: bool| {
            for (bit, owner) in owners.iter_mut().enumerate() {
                if tokens & (1 << bit) != 0 && (always || owner.is_none()) {
                    *owner = u8::try_from(index).ok();
                }
            }
        };
        for (index, member) in members.iter().enumerate() {
            own(member.claims(), index, false);
        }
        for (index, member) in members.iter().enumerate() {
            match member {
                Node::Str => own(token::TEXT, index, true),
                Node::Int => own(token::INT, index, true),
                Node::Float => own(token::FLOAT, index, true),
                _ => {}
            }
        }
        let has = |wanted: fn(&Node) -> bool| members.iter().any(wanted);
        let uuid_or_text = has(|node| matches!(node, Node::Uuid)) && has(|node| matches!(node, Node::Str));
        Self { members, owners, uuid_or_text }
    }

    /// The member that reads a token.
    pub fn owner(&self, token: u8) -> Option<&Node> {
        let index = self.owners.get(token.trailing_zeros() as usize).copied().flatten()?;
        self.members.get(usize::from(index))
    }

    /// Whether every token that `member` may write is read by it.
    pub fn owns(&self, member: &Node, tokens: u8) -> bool {
        let owned =
            |bit: u8| tokens & (1 << bit) == 0 || self.owner(1 << bit).is_some_and(|owner| std::ptr::eq(owner, member));
        (0..6).all(owned)
    }

    /// The member that only pydantic understands, if there is one.
    pub fn foreign(&self) -> Option<&Py<PyAny>> {
        self.members
            .iter()
            .find_map(|member| if let Node::Foreign(annotation) = member { Some(annotation) } else { None })
    }

    fn claims(&self) -> u8 {
        (0..6).filter(|bit| self.owners[*bit].is_some()).fold(0, |sum, bit| sum | 1 << bit)
    }
}

/// The token class of a JSON value; numbers count by whether they are whole.
pub fn token_of(class: Class, whole: bool) -> u8 {
    match class {
        Class::Null => 0,
        Class::Bool => token::BOOL,
        Class::Number if whole => token::INT,
        Class::Number => token::FLOAT,
        Class::Text => token::TEXT,
        Class::Array => token::ARRAY,
        Class::Object => token::OBJECT,
    }
}

impl Node {
    /// The tokens that this node reads in its own way; a value of another type that would be written as one of them
    /// is wrapped.
    pub fn claims(&self) -> u8 {
        match self {
            Node::Any | Node::None | Node::Foreign(_) => 0,
            Node::Bool => token::BOOL,
            Node::Int => token::INT,
            Node::Float => token::FLOAT | token::INT,
            Node::Enum(_) => token::TEXT | token::INT | token::FLOAT | token::BOOL,
            Node::Seq(..) | Node::Tuple(_) => token::ARRAY,
            Node::Dict(_) => token::OBJECT,
            Node::Record(plan) if plan.get().is_array() => token::ARRAY,
            Node::Record(_) => token::OBJECT,
            Node::Optional(inner) => inner.claims(),
            Node::Union(union) => union.claims(),
            _ => token::TEXT,
        }
    }

    /// The tokens that a value of exactly this node's type is written as.
    pub fn writes(&self) -> u8 {
        match self {
            Node::Enum(plan) => plan.tokens,
            Node::Float => token::FLOAT,
            other => other.claims(),
        }
    }

    /// Whether encoding a value of this node's own type runs no user code.
    pub fn is_plain(&self) -> bool {
        match self {
            Node::Optional(inner) => inner.is_plain(),
            Node::Any | Node::Enum(_) | Node::Seq(..) | Node::Tuple(_) | Node::Dict(_) => false,
            Node::Union(_) | Node::Record(_) | Node::Foreign(_) => false,
            _ => true,
        }
    }
}

/// Compiles a node of `messages/shapes.py`.
pub fn compile(node: &Bound<'_, PyAny>) -> PyResult<Node> {
    let node = node.cast::<PyTuple>()?;
    let kind = node.get_item(0)?;
    let kind = kind.cast::<PyString>()?.to_str()?;
    let boxed = |index: usize| PyResult::Ok(Box::new(compile(&node.get_item(index)?)?));
    Ok(match kind {
        "none" => Node::None,
        "bool" => Node::Bool,
        "int" => Node::Int,
        "float" => Node::Float,
        "str" => Node::Str,
        "bytes" => Node::Bytes,
        "uuid" => Node::Uuid,
        "datetime" => Node::Datetime,
        "date" => Node::Date,
        "time" => Node::Time,
        "timedelta" => Node::Timedelta,
        "decimal" => Node::Decimal,
        "enum" => Node::Enum(Arc::new(EnumPlan::new(node.get_item(1)?.cast()?)?)),
        "list" => Node::Seq(Seq::List, boxed(1)?),
        "vartuple" => Node::Seq(Seq::Tuple, boxed(1)?),
        "set" => Node::Seq(Seq::Set, boxed(1)?),
        "frozenset" => Node::Seq(Seq::FrozenSet, boxed(1)?),
        "tuple" => Node::Tuple(compile_all(&node.get_item(1)?)?.into_boxed_slice()),
        "dict" => Node::Dict(Box::new((*boxed(1)?, *boxed(2)?))),
        "optional" => Node::Optional(boxed(1)?),
        "union" => Node::Union(Box::new(Union::new(compile_all(&node.get_item(1)?)?))),
        "record" => Node::Record(RecordPlan::of(&node.get_item(1)?)?),
        "foreign" => Node::Foreign(node.get_item(1)?.unbind()),
        _ => Node::Any,
    })
}

fn compile_all(nodes: &Bound<'_, PyAny>) -> PyResult<Vec<Node>> {
    nodes.cast::<PyTuple>()?.iter().map(|node| compile(&node)).collect()
}
