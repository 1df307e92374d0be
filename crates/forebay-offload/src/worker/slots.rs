use std::collections::HashMap;

use forebay_core::Class;

use crate::policy::{Claim, Job, OwnerTag};

/// The class and the owner that a running job takes a slot for.
pub(super) type Holder = (Class, Option<OwnerTag>);

/// The slots of a worker: how many each class and each owner may hold, and how many they do.
#[derive(Debug)]
pub(super) struct Slots {
    /// The bound of each class and all less urgent ones together.
    limits: [u32; Class::COUNT],
    per_owner: u32,
    of_class: [u32; Class::COUNT],
    of_owner: HashMap<Option<OwnerTag>, u32>,
}

impl Slots {
    /// Makes free slots for jobs of these classes; one owner may hold at most `per_owner` of them.
    pub(super) fn new(slots: usize, per_owner: usize, classes: &[bool; Class::COUNT]) -> Self {
        Self {
            limits: limits(to_u32(slots), classes),
            per_owner: to_u32(per_owner),
            of_class: [0; Class::COUNT],
            of_owner: HashMap::new(),
        }
    }

    /// Counts a job that starts.
    pub(super) fn take(&mut self, job: &Job) -> Holder {
        self.of_class[job.class.index()] += 1;
        *self.of_owner.entry(job.owner).or_default() += 1;
        (job.class, job.owner)
    }

    /// Counts a job that has ended.
    pub(super) fn give_back(&mut self, (class, owner): Holder) {
        self.of_class[class.index()] -= 1;
        if let Some(count) = self.of_owner.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.of_owner.remove(&owner);
            }
        }
    }

    /// Returns how many more jobs of each class may start.
    pub(super) fn room(&self) -> [u32; Class::COUNT] {
        let mut least = u32::MAX;
        std::array::from_fn(|class| {
            let held: u32 = self.of_class[class..].iter().sum();
            least = least.min(self.limits[class].saturating_sub(held));
            least
        })
    }

    /// Bounds a claim to the room that is left.
    pub(super) fn bound(&self, ask: &mut Claim) {
        ask.room = self.room();
        ask.max_per_owner = self.per_owner;
        ask.held = self.of_owner.iter().map(|(owner, held)| (*owner, *held)).collect();
    }
}

/// Returns how many slots each class and all less urgent ones may hold together: the most urgent class that is run all
/// of them, each further one an eighth of the slots less (at least one less), down to one.
fn limits(slots: u32, classes: &[bool; Class::COUNT]) -> [u32; Class::COUNT] {
    let step = (slots / 8).max(1);
    let mut left = slots;
    std::array::from_fn(|class| {
        let limit = left;
        if classes[class] {
            left = left.saturating_sub(step).max(1);
        }
        limit
    })
}

fn to_u32(slots: usize) -> u32 {
    u32::try_from(slots).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
