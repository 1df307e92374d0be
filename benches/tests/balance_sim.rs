//! The balancer's real picks in virtual time, with fixed seeds: waits beside those of one central queue, shares beside the
//! weights, several gateways beside one, and what a black hole draws. The benchmark `balance_seed` has the same in full.
//!
//! More requests in each run: `SIM_REQUESTS=1000000 cargo test --release -p forebay-benches --test balance_sim`

use std::time::Duration;

use forebay_balance::{Offset, Outlier, Policy};
use forebay_benches::balance::{
    Arrivals, Bounds, Central, Forebay, Gateways, Router, Scan, Tally, UniformP2c, drawn_by_a_black_hole, simulate,
};
use forebay_benches::virtual_time::virtually;
use forebay_core::Outcome;

const SLOTS: [u32; 8] = [32, 32, 16, 16, 8, 8, 4, 4];

/// How many requests a run has, unless told otherwise.
fn requests(default: usize) -> usize {
    std::env::var("SIM_REQUESTS").ok().map_or(default, |n| n.parse().expect("a number"))
}

fn run<R: Router>(arrivals: &Arrivals, router: impl FnOnce() -> R) -> Tally {
    virtually(async { simulate(&SLOTS, arrivals, &mut router()).await })
}

#[test]
fn p99_is_that_of_a_central_queue() {
    for load in [0.7, 0.8, 0.9, 0.95] {
        let arrivals = Arrivals::new(requests(40_000), load, &SLOTS, 1);
        let central = run(&arrivals, || Central::new(&SLOTS)).p99_response();
        let over = |tally: Tally| tally.p99_response() / central;
        let early = over(run(&arrivals, || Forebay::new(&SLOTS, Bounds::None, |b| b)));
        let late = over(run(&arrivals, || Forebay::new(&SLOTS, Bounds::Slots, |b| b)));
        let p2c = over(run(&arrivals, || Forebay::new(&SLOTS, Bounds::None, |b| b.policy(Policy::P2c))));
        assert!(early <= 1.01 && late <= 1.01 && p2c <= 1.03, "{load}: early {early}, late {late}, two choices {p2c}");
    }
}

/// Or else the simulator could not tell good picks from bad ones.
#[test]
fn two_choices_drawn_alike_whatever_the_weights_are_ten_times_worse() {
    let arrivals = Arrivals::new(requests(60_000), 0.95, &SLOTS, 1);
    let (central, uniform) = (run(&arrivals, || Central::new(&SLOTS)), run(&arrivals, || UniformP2c::new(SLOTS.len())));
    let over = uniform.p99_response() / central.p99_response();
    assert!(over >= 10.0, "{over}");
}

/// The errors of the shares at 50, 65 and 80 % load, in percent of what is due.
fn share_errors<R: Router>(router: impl Fn() -> R) -> [f64; 3] {
    [0.5, 0.65, 0.8].map(|load| {
        let mut all = Tally::default();
        for seed in 1..=3 {
            all.add(run(&Arrivals::new(requests(150_000), load, &SLOTS, seed), &router));
        }
        100.0 * all.share_error(&SLOTS)
    })
}

#[test]
fn shares_follow_the_weights() {
    let of = |offset| share_errors(|| Forebay::new(&SLOTS, Bounds::None, |b| b.offset(offset)));
    let [ours, half, zero, one] = [Offset::default(), Offset::Half, Offset::Zero, Offset::One].map(of);
    assert!(ours.iter().all(|error| *error <= 3.5), "{ours:?}");
    assert!(half[1] > 3.5, "where the due of the smallest lies between two counts: {half:?}");
    assert!(zero.iter().all(|error| *error > 13.0) && one.iter().all(|error| *error > 5.0), "{zero:?}, {one:?}");
}

#[test]
fn the_picks_are_those_of_a_plain_scan() {
    struct Both(Forebay, Scan);
    impl Router for Both {
        fn arrive(&mut self, request: usize) -> Option<usize> {
            let picked = self.0.arrive(request);
            assert_eq!(picked, self.1.arrive(request), "of request {request}");
            picked
        }
        fn over(&mut self, request: usize, endpoint: usize) {
            self.0.over(request, endpoint);
            self.1.over(request, endpoint);
        }
        fn next(&mut self) -> Option<(usize, usize)> {
            None
        }
    }
    for (offset, eighths) in [(Offset::Zero, 0), (Offset::Half, 4), (Offset::FiveEighths, 5), (Offset::One, 8)] {
        let ours = || Forebay::new(&SLOTS, Bounds::None, |b| b.offset(offset));
        run(&Arrivals::new(requests(20_000), 0.9, &SLOTS, 5), || Both(ours(), Scan::new(&SLOTS, eighths)));
    }
}

#[test]
fn twelve_gateways_with_fresh_probes_are_nearly_as_good_as_one() {
    let mean = |count, every: Option<u64>| {
        let mut all = Tally::default();
        for seed in 1..=2 {
            let arrivals = Arrivals::new(requests(20_000), 0.95, &SLOTS, seed);
            all.add(run(&arrivals, || Gateways::new(count, &SLOTS, every.map(Duration::from_millis))));
        }
        all.mean_response()
    };
    // Services take 100 ms, so what is heard every 5 ms is up to 0.05 service times old.
    let (one, blind, fresh, stale) = (mean(1, None), mean(12, None), mean(12, Some(5)), mean(12, Some(500)));
    assert!(fresh <= 1.06 * one, "{fresh} over {one}");
    assert!(blind > fresh, "{blind} without probes, {fresh} with them");
    assert!(stale < blind, "nobody herds on what was idle five service times ago: {stale}");
}

#[test]
fn a_black_hole_draws_little() {
    let mean = |outlier, failure| {
        let runs = (0..5).map(|seed| virtually(drawn_by_a_black_hole((24, 700), outlier, failure, seed)));
        runs.sum::<usize>() / 5
    };
    let mut never = Outlier::default();
    (never.consecutive_errors, never.min_requests) = (u32::MAX, u32::MAX);
    // A 503 also says how much its endpoint can take, so that even without the hold it draws less than a 500.
    assert!(mean(None, Outcome::Error) >= 600 && mean(None, Outcome::Overload) >= 500);
    for failure in [Outcome::Error, Outcome::Overload] {
        let (held, ejected) = (mean(Some(never), failure), mean(Some(Outlier::default()), failure));
        assert!(held <= 120 && ejected <= 10, "{failure:?}: {held} with the hold, {ejected} with ejection");
    }
}
