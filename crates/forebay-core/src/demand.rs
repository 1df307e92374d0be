use std::ops::{AddAssign, Index, IndexMut};
use std::sync::Arc;

use crate::Class;

/// What one class holds and has seen at one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassDemand {
    /// Waiting now, in seats: 1 a request or job unless weighted.
    pub queued: u64,
    /// Being served now, until the end of the response body, in seats.
    pub in_flight: u64,
    /// Requests that arrived since the start.
    pub offered: u64,
    /// Requests that were served to the end since the start.
    pub done: u64,
    /// Requests that were refused since the start.
    pub shed: u64,
}

/// What one stage holds right now, per class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// One row a class, most urgent first; `demand[Class::P0]` indexes it too.
    pub classes: [ClassDemand; Class::COUNT],
}

impl Demand {
    /// All classes together.
    #[must_use]
    pub fn total(&self) -> ClassDemand {
        let mut sum = ClassDemand::default();
        for class in &self.classes {
            sum += *class;
        }
        sum
    }
}

impl Index<Class> for Demand {
    type Output = ClassDemand;

    fn index(&self, class: Class) -> &ClassDemand {
        &self.classes[class.index()]
    }
}

impl IndexMut<Class> for Demand {
    fn index_mut(&mut self, class: Class) -> &mut ClassDemand {
        &mut self.classes[class.index()]
    }
}

impl AddAssign for ClassDemand {
    /// Saturates, as sums over many gateways may.
    fn add_assign(&mut self, other: Self) {
        self.queued = self.queued.saturating_add(other.queued);
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        self.offered = self.offered.saturating_add(other.offered);
        self.done = self.done.saturating_add(other.done);
        self.shed = self.shed.saturating_add(other.shed);
    }
}

impl AddAssign for Demand {
    fn add_assign(&mut self, other: Self) {
        for (sum, more) in self.classes.iter_mut().zip(other.classes) {
            *sum += more;
        }
    }
}

/// Something that can say what it holds right now: the handles of priority, offload and balance.
#[diagnostic::on_unimplemented(note = "the handles of the forebay layers are demand sources: `build_with_handle()`")]
pub trait DemandSource: Send + Sync + 'static {
    /// The demand now. Cheap enough to be called every second; takes no lock that serving waits for long.
    fn demand(&self) -> Demand;
}

impl<T: DemandSource + ?Sized> DemandSource for Arc<T> {
    fn demand(&self) -> Demand {
        (**self).demand()
    }
}

/// This request was counted further out (by priority), so balance does not count it again. A request extension.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate_and_index_by_class() {
        let mut demand = Demand::default();
        demand[Class::P1].queued = u64::MAX;
        demand[Class::P3] = ClassDemand { queued: 2, in_flight: 3, offered: 4, done: 5, shed: 6 };
        demand += demand;
        assert_eq!(demand[Class::P1].queued, u64::MAX);
        assert_eq!(demand[Class::P3], ClassDemand { queued: 4, in_flight: 6, offered: 8, done: 10, shed: 12 });
        assert_eq!(demand.total().queued, u64::MAX);
        assert_eq!(demand.total().shed, 12);
    }
}
