//! The simulated engine: admits requests, and counts them in a guard that lives as long as they do.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    Config, FinishReason, Stats,
    config::gpu_uuid,
    faults::Sequence,
    histogram::{FIRST_TOKEN, Histogram, REQUEST},
    pace::{Pace, seconds},
    prefix::{BLOCK_TOKENS, PrefixCache},
    queue::{Entry, Queue},
    stats::{Counters, add, read},
};

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    pub(crate) first_token: Histogram,
    pub(crate) queued: Histogram,
    pub(crate) whole: Histogram,
    pub(crate) faults: Sequence,
    pub(crate) memory_pressure: AtomicU64, // the bits of an f64
    pub(crate) xid: AtomicU64,
    pub(crate) gpu_uuid: String,
    ready_at: Option<Instant>,
    queue: Mutex<Queue<oneshot::Sender<Permit>>>,
    prefixes: Option<Mutex<PrefixCache>>,
}

/// Too many wait.
#[derive(Debug)]
pub(crate) struct Full;

impl Engine {
    pub(crate) fn new(config: Config, address: SocketAddr) -> Self {
        let blocks = config.prefix_cache_blocks;
        Self {
            counters: Counters::default(),
            first_token: Histogram::new(FIRST_TOKEN),
            queued: Histogram::new(REQUEST),
            whole: Histogram::new(REQUEST),
            faults: Sequence::new(config.faults),
            memory_pressure: AtomicU64::new(config.memory_pressure.to_bits()),
            xid: AtomicU64::new(0),
            gpu_uuid: gpu_uuid(&config, address),
            ready_at: (!config.slow_start.is_zero()).then(|| Instant::now() + config.slow_start),
            queue: Mutex::new(Queue::new(config.slots, config.kv_tokens, config.max_waiting)),
            prefixes: (blocks > 0).then(|| Mutex::new(PrefixCache::new(blocks))),
            config,
        }
    }

    /// How long until the slow start is over, if it is not.
    pub(crate) fn starting(&self) -> Option<Duration> {
        let left = self.ready_at?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    pub(crate) fn has_prefix_cache(&self) -> bool {
        self.prefixes.is_some()
    }

    /// Waits for a slot and room for `tokens`.
    ///
    /// # Cancel safety
    ///
    /// Dropped in the wait, it gives up its place in line, or the slot that it was just given.
    pub(crate) async fn admit(self: &Arc<Self>, tokens: u64) -> Result<Run, Full> {
        if self.config.instant {
            add(&self.counters.instant_running, 1);
            return Ok(Run::new(self, None, None));
        }
        let arrived = Instant::now();
        let mut granted = None;
        let entry = self.queue().enter(tokens, || {
            let (sender, receiver) = oneshot::channel();
            granted = Some(receiver);
            sender
        });
        let permit = match (entry, granted) {
            (Entry::Full, _) => {
                add(&self.counters.refused, 1);
                return Err(Full);
            }
            (Entry::Waits(ticket), Some(mut granted)) => {
                let mut waiting = Waiting { engine: self, ticket, granted: false };
                // An engine lives as long as its requests, and no sender is dropped but by `Waiting`.
                let Ok(permit) = (&mut granted).await else { return Err(Full) };
                waiting.granted = true; // Waiting => Running: nothing is left to cancel
                permit
            }
            (Entry::Runs | Entry::Waits(_), _) => Permit { engine: Arc::clone(self), tokens },
        };
        self.queued.observe(arrived.elapsed());
        Ok(Run::new(self, Some(permit), Some(arrived)))
    }

    /// Says when the tokens of a request that was just admitted are due; `None` is at once.
    pub(crate) fn pace(&self, prompt_tokens: u64, blocks: &[u64]) -> Option<Pace> {
        let mut cached = 0;
        if let Some(prefixes) = &self.prefixes {
            let known = prefixes.lock().unwrap_or_else(PoisonError::into_inner).enter(blocks);
            cached = (known * BLOCK_TOKENS).min(prompt_tokens);
            add(&self.counters.prefix_queries, prompt_tokens);
            add(&self.counters.prefix_hits, cached);
        }
        if self.config.instant {
            return None;
        }
        let prefill = seconds((prompt_tokens - cached) as f64 / self.config.prefill_tokens_per_second);
        let seconds_per_token = 1.0 / self.config.decode_tokens_per_second;
        Some(Pace { first: Instant::now() + prefill, seconds_per_token })
    }

    pub(crate) fn stats(&self) -> Stats {
        let c = &self.counters;
        let (running, waiting, kv_tokens_used) = {
            let queue = self.queue();
            (queue.running() as u64, queue.waiting() as u64, queue.used())
        };
        Stats {
            running: running + read(&c.instant_running),
            waiting,
            received: read(&c.received),
            started: read(&c.started),
            completed: read(&c.stopped) + read(&c.cut_at_length),
            cancelled: read(&c.cancelled),
            failed: read(&c.failed),
            refused: read(&c.refused),
            tokens_generated: read(&c.tokens_generated),
            kv_tokens_used,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<oneshot::Sender<Permit>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts all that fit. The lock is free whenever a request is woken, or a permit comes back because it has left.
    fn hand_on(self: &Arc<Self>) {
        loop {
            let Some((tokens, waiter)) = self.queue().grant() else { return };
            let permit = Permit { engine: Arc::clone(self), tokens };
            drop(waiter.send(permit)); // not wanted any longer: its `Drop` hands it on
        }
    }
}

/// A place in line.
struct Waiting<'a> {
    engine: &'a Arc<Engine>,
    ticket: u64,
    granted: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.granted {
            return;
        }
        add(&self.engine.counters.cancelled, 1); // Waiting => Cancelled
        let waiter = self.engine.queue().cancel(self.ticket);
        if waiter.is_some() {
            self.engine.hand_on(); // the one behind may fit where this one did not
        }
    }
}

/// A slot and its KV cache.
#[derive(Debug)]
struct Permit {
    engine: Arc<Engine>,
    tokens: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.engine.queue().leave(self.tokens);
        self.engine.hand_on();
    }
}

/// A running request; dropped before it ends, it was cancelled.
#[derive(Debug)]
pub(crate) struct Run {
    engine: Arc<Engine>,
    permit: Option<Permit>,
    arrived: Option<Instant>,
    ended: bool,
}

impl Run {
    fn new(engine: &Arc<Engine>, permit: Option<Permit>, arrived: Option<Instant>) -> Self {
        add(&engine.counters.started, 1);
        Self { engine: Arc::clone(engine), permit, arrived, ended: false }
    }

    /// Counts the end of the prefill, which was at `first`.
    pub(crate) fn prefilled(&self, prompt_tokens: u64, first: Option<Instant>) {
        add(&self.engine.counters.prompt_tokens, prompt_tokens);
        let time = first.zip(self.arrived).map(|(first, arrived)| first.saturating_duration_since(arrived));
        self.engine.first_token.observe(time.unwrap_or_default());
    }

    pub(crate) fn generated(&self, tokens: u64) {
        add(&self.engine.counters.tokens_generated, tokens);
    }

    /// Running => Completed.
    pub(crate) fn complete(mut self, finish: FinishReason) {
        self.ended = true;
        let counters = &self.engine.counters;
        add(if finish == FinishReason::Stop { &counters.stopped } else { &counters.cut_at_length }, 1);
        self.engine.whole.observe(self.arrived.map(|arrived| arrived.elapsed()).unwrap_or_default());
    }

    /// Running => Failed.
    pub(crate) fn fail(mut self) {
        self.ended = true;
        add(&self.engine.counters.failed, 1);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.ended {
            add(&self.engine.counters.cancelled, 1); // Running => Cancelled
        }
        if self.permit.take().is_none() {
            self.engine.counters.instant_running.fetch_sub(1, Relaxed);
        }
    }
}
