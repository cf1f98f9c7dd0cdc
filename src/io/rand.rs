//! Randomness: seeded by the operating system in production, by the simulation's seed in tests.

use std::{cell::RefCell, rc::Rc};

use uuid::Uuid;

/// One core's random numbers. Not for secrets. Cheap to clone; clones draw from the same sequence.
#[derive(Clone)]
pub struct Rand(Rc<RefCell<Generator>>);

impl Rand {
    pub(super) fn of(generator: Generator) -> Self {
        Self(Rc::new(RefCell::new(generator)))
    }

    /// 64 random bits.
    #[must_use]
    pub fn next_u64(&self) -> u64 {
        self.0.borrow_mut().next_u64()
    }

    /// A random number below `bound`.
    /// # Panics
    /// If `bound` is zero.
    #[cfg(test)]
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        self.0.borrow_mut().below(bound)
    }

    /// A random UUID (version 4).
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        let high = self.next_u64().to_be_bytes();
        let low = self.next_u64().to_be_bytes();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high);
        bytes[8..].copy_from_slice(&low);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

/// xoshiro256++ (Blackman and Vigna, 2019): 256 bits of state, so that 128-bit ids drawn from it are as good as its seed.
#[derive(Clone, Debug)]
pub(super) struct Generator([u64; 4]);

impl Generator {
    /// A generator whose state is `seed`; the all-zero state, which it could not leave, is replaced.
    #[cfg_attr(not(feature = "glommio"), allow(dead_code))]
    pub(super) fn from_state(seed: [u64; 4]) -> Self {
        if seed == [0; 4] { Self::from_seed(0) } else { Self(seed) }
    }

    /// A generator for a small seed, spread by SplitMix64.
    pub(super) fn from_seed(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }))
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Multiply-shift; its bias is below 2^-32 for the bounds in use and does not matter here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a random number below zero");
        let product = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the product's upper half is below the bound")
    }

    /// True once in `one_in` times; never if it is zero.
    pub(super) fn one_in(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.below(one_in) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let draw = |seed| {
            let mut generator = Generator::from_seed(seed);
            (0..4).map(|_| generator.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn below_reaches_every_number_and_no_other() {
        let rand = Rand::of(Generator::from_seed(3));
        let mut seen = [0; 6];
        for _ in 0..6000 {
            seen[usize::try_from(rand.below(6)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert_eq!(rand.uuid().get_version_num(), 4);
    }
}
