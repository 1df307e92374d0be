use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use forebay_core::{BodyGuard, Class, Outcome, Reason};

use crate::Early;
use crate::signal::{Block, add, leave};

/// One request on its way: `arrive → start → finish | shed`; dropped before that it is cancelled. Never cloned.
#[derive(Debug)]
#[must_use = "dropping a ticket cancels it"]
pub struct Ticket {
    blocks: Blocks,
    class: Class,
    work: u64,
    since: Instant,
    state: State,
    /// What the response head said, if worse than success.
    head: Outcome,
    refused: Option<Reason>,
    early: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    InFlight,
    Ended,
}

impl Ticket {
    pub(crate) fn new(blocks: Arc<[Block; Class::COUNT]>, class: Class, work: u32) -> Self {
        let work = u64::from(work);
        let block = &blocks[class.index()];
        add(&block.arrived, 1);
        add(&block.queue_in, work);
        let since = tokio::time::Instant::now().into_std();
        let blocks = Blocks(blocks);
        Self { blocks, class, work, since, state: State::Queued, head: Outcome::Success, refused: None, early: false }
    }

    /// The class that it counts for.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// It left the queue and is being served. Once started it stays so.
    pub fn start(&mut self) {
        if self.state == State::Queued {
            // Queued => InFlight: entered before left, so that a reader may see it twice but never not at all.
            self.state = State::InFlight;
            add(&self.block().flight_in, self.work);
            leave(&self.block().queue_out, self.work);
        }
    }

    /// It costs the backends nothing: takes it out of the offered load, once.
    pub fn early(&mut self, how: Early) {
        if !std::mem::replace(&mut self.early, true) {
            add(&self.block().early[how as usize], 1);
        }
    }

    /// It has ended, well or not.
    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    /// It was refused: it stays in the offered load.
    pub fn shed(mut self, reason: Reason) {
        self.refuse(reason);
        self.end(Outcome::of_status(reason.status()));
    }

    /// Refused, by the response head; it lasts as long as the body of the refusal.
    pub(crate) fn refuse(&mut self, reason: Reason) {
        self.refused = Some(reason);
    }

    pub(crate) fn head(&mut self, outcome: Outcome) {
        self.head = outcome;
    }

    fn block(&self) -> &Block {
        &self.blocks.0[self.class.index()]
    }

    fn end(&mut self, outcome: Outcome) {
        let block = &self.blocks.0[self.class.index()];
        // Queued | InFlight => Ended: once, by `finish`, `shed` or the drop.
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Queued => leave(&block.queue_out, self.work),
            State::InFlight => leave(&block.flight_out, self.work),
            State::Ended => return,
        }
        match (self.refused, outcome) {
            (Some(reason), _) => block.shed(reason),
            (None, Outcome::Cancelled) => add(&block.cancelled, 1),
            (None, _) => add(&block.done, 1),
        }
        let outcome = if self.head == Outcome::Success { outcome } else { self.head };
        block.duration(outcome, tokio::time::Instant::now().into_std().saturating_duration_since(self.since));
    }
}

impl BodyGuard for Ticket {
    fn finish(self, outcome: Outcome) {
        Self::finish(self, outcome);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

/// Keeps the counts of all classes out of the ticket's `Debug`.
struct Blocks(Arc<[Block; Class::COUNT]>);

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}
