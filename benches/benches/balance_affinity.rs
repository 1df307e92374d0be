//! How much of their prompts requests find in the KV cache of the endpoint they are sent to, on real prompts, in virtual
//! time: `Fleet` by least connections, which knows no prompts, beside keys of their beginnings and their whole prefixes.
//!
//! `cargo bench -p forebay-benches --bench balance_affinity`
//!
//! Eight equal endpoints, each with a cache of 2000 blocks of 512 tokens. A request takes 0.25 ms for each token of its
//! prompt that is not cached and 20 ms for each token of its answer, and comes when the trace says, however busy they are.
//!
//! A row is the median over many names of the endpoints, from which the order of a key follows, with the least and most hits, as one request that goes elsewhere
//! changes all that come after it. The spread is what the endpoint with the most has, over a fair share: of requests,
//! and of the time that requests are in flight, which is what least connections and the bound even out.

use std::collections::{BTreeMap, HashMap};

use forebay_balance::affinity::PrefixBlocks;
use forebay_balance::{Ask, Balance, BalanceBuilder, Endpoint, Fleet, Pick};
use forebay_benches::{Goal, Report, median};
use forebay_core::{AffinityKey, Class, Outcome};

const ENDPOINTS: usize = 8;
const CACHE_BLOCKS: usize = 2000;
const BLOCK_TOKENS: u64 = 512;
/// What a gateway sees of a prompt by default: 64 KiB of the body, less what stands before the text.
const DEPTH: usize = 31;
const SEEDS: u64 = 31;

/// A request of a trace. Equal blocks are equal in all that is before them, too.
struct Arrival {
    at_us: u64,
    input: u64,
    output: u64,
    blocks: Vec<u64>,
}

impl Arrival {
    /// The blocks that a gateway can hash: the last one is not full.
    fn whole(&self) -> &[u64] {
        &self.blocks[..self.blocks.len().min((self.input / BLOCK_TOKENS) as usize)]
    }
}

fn of_csv(text: &str) -> Vec<Arrival> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let [ms, input, output, runs] = fields[..] else { return None };
        let run = |run: &str| {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            Some(first.parse::<u64>().ok()?..=last.parse().ok()?)
        };
        let blocks = runs.split(' ').filter_map(run).flatten().collect();
        let at_us = ms.parse::<u64>().ok()? * 1000;
        Some(Arrival { at_us, input: input.parse().ok()?, output: output.parse().ok()?, blocks })
    };
    text.lines().skip(1).filter_map(row).collect()
}

/// The blocks that an endpoint has: the least recently used goes first, of one prompt the last, as each is of use only
/// with all before it.
#[derive(Default)]
struct Cache {
    used: HashMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
    clock: u64,
}

impl Cache {
    fn hits(&self, blocks: &[u64]) -> usize {
        blocks.iter().take_while(|block| self.used.contains_key(block)).count()
    }

    fn touch(&mut self, blocks: &[u64]) {
        for &block in blocks.iter().rev() {
            self.clock += 1;
            if let Some(before) = self.used.insert(block, self.clock) {
                self.by_use.remove(&before);
            }
            self.by_use.insert(self.clock, block);
        }
        while self.used.len() > CACHE_BLOCKS {
            let (_, oldest) = self.by_use.pop_first().expect("as many as are used");
            self.used.remove(&oldest);
        }
    }
}

/// By what an endpoint is chosen.
#[derive(Clone, Copy)]
enum Policy {
    LeastConn,
    /// A key: the block with this number.
    Block(usize),
    /// All blocks: who was sent most of them before.
    Prefix,
}

impl Policy {
    fn ask(self, blocks: &[u64]) -> Ask {
        let blocks = &blocks[..blocks.len().min(DEPTH)];
        let key = |ask: Ask, block: usize| match blocks.get(block) {
            Some(hash) => ask.affinity(AffinityKey(*hash)),
            None => ask,
        };
        let ask = Ask::from(Class::P2);
        match self {
            Self::LeastConn => ask,
            Self::Block(block) => key(ask, block),
            Self::Prefix => key(ask, 1).prefix(PrefixBlocks::new(blocks)),
        }
    }
}

/// What has happened to the requests of a trace.
#[derive(Default)]
struct Seen {
    blocks: usize,
    hits: usize,
    requests: [u64; ENDPOINTS],
    in_flight_us: [u64; ENDPOINTS],
}

/// The most that an endpoint has, over what it should have.
fn spread(counts: &[u64; ENDPOINTS]) -> f64 {
    let (most, total) = (counts.iter().max().copied().unwrap_or_default(), counts.iter().sum::<u64>());
    most as f64 * ENDPOINTS as f64 / total as f64
}

/// Eight equal endpoints; each is its number. A key's order of them follows from their names, so from `seed`.
fn fleet(seed: u64) -> Fleet<usize> {
    let endpoint = |index| Endpoint::with_service(format!("http://10.{seed}.0.{index}:8000"), index);
    (0..ENDPOINTS).map(endpoint).fold(Balance::builder(), BalanceBuilder::endpoint).build().expect("valid").fleet()
}

fn simulate(arrivals: &[Arrival], policy: Policy, seed: u64) -> Seen {
    let (mut seen, fleet) = (Seen::default(), fleet(seed));
    let mut caches: [Cache; ENDPOINTS] = Default::default();
    let mut running: BTreeMap<(u64, usize), Pick<usize>> = BTreeMap::new();
    for (number, arrival) in arrivals.iter().enumerate() {
        while let Some(first) = running.first_entry()
            && first.key().0 <= arrival.at_us
        {
            first.remove().finish(Outcome::Success);
        }
        let pick = fleet.pick(policy.ask(arrival.whole())).expect("open");
        let chosen = pick.service;
        let hits = caches[chosen].hits(&arrival.blocks);
        caches[chosen].touch(&arrival.blocks);
        let missed = arrival.input.saturating_sub(hits as u64 * BLOCK_TOKENS);
        let took = 250 * missed + 20_000 * arrival.output;
        running.insert((arrival.at_us + took, number), pick);
        seen.blocks += arrival.blocks.len();
        seen.hits += hits;
        seen.requests[chosen] += 1;
        seen.in_flight_us[chosen] += took;
    }
    seen
}

/// Hits in percent of all blocks, the spread of the time in flight.
fn row(report: &mut Report, trace: &str, name: &str, policy: Policy, arrivals: &[Arrival]) -> [f64; 2] {
    let all: Vec<Seen> = (0..SEEDS).map(|seed| simulate(arrivals, policy, seed)).collect();
    let column = |of: fn(&Seen) -> f64| all.iter().map(of).collect::<Vec<f64>>();
    let mut hits = column(|seen| 100.0 * seen.hits as f64 / seen.blocks as f64);
    let hit = median(&mut hits); // and now they are in order
    let (least, most) = (hits[0], hits[hits.len() - 1]);
    let requests = median(&mut column(|seen| spread(&seen.requests)));
    let in_flight = median(&mut column(|seen| spread(&seen.in_flight_us)));
    let seconds = median(&mut column(|seen| seen.in_flight_us.iter().sum::<u64>() as f64 / 1e6));
    let mean = seconds / arrivals.len() as f64;
    println!("{name:<14} {hit:>6.1} {least:>6.1} {most:>6.1} {requests:>10.3} {in_flight:>10.3} {mean:>8.2}");
    let round = |number: f64| (number * 1000.0).round() / 1000.0;
    report.figure(&format!("{trace} {name} hit_percent"), round(hit));
    report.figure(&format!("{trace} {name} hit_percent_range"), vec![round(least), round(most)]);
    report.figure(&format!("{trace} {name} spread_of_requests"), round(requests));
    report.figure(&format!("{trace} {name} spread_of_time_in_flight"), round(in_flight));
    report.figure(&format!("{trace} {name} mean_s"), round(mean));
    [hit, in_flight]
}

fn main() {
    let mut report = Report::default();
    let mut targets = Vec::new();
    for (trace, text, least) in [
        ("conversation", include_str!("../data/mooncake_conversation_blocks_first30min.csv"), 22.0),
        ("synthetic", include_str!("../data/mooncake_synthetic_blocks.csv"), 43.0),
    ] {
        let arrivals = of_csv(text);
        println!("{trace}: {} requests, {ENDPOINTS} endpoints of {CACHE_BLOCKS} blocks", arrivals.len());
        println!(
            "{:<14} {:>6} {:>13} {:>10} {:>10} {:>8}",
            "", "hit %", "least, most", "requests", "in flight", "mean s"
        );
        let mut last = [0.0; 2];
        for (name, policy) in [
            ("least-conn", Policy::LeastConn),
            ("first block", Policy::Block(0)),
            ("two blocks", Policy::Block(1)),
            ("prefix table", Policy::Prefix),
        ] {
            last = row(&mut report, trace, name, policy, &arrivals);
        }
        println!();
        targets.push((format!("{trace}: hits with the table, percent"), last[0], Goal::AtLeast(least)));
        targets.push((format!("{trace}: spread of time in flight with the table"), last[1], Goal::AtMost(1.05)));
    }
    for (name, value, goal) in targets {
        report.target(&name, value, goal);
    }
    report.print();
}
