use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
};

use super::{Job, JobId, OwnerTag};

/// The owner of a job; jobs without one are one owner together.
pub(super) type Owner = Option<OwnerTag>;
/// The place of a job in the order of its class: the instant it should have started, then its id.
pub(super) type Turn = (u64, JobId);

/// The ready jobs of one class, in order inside each owner.
///
/// The first job of each owner stands in `heads` too, so that a claim passes over an owner's whole backlog in one step.
#[derive(Debug, Default)]
pub(super) struct Ready {
    jobs: BTreeSet<(Owner, u64, JobId)>,
    heads: BTreeSet<(u64, JobId, Owner)>,
}

impl Ready {
    /// Adds a job. O(log n).
    pub(super) fn insert(&mut self, job: &Job) {
        let first = self.first_of(job.owner);
        self.jobs.insert((job.owner, job.due, job.id));
        if first.is_none_or(|first| (job.due, job.id) < first) {
            if let Some((due, id)) = first {
                self.heads.remove(&(due, id, job.owner));
            }
            self.heads.insert((job.due, job.id, job.owner));
        }
    }

    /// Removes a job. O(log n).
    pub(super) fn remove(&mut self, job: &Job) {
        self.jobs.remove(&(job.owner, job.due, job.id));
        if self.heads.remove(&(job.due, job.id, job.owner))
            && let Some((due, id)) = self.first_of(job.owner)
        {
            self.heads.insert((due, id, job.owner));
        }
    }

    /// Returns the first job of each owner, in order, from behind `seen` on.
    pub(super) fn heads_after(&self, seen: Option<Turn>) -> impl Iterator<Item = (Turn, Owner)> {
        // An id is there once, so no head with the same turn has a greater owner than this bound.
        let from = seen.map_or(Unbounded, |(due, id)| Excluded((due, id, Some(OwnerTag::from_u128(u128::MAX)))));
        self.heads.range((from, Unbounded)).map(|&(due, id, owner)| ((due, id), owner))
    }

    /// Says whether no job is ready.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    fn first_of(&self, owner: Owner) -> Option<Turn> {
        let from = (owner, 0, JobId::from_u128(0));
        let &(of, due, id) = self.jobs.range(from..).next()?;
        (of == owner).then_some((due, id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use forebay_core::Class;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::JobSpec;

    fn job(id: u128, due: u64, owner: Option<u128>) -> Job {
        let mut job = Job::first(&JobSpec::new(JobId::from_u128(id), Class::P3), 0);
        job.due = due;
        job.owner = owner.map(OwnerTag::from_u128);
        job
    }

    proptest! {
        /// The first job of each owner, so that a claim passes over a backlog in one step.
        #[test]
        fn the_heads_are_the_first_jobs_of_the_owners(
            steps in prop::collection::vec((0u128..12, 0u64..5, prop::option::of(0u128..3), any::<bool>()), 1..60),
            seen in (0u64..5, 0u128..12),
        ) {
            let (mut ready, mut jobs) = (Ready::default(), BTreeMap::new());
            for (id, due, owner, comes) in steps {
                match jobs.remove(&id) {
                    Some(old) => ready.remove(&old),
                    None if comes => {
                        let new = job(id, due, owner);
                        ready.insert(&new);
                        jobs.insert(id, new);
                    }
                    None => {}
                }
                let mut heads: BTreeMap<Owner, Turn> = BTreeMap::new();
                for job in jobs.values() {
                    let turn = (job.due, job.id);
                    heads.entry(job.owner).and_modify(|first| *first = turn.min(*first)).or_insert(turn);
                }
                let mut heads: Vec<_> = heads.into_iter().map(|(owner, turn)| (turn, owner)).collect();
                heads.sort_unstable();
                prop_assert_eq!(ready.heads_after(None).collect::<Vec<_>>(), heads.clone());
                let seen = (seen.0, JobId::from_u128(seen.1));
                heads.retain(|(turn, _)| *turn > seen);
                prop_assert_eq!(ready.heads_after(Some(seen)).collect::<Vec<_>>(), heads);
                prop_assert_eq!(ready.is_empty(), jobs.is_empty());
            }
        }
    }
}
