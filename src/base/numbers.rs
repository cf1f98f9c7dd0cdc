//! Counted things that must not be mixed up.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(out)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// The number of a record in its partition.
    Offset(i64)
);
number!(
    /// The term of a partition's leader (KIP-101).
    LeaderEpoch(i32)
);
number!(
    /// `node.id` of a broker.
    BrokerId(i32)
);
number!(
    /// The id of an idempotent producer (KIP-98).
    ProducerId(i64)
);
number!(
    /// The epoch that fences older instances of a producer (KIP-98).
    ProducerEpoch(i16)
);

impl Offset {
    /// The first offset of a fresh partition.
    pub const ZERO: Self = Self(0);

    /// This offset moved on by `count` records; saturates, so that a forged delta cannot wrap.
    #[must_use]
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many offsets lie between `earlier` and this one.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl ProducerId {
    /// What a batch without an idempotent producer carries.
    pub const NONE: Self = Self(-1);
}
