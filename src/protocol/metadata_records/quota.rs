//! Quotas of clients.

use super::{DecodeError, Reader, Writer, unknown};

/// `ClientQuotaRecord`: a quota of an entity was set, or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientQuotaRecord {
    /// Types and names of what it holds for together, in the order of types; no name is the default.
    pub entity: Vec<(String, Option<String>)>,
    /// Such as `producer_byte_rate`.
    pub key: String,
    /// The value; none removes the key.
    pub value: Option<QuotaValue>,
}

/// How much of something a client may have. Kafka takes any double, also one that is no number: it is kept as its bits, so that what
/// was set is what is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaValue(u64);

impl QuotaValue {
    /// A value as a request gives it.
    #[must_use]
    pub fn of(value: f64) -> Self {
        Self(value.to_bits())
    }

    /// The value.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl ClientQuotaRecord {
    pub(super) const VERSION: u32 = 0;

    pub(super) fn write(&self, out: &mut Writer) {
        out.compact_array_count(self.entity.len());
        for (kind, name) in &self.entity {
            out.compact_string(kind);
            out.compact_nullable_string(name.as_deref());
            out.no_tagged_fields();
        }
        out.compact_string(&self.key);
        out.raw(&self.value.map_or(0, |value| value.0).to_be_bytes());
        out.bool(self.value.is_none());
        out.no_tagged_fields();
    }

    pub(super) fn read(version: u32, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if version > Self::VERSION {
            return Err(unknown(version));
        }
        let mut entity = Vec::new();
        // Two strings and the tags.
        for _ in 0..reader.compact_array_count(3)? {
            let kind = reader.compact_string()?.to_owned();
            entity.push((kind, reader.compact_nullable_string()?.map(str::to_owned)));
            reader.skip_tagged_fields()?;
        }
        let key = reader.compact_string()?.to_owned();
        let bits = reader.i64()?.cast_unsigned();
        let removed = reader.bool()?;
        reader.skip_tagged_fields()?;
        entity.sort_unstable();
        Ok(Self { entity, key, value: (!removed).then_some(QuotaValue(bits)) })
    }
}
