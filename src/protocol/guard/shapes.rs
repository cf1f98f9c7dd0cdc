//! The shapes of requests: what follows what, from which version to which. The table is made from Kafka's own schemas.

#[cfg_attr(not(test), expect(dead_code, reason = "it has the shape of a request that only the tests know"))]
mod table;

pub use self::table::*;

/// What a field is on the wire.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number, truth value or id of this many bytes.
    Fixed(usize),
    /// A string.
    Text,
    /// Bytes, or records.
    Blob,
    /// An array.
    List(&'static Kind),
    /// A structure within.
    Node(&'static Shape),
    /// A structure behind a presence byte.
    Maybe(&'static Shape),
}

/// One field and the versions that have it.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// What it is.
    pub kind: Kind,
    /// The first version with it.
    pub from: i16,
    /// The last version with it.
    pub until: i16,
    /// The first version in which null is allowed.
    pub null_from: Option<i16>,
}

/// A structure: its fields in order, then its tagged fields.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    /// In the order of the wire.
    pub fields: &'static [Field],
    /// By tag.
    pub tags: &'static [(u32, Field)],
}

/// What Kafka's schema says of a request.
#[derive(Debug)]
pub struct Schema {
    /// The first version with compact forms and tagged fields (KIP-482).
    pub flexible_from: i16,
    /// Its body.
    pub shape: Shape,
}

impl Field {
    /// Whether this version has the field.
    #[must_use]
    pub const fn exists_in(&self, version: i16) -> bool {
        self.from <= version && version <= self.until
    }

    const fn null_from(self, version: i16) -> Self {
        Self { null_from: Some(version), ..self }
    }
}

const I8: Kind = Kind::Fixed(1);
const I16: Kind = Kind::Fixed(2);
const I32: Kind = Kind::Fixed(4);
const I64: Kind = Kind::Fixed(8);
const BOOL: Kind = Kind::Fixed(1);
const UUID: Kind = Kind::Fixed(16);
const TEXT: Kind = Kind::Text;
const BLOB: Kind = Kind::Blob;

const fn between(from: i16, until: i16, kind: Kind) -> Field {
    Field { kind, from, until, null_from: None }
}

const fn all(kind: Kind) -> Field {
    between(0, i16::MAX, kind)
}

const fn from(version: i16, kind: Kind) -> Field {
    between(version, i16::MAX, kind)
}

const fn until(version: i16, kind: Kind) -> Field {
    between(0, version, kind)
}
