//! The pure core: who is admitted, who waits, who goes next. No clock, no tokio, no wakers, no user code.

mod scheduler;
#[cfg(test)]
mod tests;

pub(crate) use scheduler::{ClassRule, Offer, Polled, Scheduler, Ticket};
