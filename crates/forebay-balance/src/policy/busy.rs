use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long the bound that an overload answer sets lasts without another.
const LIFTED_AFTER: Duration = Duration::from_secs(10);

/// The longest that `Retry-After` closes an endpoint.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What an endpoint's overload answers (429, 503, 529) say about what it can take.
#[derive(Debug, Clone)]
pub(super) struct Busy {
    /// The most at once, and when that is lifted.
    cap: Option<(u32, Instant)>,
    /// Nothing until then: its quota is used up.
    pub(super) paused_until: Option<Instant>,
}

impl Busy {
    pub(super) const fn new() -> Self {
        Self { cap: None, paused_until: None }
    }

    pub(super) fn cap(&self) -> Option<u32> {
        self.cap.map(|(cap, _)| cap)
    }

    /// An overload answer with so many in flight, itself among them.
    pub(super) fn overloaded(&mut self, in_flight: u32, now: Instant) {
        self.cap = Some((in_flight.saturating_sub(1).max(1), now + LIFTED_AFTER));
    }

    /// It asks for a pause though it has nothing to do: a quota, not a full house.
    pub(super) fn pause(&mut self, pause: Duration, now: Instant) {
        self.paused_until = Some(now + pause.min(LONGEST_PAUSE));
    }

    /// A success: one more may be tried. Whether anything changed.
    pub(super) fn success(&mut self) -> bool {
        self.cap.as_mut().map(|(cap, _)| *cap = cap.saturating_add(1)).is_some()
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.cap = self.cap.filter(|(_, until)| *until > now);
        self.paused_until = self.paused_until.filter(|until| *until > now);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let cap = self.cap.map(|(_, until)| until);
        cap.into_iter().chain(self.paused_until).min()
    }
}

/// Errors that came faster than work would have: each weighs on, for as long as work would have taken, so that failing
/// fast attracts nothing (a "black hole").
#[derive(Debug, Clone)]
pub(super) struct Ghosts {
    /// When so many go, oldest first. Those that go within a sixteenth of the mean of each other go together, so that
    /// this stays short whatever comes.
    held: VecDeque<(Instant, u32)>,
    count: u32,
}

impl Ghosts {
    pub(super) const fn new() -> Self {
        Self { held: VecDeque::new(), count: 0 }
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn hold(&mut self, until: Instant, mean: Duration) {
        self.count = self.count.saturating_add(1);
        match self.held.back_mut() {
            Some((last, count)) if until <= *last + mean / 16 => *count = count.saturating_add(1),
            _ => self.held.push_back((until, 1)),
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((until, count)) = self.held.front().copied()
            && until <= now
        {
            self.held.pop_front();
            self.count = self.count.saturating_sub(count);
        }
        if self.held.is_empty() {
            self.count = 0;
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.held.front().map(|(until, _)| *until)
    }
}
