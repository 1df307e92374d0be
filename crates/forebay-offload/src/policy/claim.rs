use std::collections::HashMap;

use forebay_core::Class;

use super::{
    Claim, Claimed, Effects, Job, JobId, JobState, Machine,
    machine::Answered,
    ready::{Owner, Ready, Turn},
};

/// Jobs in one answer, at most.
const MAX_JOBS: u32 = 256;
/// Credit that a class may save up, in thousandths of a job.
const MAX_CREDIT: u32 = 8_000;

impl Machine {
    /// Ready => Running, for up to `max` jobs: most urgent class first, with a share for the others; inside a class in
    /// the order they are due, but for owners without room.
    ///
    /// O((k + o) log n) for k jobs and o owners without room.
    pub(super) fn claim(&mut self, ask: &Claim, effects: &mut Effects) -> Claimed {
        if let Some(answered) = self.nonces.get(&ask.nonce) {
            return self.again(answered, ask);
        }
        self.tidy(effects);
        let mut room = Room::of(ask);
        let token = self.epoch + 1;
        let mut jobs = Vec::new();
        for class in (0..Class::COUNT).filter(|&class| ask.classes[class]) {
            self.save_up(class, ask, &mut room);
            while self.credit[class] >= 1_000
                && let Some(job) = self.lease_next(class, &mut room, (token, ask.ttl_ms), effects)
            {
                self.credit[class] -= 1_000;
                jobs.push(job);
            }
        }
        for class in (0..Class::COUNT).filter(|&class| ask.classes[class]) {
            while let Some(job) = self.lease_next(class, &mut room, (token, ask.ttl_ms), effects) {
                self.credit[class] = self.credit[class].saturating_sub(1_000);
                jobs.push(job);
            }
        }
        jobs.sort_by_key(|job| job.class); // stable: what credit paid for comes first in its class, and is due first
        if !jobs.is_empty() {
            self.epoch = token;
            let ids = jobs.iter().map(|job| job.id).collect();
            self.nonces.insert(ask.nonce, Answered { token, ids });
            self.nonce_ends.insert((self.now.saturating_add(ask.ttl_ms), ask.nonce));
        }
        self.claimed(jobs, ask)
    }

    /// Adds to the credit of a class its share of the places that it might get.
    ///
    /// Credit is spent first, most urgent class first; the rest goes strictly by class, and what a class gets that way
    /// is paid from its credit too. A class loses its credit when nothing of it is ready, and saves none while nothing
    /// of it may start. Integers throughout, so that other implementations can be compared exactly.
    fn save_up(&mut self, class: usize, ask: &Claim, room: &mut Room) {
        if self.ready[class].is_empty() {
            self.credit[class] = 0;
        } else if room.next(class, &self.ready[class]).is_some() {
            let places = room.of_class(class).min(ask.max).min(MAX_JOBS);
            self.credit[class] = (self.credit[class] + ask.shares[class].min(1_000) * places).min(MAX_CREDIT);
        }
    }

    /// Leases the next job of the class that has room, if a place is left.
    fn lease_next(
        &mut self,
        class: usize,
        room: &mut Room,
        (token, ttl_ms): (u64, u64),
        effects: &mut Effects,
    ) -> Option<Job> {
        if room.places == 0 {
            return None;
        }
        let (turn, owner) = room.next(class, &self.ready[class])?;
        let mut job = self.take(turn.1)?;
        room.take(class, turn, owner);
        job.state = JobState::Running;
        job.attempts = job.attempts.saturating_add(1);
        job.token = token;
        job.started = Some(self.now);
        job.until = self.now.saturating_add(ttl_ms);
        effects.saved.push(job.id);
        self.place(job);
        Some(job)
    }

    fn again(&self, answered: &Answered, ask: &Claim) -> Claimed {
        let held = |id: &JobId| {
            self.jobs.get(id).filter(|job| job.state == JobState::Running && job.token == answered.token).copied()
        };
        self.claimed(answered.ids.iter().filter_map(held).collect(), ask)
    }

    fn claimed(&self, jobs: Vec<Job>, ask: &Claim) -> Claimed {
        let more = (0..Class::COUNT).any(|class| ask.classes[class] && !self.ready[class].is_empty());
        let next = [&self.scheduled, &self.leases].into_iter().filter_map(|index| Some(index.first()?.0)).min();
        Claimed { jobs, more, next_at: next }
    }
}

/// The room that is left while a claim is answered; it only ever shrinks.
struct Room {
    places: u32,
    classes: [u32; Class::COUNT],
    per_owner: u32,
    held: HashMap<Owner, u32>,
    /// The last turn of each class that was looked at: all heads up to it belong to owners without room.
    seen: [Option<Turn>; Class::COUNT],
}

impl Room {
    fn of(ask: &Claim) -> Self {
        let mut held = HashMap::with_capacity(ask.held.len());
        for &(owner, slots) in &ask.held {
            let count: &mut u32 = held.entry(owner).or_default();
            *count = count.saturating_add(slots);
        }
        Self {
            places: ask.max.min(MAX_JOBS),
            classes: ask.room,
            per_owner: ask.max_per_owner,
            held,
            seen: [None; Class::COUNT],
        }
    }

    /// Returns how many jobs of the class may start: a job counts in its class and in all more urgent ones.
    fn of_class(&self, class: usize) -> u32 {
        self.classes[..=class].iter().copied().min().unwrap_or(0)
    }

    /// Returns the first job of the class that may start.
    fn next(&mut self, class: usize, ready: &Ready) -> Option<(Turn, Owner)> {
        if self.of_class(class) == 0 {
            return None;
        }
        for (turn, owner) in ready.heads_after(self.seen[class]) {
            // Jobs without an owner are not told apart, so none of them is bounded for another's sake.
            if owner.is_none() || self.held.get(&owner).copied().unwrap_or(0) < self.per_owner {
                return Some((turn, owner));
            }
            self.seen[class] = Some(turn);
        }
        None
    }

    fn take(&mut self, class: usize, turn: Turn, owner: Owner) {
        self.places -= 1;
        for room in &mut self.classes[..=class] {
            *room = room.saturating_sub(1);
        }
        let held = self.held.entry(owner).or_default();
        *held = held.saturating_add(1);
        self.seen[class] = Some(turn); // the owner's next job comes after it
    }
}
