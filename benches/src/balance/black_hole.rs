use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use forebay_balance::{Balance, Endpoint, Outlier};
use forebay_core::{Class, Outcome};
use tokio::time::advance;

use super::Arrivals;
use crate::priority::Random;

/// Of so many `exchanges` of `clients` that ask again at once, how many go to the one of eight equal endpoints that ends
/// all of them with `failure` after a hundredth of the mean service time (a "black hole"). For a runtime whose clock is
/// paused.
///
/// # Panics
///
/// `outlier` is not valid.
pub async fn drawn_by_a_black_hole(
    (clients, exchanges): (usize, usize),
    outlier: Option<Outlier>,
    failure: Outcome,
    seed: u64,
) -> usize {
    let builder = (0..8).fold(Balance::builder().outlier(outlier), |builder, index: usize| {
        builder.endpoint(Endpoint::with_service(index.to_string(), index))
    });
    let fleet = builder.build().expect("valid").fleet();
    let (mut dice, mut ends, mut now, mut begun, mut bad) = (Random::new(seed), BinaryHeap::new(), 0, 0, 0);
    let mut picks: Vec<_> = (0..clients).map(|_| None).collect();
    let mut idle: Vec<usize> = (0..clients).collect();
    while begun < exchanges {
        while let Some(client) = idle.pop() {
            let pick = fleet.pick(Class::P1).expect("no endpoint is full");
            let fails = pick.service == 0;
            let took = if fails { 0.01 } else { dice.lognormal(1.0) };
            ends.push(Reverse((now + (Arrivals::MEAN.as_nanos() as f64 * took) as u64, client)));
            picks[client] = Some(pick);
            begun += 1;
            bad += usize::from(fails);
        }
        let Some(Reverse((at, client))) = ends.pop() else { break };
        advance(Duration::from_nanos(at - now)).await;
        now = at;
        if let Some(pick) = picks[client].take() {
            let outcome = if pick.service == 0 { failure } else { Outcome::Success };
            pick.finish(outcome);
        }
        idle.push(client);
    }
    bad
}
