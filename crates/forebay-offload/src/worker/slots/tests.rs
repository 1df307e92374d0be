use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::policy::{Bounds, Command, JobId, JobSpec, Machine, Reply, Verdict};

const ALL: [bool; Class::COUNT] = [true; Class::COUNT];

#[test]
fn each_class_leaves_an_eighth_to_the_more_urgent_ones() {
    assert_eq!(limits(16, &ALL), [16, 14, 12, 10, 8, 6, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(limits(64, &ALL)[..4], [64, 56, 48, 40]);
    assert_eq!(limits(15, &ALL)[..4], [15, 14, 13, 12]);
    assert_eq!(limits(4, &ALL)[..5], [4, 3, 2, 1, 1]);
    assert_eq!(limits(2, &ALL)[..3], [2, 1, 1]);
    assert_eq!(limits(1, &ALL), [1; Class::COUNT]);
    assert_eq!(limits(u32::MAX, &ALL)[15], 1);
}

#[test]
fn the_most_urgent_class_that_is_run_may_hold_all_slots() {
    let only = |classes: &[usize]| std::array::from_fn(|class| classes.contains(&class));
    assert_eq!(limits(8, &only(&[3]))[3], 8);
    let limits = limits(8, &only(&[1, 3]));
    assert_eq!((limits[1], limits[3]), (8, 7));
}

/// A job that a tenant sends, an end of the running job of this number, or a claim of so many jobs.
#[derive(Clone, Debug)]
enum Step {
    Send { class: u8, owner: Option<u128> },
    End(usize),
    Claim(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let owner = prop::option::of(0u128..4);
    prop_oneof![
        4 => (0u8..5, owner).prop_map(|(class, owner)| Step::Send { class, owner }),
        1 => any::<prop::sample::Index>().prop_map(|at| Step::End(at.index(usize::MAX))),
        2 => (1u32..20).prop_map(Step::Claim),
    ]
}

proptest! {
    /// The slots beside counts of what runs: no class and no owner gets more than its part, and nothing waits that may run.
    #[test]
    fn no_class_and_no_owner_has_more_than_its_part(
        slots in 1u32..20,
        per_owner in 1u32..12,
        shares in prop::array::uniform16(0u32..300),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut machine = Machine::new();
        let mut held = Slots::new(slots as usize, per_owner as usize, &ALL);
        let mut running: Vec<(Job, Holder)> = Vec::new();
        let bounds = limits(slots, &ALL);
        for (n, step) in steps.into_iter().enumerate() {
            let n = n as u128;
            match step {
                Step::Send { class, owner } => {
                    let mut spec = JobSpec::new(JobId::from_u128(n), Class::new(class));
                    spec.owner = owner.map(OwnerTag::from_u128);
                    machine.apply(0, Command::Enqueue { spec, bounds: Bounds::default() });
                }
                Step::End(_) if running.is_empty() => {}
                Step::End(at) => {
                    let (job, holder) = running.swap_remove(at % running.len());
                    held.give_back(holder);
                    let verdict = Verdict::Complete { http_status: 200, bytes: 0 };
                    machine.apply(0, Command::Settle { id: job.id, token: job.token, verdict });
                }
                Step::Claim(max) => {
                    let max = max.min(slots - running.len() as u32);
                    let mut ask = Claim::new(n, max);
                    ask.shares = shares;
                    held.bound(&mut ask);
                    let (Reply::Claimed(claimed), _) = machine.apply(0, Command::Claim(ask)) else { panic!() };
                    let all = claimed.jobs.len() < max as usize;
                    running.extend(claimed.jobs.into_iter().map(|job| (job, held.take(&job))));
                    let mut owners: HashMap<_, u32> = HashMap::new();
                    let owned = running.iter().filter(|(job, _)| job.owner.is_some());
                    owned.for_each(|(job, _)| *owners.entry(job.owner).or_default() += 1);
                    let from = |class: usize| running.iter().filter(|(job, _)| job.class.index() >= class).count();
                    let free = |class: usize| (0..=class).all(|class| (from(class) as u32) < bounds[class]);
                    prop_assert!(running.len() <= slots as usize && owners.values().all(|&count| count <= per_owner));
                    prop_assert!((0..16).all(|class| from(class) as u32 <= bounds[class]));
                    for job in machine.jobs().filter(|job| all && job.state.is_waiting()) {
                        let of_owner = owners.get(&job.owner).copied().unwrap_or(0);
                        prop_assert!(!free(job.class.index()) || of_owner == per_owner, "{job:?} waits");
                    }
                }
            }
        }
        for (_, holder) in running {
            held.give_back(holder);
        }
        prop_assert_eq!(held.room(), bounds, "what has ended holds nothing");
        prop_assert!(held.of_owner.is_empty());
    }
}
