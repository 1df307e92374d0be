use std::time::{Duration, Instant};

use forebay_core::Class;

use super::foreign::Foreign;
use super::picker::next;
use super::sampler::Sampler;
use super::slot::Slot;
use super::timing::Timing;
use super::tree::{Key, Tree};
use super::weight::UNIT;

/// By what an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Policy {
    /// The least load for the weight, of all: exact weighted least connections. O(log endpoints).
    #[default]
    LeastConn,
    /// The lesser of two that are drawn in proportion to their weights. O(log endpoints).
    P2c,
    /// In turn, by weight and spread evenly, whatever the load (nginx's smooth weighted round robin). O(endpoints).
    RoundRobin,
}

/// What is added to the load before it is divided by the weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Offset {
    /// Nothing, as in nginx.
    Zero,
    /// Half a request: what is held is then shared by Webster's apportionment, without a bias. What comes and goes is not:
    /// to an endpoint of few slots a request comes at once when the others have grown fuller, but stays to its end when
    /// they grow emptier.
    Half,
    /// Five eighths of a request: makes up for that. The shares of eight endpoints of 4 to 32 slots are within 3 % of their
    /// weights at 50 to 80 % load, where `Half` is off by up to 6 %, `One` by 11 %, `Zero` by 24 % (the benchmark
    /// `balance_seed`).
    #[default]
    FiveEighths,
    /// A request, as in Linux Virtual Server.
    One,
}

impl Offset {
    pub(super) const fn units(self) -> i64 {
        let eighths = match self {
            Self::Zero => 0,
            Self::Half => 4,
            Self::FiveEighths => 5,
            Self::One => 8,
        };
        2 * UNIT as i64 / 8 * eighths
    }
}

/// The mean service time before anything is known, and its limits.
const FIRST_MEAN: Duration = Duration::from_secs(1);
const LEAST_MEAN: f64 = 0.01;
const LARGEST_MEAN: f64 = 30.0;

/// For how many mean service times, times the gateways, something must stay the same to last.
const LASTING: f64 = 8.0;

/// More gateways than these are not assumed.
const MOST_GATEWAYS: f64 = 16.0;

/// So many successes end the time in which every exchange of a new pool is timed: as many as the mean looks back.
const WARMING: u32 = 32;

/// So many successes end the time in which every exchange is timed after an error.
const WATCHED: u32 = 256;

/// Endpoints that share requests.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    tree: Tree,
    /// For the policy that draws.
    sampler: Option<Sampler>,
    /// The slot at each leaf; `None`: free.
    pub(super) members: Vec<Option<u32>>,
    /// Smooth round robin: what each leaf is owed.
    owed: Vec<i64>,
    /// The sum of [`Slot::room`].
    free: u64,
    /// Open endpoints without a bound.
    unbounded: usize,
    pub(crate) reserved: u64,
    /// Places taken or reserved by classes that only borrow here.
    pub(super) borrowed: [u32; Class::COUNT],
    /// Our own requests.
    pub(crate) own: u64,
    /// The sum of the weights in use of those that are open, in 1/256.
    pub(crate) weight: u64,
    /// The sums of the base weights of those that are known and stay, and of the healthy ones among these.
    pub(crate) known: u64,
    pub(crate) healthy: u64,
    /// Healthy ones without `max_concurrency`.
    exposed: usize,
    /// Those of which nobody knows what others have there.
    pub(super) unknown: usize,
    /// What the others are said to have of others' requests, and the sum of their base weights.
    pub(super) reported: u64,
    pub(super) reporting: u64,
    pub(crate) panic: bool,
    /// Of successes, in seconds.
    mean: Option<f64>,
    /// From the pick to the head of the answer, in seconds.
    head: Option<f64>,
    /// How many more successes are timed, all of them: the first, and many after an error.
    alert: u32,
    /// Apart from that: how many more picks are not.
    untimed: u32,
    timing: Timing,
}

/// What one slot adds to the sums.
#[derive(Clone, Copy)]
struct Share {
    room: u64,
    unbounded: bool,
    weight: u64,
    known: u64,
    healthy: u64,
    exposed: bool,
    unknown: bool,
    reported: Option<u32>,
    base: u64,
    own: u64,
}

impl Share {
    fn of(slot: &Slot) -> Self {
        let healthy = slot.healthy();
        let known = slot.stays() && slot.check != super::Check::New;
        Self {
            room: slot.room(),
            unbounded: slot.is_unbounded(),
            weight: if slot.open { u64::from(slot.weight) } else { 0 },
            known: if known { u64::from(slot.base) } else { 0 },
            healthy: if healthy { u64::from(slot.base) } else { 0 },
            exposed: healthy && slot.max_concurrency.is_none(),
            unknown: slot.stays() && slot.foreign == Foreign::Unknown,
            reported: slot.foreign.reported().filter(|_| slot.stays()),
            base: slot.base.into(),
            own: u64::from(slot.own),
        }
    }
}

impl Pool {
    pub(super) fn new(policy: Policy) -> Self {
        Self { sampler: (policy == Policy::P2c).then(Sampler::default), alert: WARMING, ..Self::default() }
    }

    /// A leaf for a slot, which is not yet among `slots`.
    pub(super) fn join(&mut self, index: u32, slots: &[Slot]) -> u32 {
        if let Some(leaf) = self.members.iter().position(Option::is_none) {
            self.members[leaf] = Some(index);
            return leaf as u32;
        }
        self.members.push(Some(index));
        self.owed.push(0);
        if let Some(sampler) = &mut self.sampler {
            sampler.push();
        }
        self.tree.settle(|index| slots[index as usize].key());
        self.tree.push()
    }

    pub(super) fn leave(&mut self, leaf: u32) {
        self.members[leaf as usize] = None;
        self.owed[leaf as usize] = 0;
        self.set(Key::closed(leaf));
    }

    fn add(&mut self, share: Share) {
        self.free += share.room;
        self.unbounded += usize::from(share.unbounded);
        self.weight += share.weight;
        self.known += share.known;
        self.healthy += share.healthy;
        self.exposed += usize::from(share.exposed);
        self.unknown += usize::from(share.unknown);
        if let Some(reported) = share.reported {
            self.reported += u64::from(reported);
            self.reporting += share.base;
        }
        self.own += share.own;
    }

    fn subtract(&mut self, share: Share) {
        self.free -= share.room;
        self.unbounded -= usize::from(share.unbounded);
        self.weight -= share.weight;
        self.known -= share.known;
        self.healthy -= share.healthy;
        self.exposed -= usize::from(share.exposed);
        self.unknown -= usize::from(share.unknown);
        if let Some(reported) = share.reported {
            self.reported -= u64::from(reported);
            self.reporting -= share.base;
        }
        self.own -= share.own;
    }

    /// Changes a slot in any way, and with it the sums and the tree. O(log endpoints).
    pub(super) fn change(&mut self, slot: &mut Slot, offset: Offset, now: Instant, change: impl FnOnce(&mut Slot)) {
        self.subtract(Share::of(slot));
        change(slot);
        slot.derive(self.panic, offset, now);
        self.add(Share::of(slot));
        self.set(slot.key());
    }

    /// One request more or less there, and nothing else; whether that opens a place. O(log endpoints).
    #[inline(always)]
    pub(super) fn occupy(&mut self, slot: &mut Slot, index: usize, more: bool) -> bool {
        if !slot.plain || !slot.is_unbounded() || self.sampler.is_some() {
            return self.occupy_bounded(slot, index, more);
        }
        if more {
            self.own += 1;
            slot.own += 1;
            if !self.tree.put_off(slot.leaf, index as u32) {
                self.tree.fall(slot.key());
            }
        } else {
            self.own -= 1;
            slot.own -= 1;
            if !self.tree.put_off(slot.leaf, index as u32) {
                self.tree.rise(slot.key());
            }
        }
        false
    }

    /// The same where it may become full by that, or be open to one less.
    #[inline(never)]
    fn occupy_bounded(&mut self, slot: &mut Slot, index: usize, more: bool) -> bool {
        let (open, before) = (self.open(), slot.room());
        slot.occupy(more, self.panic);
        self.own = if more { self.own + 1 } else { self.own.saturating_sub(1) };
        self.free = self.free - before + slot.room();
        if self.sampler.is_some() || !self.tree.put_off(slot.leaf, index as u32) {
            self.set(slot.key());
        }
        self.open() > open
    }

    fn set(&mut self, key: Key) {
        if let Some(sampler) = &mut self.sampler {
            sampler.change(key.leaf, self.tree.key(key.leaf).weight(), key.weight());
        }
        self.tree.set(key);
    }

    /// Leaves a slot out of the picks until it is [`change`](Self::change)d or [`occupy`](Self::occupy)ed.
    pub(super) fn exclude(&mut self, slot: &Slot, excluded: bool) {
        self.set(if excluded { Key::closed(slot.leaf) } else { slot.key() });
    }

    /// What an endpoint of this weight has of others' requests if it has as much for its weight as those that say so, in
    /// 1/256 requests.
    pub(super) fn foreign_share(&self, base: u16) -> u64 {
        let share = u128::from(self.reported) * u128::from(UNIT) * u128::from(base) / u128::from(self.reporting.max(1));
        u64::try_from(share).unwrap_or(u64::MAX).min(u64::from(u32::MAX))
    }

    /// How much of what an endpoint says it has above its share is believed when it is asked so often: the part by which
    /// that moves what is taken to last, and the part that counts of what is passing. 0 to 1.
    ///
    /// What it says is old by up to `every`, and all gateways hear it: the more requests they send until it is asked
    /// again, the more of them would go to the same endpoint. That is `every` over the mean service time of all that is in
    /// flight, of which ours are one part in `gateways`, if others are like us. The benchmark
    /// `balance_seed` shows twelve gateways that ask every 0.05 to 5 mean service times. What stays the same for longer than
    /// all of them need to react is no fluke, and counts in full.
    pub(super) fn trust(&self, every: Duration) -> (f64, f64) {
        let gateways = ((self.own + self.reported) as f64 / self.own.max(1) as f64).clamp(1.0, MOST_GATEWAYS);
        let (mean, every) = (self.mean().as_secs_f64(), every.as_secs_f64());
        (every / (every + LASTING * mean * gateways), mean / (mean + every * gateways))
    }

    /// Whether health should be ignored: more than half of the weight is gone and what is left could be overrun, or
    /// nothing is left. Envoy's panic threshold, but not where bounds protect the rest.
    pub(super) fn should_panic(&self, threshold: f64) -> bool {
        self.known > 0
            && (self.healthy == 0 || self.exposed > 0 && (self.healthy as f64) < threshold * self.known as f64)
    }

    /// Places that nobody has reserved; `u64::MAX`: any number.
    #[inline]
    pub(crate) const fn open(&self) -> u64 {
        if self.unbounded > 0 { u64::MAX } else { self.free.saturating_sub(self.reserved) }
    }

    /// Chooses an endpoint; `random` is the state of a generator.
    #[inline(always)]
    pub(super) fn choose(&mut self, policy: Policy, random: &mut u64, slots: &[Slot]) -> Option<u32> {
        let leaf = match policy {
            Policy::LeastConn => self.best(slots),
            Policy::P2c => self.draw(random),
            Policy::RoundRobin => self.turn(slots),
        }?;
        self.members[leaf as usize]
    }

    /// The one with the least work for its weight, if there is a place for anybody and the exchange is not timed.
    #[inline(always)]
    pub(super) fn best_untimed(&mut self, slots: &[Slot]) -> Option<u32> {
        if self.open() == 0 || self.is_timed() {
            return None;
        }
        let leaf = self.best(slots)?;
        self.members[leaf as usize]
    }

    /// The leaf of the one with the least work for its weight.
    #[inline(always)]
    fn best(&mut self, slots: &[Slot]) -> Option<u32> {
        self.tree.best(|index| slots[index as usize].key())
    }

    #[inline(never)]
    fn draw(&self, random: &mut u64) -> Option<u32> {
        let sampler = self.sampler.as_ref()?;
        let (one, other) = (sampler.draw(next(random))?, sampler.draw(next(random))?);
        Some(if self.tree.key(one).beats(self.tree.key(other)) { one } else { other })
    }

    #[inline(never)]
    fn turn(&mut self, slots: &[Slot]) -> Option<u32> {
        self.best(slots);
        let Self { tree, owed, .. } = self;
        let open = |leaf: &u32| tree.key(*leaf).weight() > 0;
        let leaves = 0..tree.len() as u32;
        let mut total = 0;
        for leaf in leaves.clone().filter(open) {
            let weight = i64::from(tree.key(leaf).weight());
            owed[leaf as usize] += weight;
            total += weight;
        }
        let next = leaves.filter(open).max_by_key(|leaf| (owed[*leaf as usize], std::cmp::Reverse(*leaf)))?;
        owed[next as usize] -= total;
        Some(next)
    }

    #[cfg(test)]
    pub(super) fn forget_to_time(&mut self) {
        (self.alert, self.untimed) = (0, u32::MAX);
    }

    /// Whether the next exchange is timed.
    #[inline]
    pub(super) const fn is_timed(&self) -> bool {
        self.untimed == 0
    }

    /// An exchange begins that is not timed.
    #[inline]
    pub(super) const fn leave_untimed(&mut self) {
        self.untimed = self.untimed.saturating_sub(1);
    }

    /// An exchange begins that is timed; `random` is the state of a generator.
    pub(super) fn time(&mut self, now: Instant, random: &mut u64) {
        if self.alert == 0 {
            let gap = self.timing.timed(now);
            // Not one in so many exactly: where endpoints take turns that would always be the same one.
            self.untimed = gap - (next(random) % u64::from(gap / 4 + 1)) as u32;
        }
    }

    /// An error or an overload answer: how fast others come will matter.
    pub(super) const fn alarm(&mut self) {
        self.alert = WATCHED;
        self.untimed = 0;
    }

    /// The mean service time; a guess before the first success.
    pub(super) fn mean(&self) -> Duration {
        self.mean.map_or(FIRST_MEAN, |mean| Duration::from_secs_f64(mean.clamp(LEAST_MEAN, LARGEST_MEAN)))
    }

    /// A head that came after so long: a moving average with the weight 1/32.
    pub(super) fn headed(&mut self, after: Duration) {
        let after = after.as_secs_f64();
        self.head = Some(self.head.map_or(after, |mean| mean + (after - mean) / 32.0));
    }

    /// Whether a head that has not come after so long is late: three times the mean, of which a guess is made before the
    /// first. Where all are slow, as with too much load, none is late.
    pub(super) fn is_late(&self, after: Duration) -> bool {
        let mean = self.head.map_or(FIRST_MEAN.as_secs_f64(), |mean| mean.max(LEAST_MEAN));
        after.as_secs_f64() >= 3.0 * mean
    }

    #[inline]
    pub(super) const fn succeeded(&mut self) {
        self.alert = self.alert.saturating_sub(1);
    }

    /// How long a success took: a moving average with the weight 1/32.
    pub(super) fn took(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.mean = Some(self.mean.map_or(took, |mean| mean + (took - mean) / 32.0));
    }

    pub(crate) fn is_bounded(&self) -> bool {
        self.unbounded == 0
    }
}
