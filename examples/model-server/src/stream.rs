//! A streamed answer: each token is written when it is due and the body is polled. No task runs besides.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{body::BrokenOff, engine::Run, pace::Pace, plan::Plan, wire::Events};

/// Steps written into one frame at most.
const STEPS_A_FRAME: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Sse {
    plan: Plan,
    events: Events,
    run: Option<Run>, // none: the answer is over
    pace: Option<Pace>,
    sleep: Option<Pin<Box<Sleep>>>,
    next: u64,
    steps: u64,
    break_at: Option<u64>,
    flushed: bool,
}

impl Sse {
    pub(crate) fn new(plan: Plan, run: Run, pace: Option<Pace>, break_off: bool) -> Self {
        let steps = plan.steps();
        let break_at = break_off.then(|| steps.div_ceil(2));
        let sleep = pace.map(|pace| Box::pin(sleep_until(pace.first)));
        let events = Events::new(&plan);
        Self { plan, events, run: Some(run), pace, sleep, next: 0, steps, break_at, flushed: false }
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.run.is_none()
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if self.run.is_none() {
            return Poll::Ready(None);
        }
        if self.break_at == Some(self.next) {
            return self.break_off(cx);
        }
        let until = self.break_at.unwrap_or(self.steps).min(self.next + STEPS_A_FRAME);
        let due = ready!(self.poll_due(cx)).min(until);
        let mut out = String::with_capacity(256 * (due - self.next) as usize);
        let mut tokens = 0;
        for step in self.next..due {
            self.events.step(&mut out, &self.plan, step);
            tokens += self.plan.answers.iter().filter(|answer| step < answer.completion_tokens()).count() as u64;
        }
        if let Some(run) = &self.run {
            if self.next == 0 {
                run.prefilled(self.plan.prompt_tokens, self.pace.map(|pace| pace.first));
            }
            run.generated(tokens);
        }
        self.next = due;
        if due == self.steps && self.break_at.is_none() {
            self.events.end(&mut out, &self.plan);
            if let Some(run) = self.run.take() {
                run.complete(self.plan.finish());
            }
        }
        Poll::Ready(Some(Ok(out.into())))
    }

    /// Waits until another step is due, and says how many are in all; more than were written.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        let Some((pace, sleep)) = self.pace.zip(self.sleep.as_mut()) else { return Poll::Ready(u64::MAX) };
        let due = pace.due(Instant::now());
        if due > self.next {
            return Poll::Ready(due);
        }
        sleep.as_mut().reset(pace.at(self.next));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(pace.due(Instant::now()).max(self.next + 1)) // rounding may say that it is not quite due
    }

    /// Ends with an error, one poll later, so that what was written before has left.
    fn break_off(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if !self.flushed {
            self.flushed = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(run) = self.run.take() {
            run.fail();
        }
        Poll::Ready(Some(Err(BrokenOff)))
    }
}
