//! Random commands on the state machine, beside a model that keeps a list and scans it.

mod naive;

use forebay_core::Class;
use forebay_offload::policy::{
    Bounds, Cause, Claim, Command, Enqueued, JobId, JobSpec, KeyClaim, KeyTag, Machine, OwnerTag, Reply, Verdict,
};
use naive::Naive;
use proptest::prelude::*;

fn id() -> impl Strategy<Value = JobId> {
    (0u128..6).prop_map(JobId::from_u128)
}

fn owner() -> impl Strategy<Value = Option<OwnerTag>> {
    prop::option::of((8u128..10).prop_map(OwnerTag::from_u128))
}

fn token() -> impl Strategy<Value = u64> {
    0u64..8
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Complete { http_status: 200, bytes: 3 }),
        (0u64..5_000, any::<u32>()).prop_map(|(after_ms, jitter)| Verdict::Retry {
            http_status: Some(503),
            bytes: 2,
            after_ms,
            jitter
        }),
        Just(Verdict::Fail { http_status: None, bytes: 0, cause: Cause::Refused }),
        (0u64..2_000).prop_map(|after_ms| Verdict::Release { after_ms }),
        Just(Verdict::Crash),
    ]
}

fn spec() -> impl Strategy<Value = JobSpec> {
    (id(), 0u8..4, owner(), prop::option::of((0u128..3, 0u128..2)), 0u64..2_000).prop_map(
        |(id, class, owner, key, delay_ms)| {
            let mut spec = JobSpec::new(id, Class::new(class));
            spec.owner = owner;
            spec.key = key.map(|(key, print)| KeyClaim {
                key: KeyTag::from_u128(key),
                fingerprint: KeyTag::from_u128(print),
                kept_ms: 4_000,
            });
            spec.delay_ms = delay_ms;
            spec.target_ms = 1_000;
            spec.expires_after_ms = 6_000;
            spec.kept_ms = 3_000;
            spec.dead_kept_ms = 5_000;
            spec.max_attempts = 3;
            spec.bytes = 10;
            spec
        },
    )
}

/// Half of the claims have room for every class and owner.
fn claim() -> impl Strategy<Value = Claim> {
    let room = prop::collection::vec(prop_oneof![0u32..4, Just(u32::MAX)], 4);
    let held = prop::collection::vec((owner(), prop_oneof![0u32..3, Just(u32::MAX)]), 0..4);
    let bounds = prop::option::of((room, 0u32..4, held));
    (0u128..40, 0u32..4, any::<bool>(), bounds).prop_map(|(nonce, max, shared, bounds)| {
        let mut ask = Claim::new(nonce, max);
        ask.ttl_ms = 2_000;
        ask.shares = std::array::from_fn(|class| if shared && class > 0 { 300 } else { 0 });
        ask.classes[2] = shared;
        if let Some((room, max_per_owner, held)) = bounds {
            ask.room[..4].copy_from_slice(&room);
            ask.max_per_owner = max_per_owner;
            ask.held = held;
        }
        ask
    })
}

fn command() -> impl Strategy<Value = Command> {
    let bounds = Bounds { backlog: 3, backlog_per_owner: 2, stored_bytes: 45 };
    prop_oneof![
        4 => spec().prop_map(move |spec| Command::Enqueue { spec, bounds }),
        4 => claim().prop_map(Command::Claim),
        2 => (id(), token()).prop_map(|(id, token)| Command::Renew { id, token, ttl_ms: 2_000 }),
        4 => (id(), token(), verdict()).prop_map(|(id, token, verdict)| Command::Settle { id, token, verdict }),
        1 => id().prop_map(|id| Command::Cancel { id }),
        1 => id().prop_map(|id| Command::Requeue { id, target_ms: 500, expires_after_ms: 4_000 }),
        1 => id().prop_map(|id| Command::Erase { id }),
        2 => Just(Command::Sweep),
        1 => Just(Command::LoseLeases),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_machine_does_what_the_list_does(
        steps in prop::collection::vec((0u64..1_500, command(), any::<bool>()), 1..60),
    ) {
        let (mut machine, mut naive) = (Machine::new(), Naive::default());
        let mut now = 1_000_000;
        for (passed, command, aim) in steps {
            now += passed;
            // Half of the settles and renewals are made to hit: the token of whoever holds the job.
            let command = if aim { aimed(command, &machine) } else { command };
            let (reply, effects) = machine.apply(now, command.clone());
            let expected = naive.apply(now, &command);
            prop_assert_eq!(naive::digest(&reply), expected, "{:?} at {}", &command, now);
            naive.check(&machine);
            for id in effects.saved.iter().filter(|id| !effects.erased.contains(id)) {
                prop_assert!(machine.job(*id).is_some());
            }
        }
    }

    #[test]
    fn a_repeated_settle_or_enqueue_changes_nothing(verdict in verdict(), spec in spec()) {
        let mut machine = Machine::new();
        let mut spec = spec;
        spec.delay_ms = 0;
        let enqueue = Command::Enqueue { spec: spec.clone(), bounds: Bounds::default() };
        machine.apply(1, enqueue.clone());
        let (again, effects) = machine.apply(1, enqueue);
        let existing = matches!(again, Reply::Enqueued(Enqueued::Existing(_)));
        prop_assert!(existing && effects.saved.is_empty());
        machine.apply(2, Command::Claim(Claim::new(1, 1)));
        let token = machine.job(spec.id).map_or(0, |job| job.token);
        let settle = Command::Settle { id: spec.id, token, verdict };
        let (first, _) = machine.apply(3, settle.clone());
        let before = machine.job(spec.id).copied();
        let (second, effects) = machine.apply(4, settle);
        prop_assert_eq!(first, second);
        prop_assert!(effects.saved.is_empty());
        prop_assert_eq!(before, machine.job(spec.id).copied());
    }
}

fn aimed(command: Command, machine: &Machine) -> Command {
    let held = |id| machine.job(id).map_or(0, |job| job.token);
    match command {
        Command::Settle { id, verdict, .. } => Command::Settle { id, token: held(id), verdict },
        Command::Renew { id, ttl_ms, .. } => Command::Renew { id, token: held(id), ttl_ms },
        other => other,
    }
}

#[test]
fn shares_are_exact_over_many_claims() {
    let mut machine = Machine::new();
    let mut next = 0u128;
    let mut taken = [0u32; 4];
    let mut top_up = |machine: &mut Machine| {
        for class in 0..4u8 {
            while machine.stats().waiting[usize::from(class)] < 20 {
                next += 1;
                let spec = JobSpec::new(JobId::from_u128(next), Class::new(class));
                machine.apply(0, Command::Enqueue { spec, bounds: Bounds::default() });
            }
        }
    };
    for nonce in 0..1_000u128 {
        top_up(&mut machine);
        let mut ask = Claim::new(nonce, 10);
        ask.shares = std::array::from_fn(|class| if class > 0 { 50 } else { 0 });
        let (Reply::Claimed(claimed), _) = machine.apply(0, Command::Claim(ask)) else { panic!("not a claim") };
        assert_eq!(claimed.jobs.len(), 10);
        for job in claimed.jobs {
            taken[job.class.index()] += 1;
            let settle = Command::Settle {
                id: job.id,
                token: job.token,
                verdict: Verdict::Complete { http_status: 200, bytes: 0 },
            };
            machine.apply(0, settle);
        }
    }
    // 5 % of 10,000 places each; the rest is P0's.
    assert_eq!(taken, [8_500, 500, 500, 500]);
}

#[test]
fn jobs_of_a_class_start_in_the_order_they_are_due() {
    let mut machine = Machine::new();
    for (n, target_ms) in [(1, 900), (2, 100), (3, 500), (4, 100)] {
        let mut spec = JobSpec::new(JobId::from_u128(n), Class::P2);
        spec.target_ms = target_ms;
        machine.apply(0, Command::Enqueue { spec, bounds: Bounds::default() });
    }
    let (Reply::Claimed(claimed), _) = machine.apply(1, Command::Claim(Claim::new(1, 10))) else { panic!() };
    let order: Vec<_> = claimed.jobs.iter().map(|job| job.id.as_u128()).collect();
    assert_eq!(order, [2, 4, 3, 1]);
}

#[test]
fn a_claim_passes_over_owners_and_classes_without_room() {
    let mut machine = Machine::new();
    let mut add = |id: u128, class: Class, owner: Option<u128>| {
        let mut spec = JobSpec::new(JobId::from_u128(id), class);
        spec.owner = owner.map(OwnerTag::from_u128);
        machine.apply(0, Command::Enqueue { spec, bounds: Bounds::default() });
    };
    for id in 0..100 {
        add(id, Class::P2, Some(1));
    }
    for (id, class, owner) in [
        (100, Class::P2, None),
        (101, Class::P2, Some(2)),
        (102, Class::P3, Some(2)),
        (103, Class::P2, Some(2)),
        (104, Class::P1, Some(1)),
        (105, Class::P3, None),
        (106, Class::P3, Some(3)),
    ] {
        add(id, class, owner);
    }
    let mut claim = |nonce, change: fn(&mut Claim)| {
        let mut ask = Claim::new(nonce, 10);
        ask.max_per_owner = 2;
        ask.held = vec![(Some(OwnerTag::from_u128(1)), 2), (None, 1)];
        change(&mut ask);
        let (Reply::Claimed(claimed), _) = machine.apply(1, Command::Claim(ask)) else { panic!() };
        claimed.jobs.iter().map(|job| job.id.as_u128()).collect::<Vec<_>>()
    };
    // Owner 1 has two already, jobs without an owner one: 102 and 105 find no room, nor does 106 in its class.
    assert_eq!(claim(1, |ask| ask.room[3] = 0), [100, 101, 103]);
    assert_eq!(claim(2, |ask| ask.room[0] = 1), [102]);
    assert_eq!(claim(1, |_| ()), [100, 101, 103], "a repeated claim has the same answer");
    assert_eq!(claim(3, |ask| ask.held.push((Some(OwnerTag::from_u128(3)), 2))), [105]);
    assert_eq!(claim(4, |ask| ask.held.clear()), [104, 0, 106]);
}

#[test]
fn shares_hold_too_while_a_class_has_little_room() {
    let mut machine = Machine::new();
    let (mut next, mut taken) = (0u128, [0u32; 4]);
    for nonce in 0..2_000u128 {
        for class in [1, 3] {
            while machine.stats().waiting[class] < 20 {
                next += 1;
                let spec = JobSpec::new(JobId::from_u128(next), Class::new(class as u8));
                machine.apply(0, Command::Enqueue { spec, bounds: Bounds::default() });
            }
        }
        // A worker full but for slots that are kept for P0, and asking again while nothing has ended.
        let mut ask = Claim::new(nonce, 3);
        ask.shares = std::array::from_fn(|class| if class > 0 { 50 } else { 0 });
        ask.room[1] = (nonce % 2) as u32;
        let (Reply::Claimed(claimed), _) = machine.apply(0, Command::Claim(ask)) else { panic!("not a claim") };
        for job in claimed.jobs {
            taken[job.class.index()] += 1;
            let verdict = Verdict::Complete { http_status: 200, bytes: 0 };
            machine.apply(0, Command::Settle { id: job.id, token: job.token, verdict });
        }
    }
    assert_eq!(taken, [0, 950, 0, 50]);
}

#[test]
fn a_thousand_jobs_due_at_once_are_moved_in_parts() {
    let mut machine = Machine::new();
    for n in 0..1_000u128 {
        let mut spec = JobSpec::new(JobId::from_u128(n), Class::P2);
        spec.delay_ms = 10;
        machine.apply(0, Command::Enqueue { spec, bounds: Bounds::default() });
    }
    let (Reply::Swept(swept), _) = machine.apply(10, Command::Sweep) else { panic!() };
    assert_eq!((swept.moved, swept.more), (256, true));
    while let (Reply::Swept(swept), _) = machine.apply(10, Command::Sweep)
        && swept.more
    {}
    let (Reply::Claimed(claimed), _) = machine.apply(10, Command::Claim(Claim::new(1, 10_000))) else { panic!() };
    assert_eq!(claimed.jobs.len(), 256);
    assert!(claimed.more);
}
