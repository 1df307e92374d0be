use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use tokio::time::advance;

use crate::priority::Random;

/// Who says to which endpoint a request goes. Requests and endpoints are numbers.
pub trait Router {
    /// Where a request goes that has just come; `None`: it waits here.
    fn arrive(&mut self, request: usize) -> Option<usize>;
    /// A request is over at an endpoint.
    fn over(&mut self, request: usize, endpoint: usize);
    /// A request that waited here and may go now, and where.
    fn next(&mut self) -> Option<(usize, usize)>;
}

/// Requests that come independently of each other, and how long each takes in a slot: lognormal, 100 ms on average.
#[derive(Debug)]
pub struct Arrivals {
    /// When each comes, in nanoseconds.
    at: Vec<u64>,
    /// How long each takes, in nanoseconds.
    work: Vec<u64>,
}

impl Arrivals {
    /// How long a request takes on average.
    pub const MEAN: Duration = Duration::from_millis(100);

    /// `count` of them; a `load` of 1 keeps all of `slots` busy. The sigma of their length is 1.
    #[must_use]
    pub fn new(count: usize, load: f64, slots: &[u32], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mean = Self::MEAN.as_nanos() as f64;
        let apart = mean / (load * f64::from(slots.iter().sum::<u32>()));
        let mut now = 0.0;
        let mut next = || {
            now += random.exponential(apart);
            (now as u64, (mean * random.lognormal(1.0)) as u64)
        };
        let (at, work) = (0..count).map(|_| next()).unzip();
        Self { at, work }
    }
}

/// What came of it; the first tenth of the requests warms up and does not count.
#[derive(Debug, Default)]
pub struct Tally {
    waits: Vec<u64>,
    responses: Vec<u64>,
    sent: Vec<u64>,
}

impl Tally {
    /// Adds another run with the same endpoints.
    pub fn add(&mut self, other: Self) {
        self.waits.extend(other.waits);
        self.responses.extend(other.responses);
        self.sent.resize(other.sent.len(), 0);
        self.sent.iter_mut().zip(other.sent).for_each(|(sum, sent)| *sum += sent);
    }

    /// The 99th percentile of the time from a request's coming to its start in a slot, in mean service times.
    #[must_use]
    pub fn p99_wait(&self) -> f64 {
        p99(&self.waits)
    }

    /// The same to its end.
    #[must_use]
    pub fn p99_response(&self) -> f64 {
        p99(&self.responses)
    }

    /// The mean of the same.
    #[must_use]
    pub fn mean_response(&self) -> f64 {
        let sum: u128 = self.responses.iter().map(|time| u128::from(*time)).sum();
        sum as f64 / self.responses.len() as f64 / Arrivals::MEAN.as_nanos() as f64
    }

    /// How far the share of the requests is off the share of the weights, at the weight where it is farthest off: 0.03 is
    /// 3 % of what is due. Endpoints of one weight, which no rule here but the unweighted tells apart, count together:
    /// one's share alone would be noisier.
    #[must_use]
    pub fn share_error(&self, weights: &[u32]) -> f64 {
        let (all, sum) = (self.sent.iter().sum::<u64>() as f64, f64::from(weights.iter().sum::<u32>()));
        let off = |weight: &u32| {
            let of_weight = self.sent.iter().zip(weights).filter(|(_, other)| *other == weight);
            let (sent, weights) =
                of_weight.fold((0, 0), |(sent, weights), (one, weight)| (sent + one, weights + weight));
            (sent as f64 / all / (f64::from(weights) / sum) - 1.0).abs()
        };
        weights.iter().map(off).fold(0.0, f64::max)
    }
}

fn p99(times: &[u64]) -> f64 {
    let mut times = times.to_vec();
    let at = (times.len() * 99).div_ceil(100).saturating_sub(1);
    let (_, time, _) = times.select_nth_unstable(at);
    *time as f64 / Arrivals::MEAN.as_nanos() as f64
}

/// Sends all requests through `router` to endpoints of so many slots, each with a queue before it, first come first
/// served. For a runtime whose clock is paused: it is moved on to each event.
pub async fn simulate(slots: &[u32], arrivals: &Arrivals, router: &mut dyn Router) -> Tally {
    let count = arrivals.at.len();
    let mut free = slots.to_vec();
    let mut queues = vec![VecDeque::new(); slots.len()];
    let mut ends = BinaryHeap::<Reverse<(u64, usize, usize)>>::new();
    let mut tally = Tally { sent: vec![0; slots.len()], ..Tally::default() };
    let (mut now, mut next) = (0, 0);
    while next < count || !ends.is_empty() {
        let end = ends.peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
        let coming = arrivals.at.get(next).copied().unwrap_or(u64::MAX);
        let then = end.min(coming);
        advance(Duration::from_nanos(then - now)).await;
        now = then;
        let mut changed = Vec::new();
        if end <= coming {
            let Some(Reverse((_, endpoint, request))) = ends.pop() else { break };
            free[endpoint] += 1;
            router.over(request, endpoint);
            changed.push(endpoint);
        } else {
            if let Some(endpoint) = router.arrive(next) {
                queues[endpoint].push_back(next);
                changed.push(endpoint);
            }
            next += 1;
        }
        while let Some((request, endpoint)) = router.next() {
            queues[endpoint].push_back(request);
            changed.push(endpoint);
        }
        for endpoint in changed {
            while free[endpoint] > 0
                && let Some(request) = queues[endpoint].pop_front()
            {
                free[endpoint] -= 1;
                let end = now + arrivals.work[request];
                ends.push(Reverse((end, endpoint, request)));
                if request >= count / 10 {
                    tally.waits.push(now - arrivals.at[request]);
                    tally.responses.push(end - arrivals.at[request]);
                    tally.sent[endpoint] += 1;
                }
            }
        }
    }
    tally
}
