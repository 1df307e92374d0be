use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_core::{Class, Deadline};
use http::Request;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::backend::{Backend, HOLD, Hold, SEATS};
use super::{Random, Stack};

/// Within how many milliseconds the callers of each class want their answer; then they leave.
pub const PATIENCE: [u64; 4] = [500, 1000, 3000, 10_000];

/// Independent callers.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests over what the backend can do.
    pub times: f64,
    /// The share of each class.
    pub mix: [f64; 4],
    /// How long they come.
    pub time: Duration,
    /// Answers count into the goodput from here on, to the end of `time`.
    pub warm: Duration,
}

impl Load {
    /// P0 to P3 10, 20, 30 and 40 %.
    #[must_use]
    pub const fn new(times: f64, time: Duration, warm: Duration) -> Self {
        Self { times, mix: [0.1, 0.2, 0.3, 0.4], time, warm }
    }
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    offered: [u64; 4],
    in_time: [u64; 4],
    window: u64,
    useful: Duration,
    spent: Duration,
    seconds: f64,
}

impl Tally {
    /// The share of a class's requests that was answered in time.
    #[must_use]
    pub fn share(&self, class: usize) -> f64 {
        self.in_time[class] as f64 / self.offered[class].max(1) as f64
    }

    /// Answers in time over what the backend can do.
    #[must_use]
    pub fn goodput(&self) -> f64 {
        self.window as f64 / self.seconds * HOLD.as_secs_f64() / SEATS as f64
    }

    /// The share of the backend's time that was spent on what was not answered in time, or not at all.
    #[must_use]
    pub fn wasted(&self) -> f64 {
        1.0 - self.useful.as_secs_f64() / self.spent.as_secs_f64().max(f64::EPSILON)
    }
}

/// Sends `load` through `stack` to a backend of its own, in the time of the runtime that this runs on.
pub async fn offer(stack: &Stack, load: Load) -> Tally {
    let backend = Backend::default();
    let send = (stack.build)(&backend);
    let tally = Arc::new(Mutex::new(Tally::default()));
    let (mut random, start) = (Random::new(7), Instant::now());
    let (mut at, rate) = (start, load.times * SEATS as f64 / HOLD.as_secs_f64());
    let mut callers = JoinSet::new();
    loop {
        at += Duration::from_secs_f64(random.exponential(1.0 / rate));
        if at - start >= load.time {
            break;
        }
        sleep_until(at).await;
        let dice = random.unit();
        let class = (0..3).find(|&class| dice < load.mix[..=class].iter().sum()).unwrap_or(3);
        let patience = Duration::from_millis(PATIENCE[class]);
        let arrived = Instant::now();
        let mut request = Request::new(());
        request.extensions_mut().insert(Class::new(class as u8));
        request.extensions_mut().insert(Deadline::after(arrived.into_std(), patience));
        request.extensions_mut().insert(Hold::random(&mut random));
        let (answer, tally) = (send(request), Arc::clone(&tally));
        callers.spawn(async move {
            let spent = timeout(patience, answer).await.ok().flatten();
            let mut tally = tally.lock().expect("no panic");
            tally.offered[class] += 1;
            if let Some(spent) = spent
                && arrived.elapsed() <= patience
            {
                tally.in_time[class] += 1;
                tally.useful += spent.0;
                let when = start.elapsed();
                tally.window += u64::from(load.warm <= when && when < load.time);
            }
        });
        while let Some(done) = callers.try_join_next() {
            done.expect("no panic in a stack");
        }
    }
    while let Some(done) = callers.join_next().await {
        done.expect("no panic in a stack");
    }
    let mut tally = tally.lock().expect("no panic").clone();
    tally.spent = backend.spent();
    tally.seconds = (load.time - load.warm).as_secs_f64();
    tally
}
