//! How the metadata of events is written: which names, and under which nodes.
use std::sync::OnceLock;

use super::node::{Node, Seq, Union};
use crate::core::wire;
use crate::py::metadata::Meta;

/// Indexes into `wire::META`.
pub const EVENT_TYPE: usize = 2;
pub const SEQUENCE_NUMBER: usize = 5;
pub const SCHEMA_VERSION: usize = 7;
pub const VERSION: usize = 8;

/// Metadata that an event of ours keeps as objects.
pub const STORED: [(Meta, usize); 9] = [
    (Meta::EventType, EVENT_TYPE),
    (Meta::AggregateId, 3),
    (Meta::AggregateType, 4),
    (Meta::ActorId, 6),
    (Meta::SchemaVersion, SCHEMA_VERSION),
    (Meta::CorrelationId, 9),
    (Meta::CausationId, 10),
    (Meta::Tags, 11),
    (Meta::Metadata, 12),
];

/// Those that it has room for without its rare part.
pub const INLINE: [(Meta, usize); 3] = [(Meta::AggregateId, 3), (Meta::AggregateType, 4), (Meta::CorrelationId, 9)];

/// Metadata of the framework's own events.
pub const CONTRACT: [usize; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

/// Metadata names of ours by their index.
pub const OURS: [Meta; 15] = [
    Meta::EventId,
    Meta::OccurredAt,
    Meta::EventType,
    Meta::AggregateId,
    Meta::AggregateType,
    Meta::SequenceNumber,
    Meta::ActorId,
    Meta::SchemaVersion,
    Meta::Version,
    Meta::CorrelationId,
    Meta::CausationId,
    Meta::Tags,
    Meta::Metadata,
    Meta::EventId,
    Meta::OccurredAt,
];

pub struct MetaPlan {
    nodes: Vec<Node>,
    /// `"name":` for each name.
    pub keys: Vec<Vec<u8>>,
}

impl MetaPlan {
    /// The node of a name; a command's `metadata` is an object, which carries its own type.
    pub fn node(&self, index: usize, command: bool) -> &Node {
        if command { &Node::Any } else { self.nodes.get(index).unwrap_or(&Node::Any) }
    }
}

/// The nodes of all names; made once, they refer to no Python object.
pub fn get() -> &'static MetaPlan {
    static PLAN: OnceLock<MetaPlan> = OnceLock::new();
    PLAN.get_or_init(|| {
        let optional = |node| Node::Optional(Box::new(node));
        let id = || optional(Node::Union(Box::new(Union::new(vec![Node::Uuid, Node::Str]))));
        let nodes = vec![
            Node::Uuid,
            Node::Datetime,
            optional(Node::Str),
            id(),
            optional(Node::Str),
            optional(Node::Int),
            optional(Node::Str),
            Node::Int,
            Node::Int,
            id(),
            id(),
            Node::Seq(Seq::Tuple, Box::new(Node::Str)),
            Node::Dict(Box::new((Node::Str, Node::Any))),
            Node::Uuid,
            Node::Datetime,
        ];
        MetaPlan { nodes, keys: wire::META.iter().map(|name| format!("\"{name}\":").into_bytes()).collect() }
    })
}
