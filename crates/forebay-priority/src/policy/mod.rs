//! The pure core: who is admitted, who waits, who goes next, who is turned away. No clock, no tokio, no wakers, no user
//! code: `now` comes in as a [`Tick`], and whoever is to be woken comes out in [`Effects`].

mod class;
mod dispatch;
mod effects;
mod estimate;
mod flows;
mod full;
mod held;
mod lend;
mod pace;
mod raise;
mod readers;
mod room;
mod scheduler;
mod slab;
mod tenants;
#[cfg(test)]
mod tests;
mod tick;

pub(crate) use effects::Effects;
pub(crate) use readers::Readers;
pub(crate) use room::{CLASSES, Room};
pub(crate) use scheduler::{Ask, Offer, Polled, Scheduler, Taken};
pub(crate) use slab::Ticket;
pub(crate) use tick::{Tick, nanos};
