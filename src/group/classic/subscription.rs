//! The head of what the consumer protocol's members send as metadata: the topics they read.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use crate::{
    group::owned,
    protocol::primitives::{DecodeError, Reader},
};

/// Topics that a group's subscription is remembered for. Beyond it the group counts as subscribed to everything, which is safe.
const SUBSCRIBED_MAX: usize = 10_000;

/// The topics of all members, or None if one of them sent something else.
pub(in crate::group) fn topics(metadata: impl Iterator<Item = Bytes>) -> Option<BTreeSet<StrBytes>> {
    let mut topics = BTreeSet::new();
    for bytes in metadata {
        read(&bytes, &mut topics).ok()?;
        if topics.len() > SUBSCRIBED_MAX {
            return None;
        }
    }
    Some(topics)
}

// ConsumerProtocolSubscription: a version, then the topics; what follows depends on the version and is of no interest.
fn read(bytes: &[u8], topics: &mut BTreeSet<StrBytes>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16()?;
    if version < 0 {
        return Err(DecodeError::Version(version));
    }
    for _ in 0..reader.array_count(2)?.min(SUBSCRIBED_MAX + 1) {
        topics.insert(owned(reader.string()?));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::primitives::Writer;

    fn metadata(names: &[&str]) -> Bytes {
        let mut writer = Writer::new();
        writer.i16(1);
        writer.array_count(names.len());
        for name in names {
            writer.string(name);
        }
        writer.nullable_bytes(None);
        writer.into_bytes()
    }

    #[test]
    fn topics_of_all_members_count_and_garbage_hides_them() {
        let read = topics([metadata(&["a", "b"]), metadata(&["b", "c"])].into_iter()).expect("well formed");
        assert_eq!(read.iter().map(|name| name.to_string()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(topics([metadata(&["a"]), Bytes::from_static(b"x")].into_iter()), None);
    }
}
