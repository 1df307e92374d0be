//! Faults on demand: a fixed sequence for a seed, whose shares can change while the server runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::answer::{Hash, mix};

/// Which shares of the requests go wrong, and how.
///
/// Each request has a number, in order of arrival; the number and `seed` alone decide what happens to it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Share that is answered 500 at once, 0 to 1.
    pub error_share: f64,
    /// Share that takes a slot and then never answers, 0 to 1.
    pub hang_share: f64,
    /// Share whose answer breaks off half way, 0 to 1.
    pub truncate_share: f64,
    /// Share that is answered 200 with something that is not JSON, 0 to 1.
    pub garbage_share: f64,
    /// Chooses another sequence.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Error,
    Hang,
    Truncate,
    Garbage,
}

impl Faults {
    const KINDS: [Fault; 4] = [Fault::Error, Fault::Hang, Fault::Truncate, Fault::Garbage];

    pub(crate) const fn shares(&self) -> [(&'static str, f64); 4] {
        [
            ("error_share", self.error_share),
            ("hang_share", self.hang_share),
            ("truncate_share", self.truncate_share),
            ("garbage_share", self.garbage_share),
        ]
    }

    /// What happens to request `number`.
    fn pick(&self, number: u64) -> Option<Fault> {
        let drawn = mix(Hash::new().number(self.seed).number(number).finish()) >> 11;
        let drawn = drawn as f64 / (1_u64 << 53) as f64; // 53 bits: exact, in [0, 1)
        let mut below = 0.0;
        for (kind, (_, share)) in Self::KINDS.into_iter().zip(self.shares()) {
            below += share;
            if drawn < below {
                return Some(kind);
            }
        }
        None
    }
}

/// The shares in force and the number of the next request.
#[derive(Debug)]
pub(crate) struct Sequence {
    any: AtomicBool,
    shares: [AtomicU64; 4],
    seed: AtomicU64,
    next: AtomicU64,
}

impl Sequence {
    pub(crate) fn new(faults: Faults) -> Self {
        let sequence = Self {
            any: AtomicBool::new(false),
            shares: Default::default(),
            seed: AtomicU64::new(0),
            next: AtomicU64::new(0),
        };
        sequence.replace(faults);
        sequence
    }

    /// Puts other shares in force; shares out of range count as the nearest bound.
    pub(crate) fn replace(&self, faults: Faults) {
        for (cell, (_, share)) in self.shares.iter().zip(faults.shares()) {
            let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
            cell.store(share.to_bits(), Relaxed);
        }
        self.seed.store(faults.seed, Relaxed);
        self.any.store(faults.shares().iter().any(|(_, share)| *share > 0.0), Relaxed);
    }

    /// Decides the fate of the next request. One load where no fault is asked for.
    pub(crate) fn next(&self) -> Option<Fault> {
        if !self.any.load(Relaxed) {
            return None;
        }
        let share = |i: usize| f64::from_bits(self.shares[i].load(Relaxed));
        let faults = Faults {
            error_share: share(0),
            hang_share: share(1),
            truncate_share: share(2),
            garbage_share: share(3),
            seed: self.seed.load(Relaxed),
        };
        faults.pick(self.next.fetch_add(1, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_and_the_sequence_repeats() {
        let faults = Faults { error_share: 0.2, hang_share: 0.1, truncate_share: 0.3, garbage_share: 0.1, seed: 9 };
        let run = || {
            let sequence = Sequence::new(faults);
            (0..10_000).map(|_| sequence.next()).collect::<Vec<_>>()
        };
        let picked = run();
        assert_eq!(picked, run());
        for (kind, (_, share)) in Faults::KINDS.into_iter().zip(faults.shares()) {
            let seen = picked.iter().filter(|fault| **fault == Some(kind)).count() as f64 / 10_000.0;
            assert!((seen - share).abs() < 0.02, "{kind:?}: {seen}");
        }
    }

    #[test]
    fn all_is_all_and_nothing_is_nothing() {
        let sequence = Sequence::new(Faults { hang_share: 1.0, ..Faults::default() });
        assert!((0..1_000).all(|_| sequence.next() == Some(Fault::Hang)));
        sequence.replace(Faults { error_share: f64::NAN, ..Faults::default() });
        assert!((0..1_000).all(|_| sequence.next().is_none()));
    }
}
