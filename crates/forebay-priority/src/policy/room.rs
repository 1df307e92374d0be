/// Classes that a [`Room`] has a count for.
pub(crate) const CLASSES: usize = 4;
const BITS: u32 = 12;
/// More free seats than this do not go into a [`Room`].
pub(crate) const MOST: usize = (1 << BITS) - 1;

/// Seats that may be taken by whoever comes, in one word: how many are left for all together, and how many for each
/// class. All that decides whether a seat may be taken is in it, so that an exchange of the word is the whole decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room(u64);

impl Room {
    const OPEN: u64 = 1 << 63;
    /// Seats are neither taken nor given back here.
    pub(crate) const SHUT: Self = Self(0);
    /// The same, as somebody waits.
    pub(crate) const CROWDED: Self = Self(1 << 62);

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// Room for this many, at most [`MOST`], but for no class yet.
    pub(super) const fn open(all: usize) -> Self {
        Self(Self::OPEN | all as u64)
    }

    /// Adds seats that a class may have, at most [`MOST`].
    pub(super) const fn with(self, class: usize, seats: usize) -> Self {
        Self(self.0 | (seats as u64) << Self::shift(class))
    }

    pub(crate) const fn is_open(self) -> bool {
        self.0 & Self::OPEN != 0
    }

    /// Seats left for all together.
    pub(super) const fn all(self) -> usize {
        self.0 as usize & MOST
    }

    /// Seats left for a class.
    pub(super) const fn of(self, class: usize) -> usize {
        (self.0 >> Self::shift(class)) as usize & MOST
    }

    /// What is left after this class has taken a seat; `None` if it may not have one.
    pub(crate) const fn take(self, class: usize) -> Option<Self> {
        // Nothing is left of what is shut.
        if self.all() == 0 || self.of(class) == 0 { None } else { Some(Self(self.0 - Self::seat(class))) }
    }

    /// What is left after this class has given a seat back; `None` if it is shut.
    pub(crate) const fn give(self, class: usize) -> Option<Self> {
        if self.is_open() { Some(Self(self.0 + Self::seat(class))) } else { None }
    }

    const fn shift(class: usize) -> u32 {
        BITS * (class as u32 + 1)
    }

    /// One of all, which is one of the class.
    const fn seat(class: usize) -> u64 {
        1 | 1 << Self::shift(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_one_of_all_and_one_of_its_class() {
        let room = Room::open(MOST).with(0, MOST).with(3, 1);
        let left = room.take(3).expect("one is free");
        assert_eq!((left.all(), left.of(0), left.of(3), left.is_open()), (MOST - 1, MOST, 0, true));
        assert_eq!((left.take(3), left.take(1)), (None, None), "not for this class");
        assert_eq!(left.give(3), Some(room));
        assert_eq!(Room::open(0).with(0, 1).take(0), None, "none for anybody");
        for shut in [Room::SHUT, Room::CROWDED] {
            assert_eq!((shut.is_open(), shut.take(0), shut.give(0)), (false, None, None));
        }
    }
}
