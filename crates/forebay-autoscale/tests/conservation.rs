//! Whatever becomes of the tickets, and on however many threads, nothing is lost and no gauge stays up.

use forebay_autoscale::{ClassCounts, DemandSignal, Early};
use forebay_core::{Class, Outcome, Reason};

const TICKETS: u64 = 50_000;

/// Splitmix64: enough to choose a fate.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 32
}

fn live(signal: &DemandSignal, seed: u64) {
    let mut state = seed;
    let mut held = Vec::new();
    for _ in 0..TICKETS {
        let chance = next(&mut state);
        let mut ticket = signal.arrive(Class::new((chance % 4) as u8), (chance % 7) as u32);
        if chance & 16 != 0 {
            ticket.start();
        }
        match next(&mut state) % 6 {
            0 => ticket.finish(Outcome::Success),
            1 => ticket.shed(Reason::Evicted),
            2 => drop(ticket),
            3 => {
                ticket.early(Early::Hit);
                ticket.early(Early::Hit); // counted once
                ticket.finish(Outcome::Error);
            }
            // As a panic drops it, without a message for each.
            4 if chance % 64 == 16 => {
                let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    let _ticket = ticket;
                    std::panic::resume_unwind(Box::new(()));
                }));
                assert!(unwound.is_err());
            }
            _ => held.push(ticket),
        }
        if held.len() > 50 {
            drop(held.swap_remove((chance % 50) as usize));
        }
    }
}

#[test]
fn arrived_is_done_and_shed_and_cancelled() {
    let signal = DemandSignal::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|seed| {
                let signal = signal.clone();
                scope.spawn(move || live(&signal, seed))
            })
            .collect();
        while !workers.iter().all(|worker| worker.is_finished()) {
            for class in (0..4).map(Class::new) {
                let counts = signal.counts(class);
                assert!(counts.queued < 1 << 32 && counts.in_flight < 1 << 32, "wrapped: {counts:?}");
            }
            std::thread::yield_now();
        }
    });
    let mut arrived = 0;
    for class in (0..4).map(Class::new) {
        let counts @ ClassCounts { queued, in_flight, .. } = signal.counts(class);
        assert_eq!((queued, in_flight), (0, 0));
        assert_eq!(counts.arrived, counts.done + counts.shed + counts.cancelled, "{counts:?}");
        arrived += counts.arrived;
    }
    assert_eq!(arrived, 4 * TICKETS);
}
