//! The life of jobs, without I/O: a pure state machine over wall-clock milliseconds.
//!
//! [`Machine::apply`] takes the time and a [`Command`] and says what is so now ([`Reply`]) and what has to be written
//! down ([`Effects`]). It reads no clock and rolls no dice: the time and every random number are arguments. The memory
//! and redb stores run it as it is; it is public so that other stores can run it, or be compared with it.
//!
//! ```
//! use forebay_offload::policy::{Bounds, Claim, Command, JobSpec, Machine, Reply, JobId};
//! use forebay_core::Class;
//!
//! let mut machine = Machine::new();
//! let spec = JobSpec::new(JobId::from_u128(1), Class::P1);
//! machine.apply(1_000, Command::Enqueue { spec, bounds: Bounds::default() });
//! let (reply, _) = machine.apply(1_005, Command::Claim(Claim::new(7, 10)));
//! let Reply::Claimed(claimed) = reply else { unreachable!() };
//! assert_eq!(claimed.jobs[0].id, JobId::from_u128(1));
//! assert_eq!(claimed.jobs[0].attempts, 1);
//! ```
//!
//! Any command may be repeated after an unknown outcome: an enqueue by its client-made id, a claim by its nonce, the
//! others by job id and fencing token. Each costs O(k log n) for k jobs named in it, plus a bounded number (256 due,
//! 64 lost leases) of jobs whose time has come; a claim also O(log n) for each owner that it passes over.

mod backoff;
mod claim;
mod class;
mod command;
mod control;
mod enqueue;
mod id;
mod job;
mod machine;
mod rate;
mod ready;
mod reply;
mod settle;
mod sweep;

pub use self::{
    backoff::backoff_ms,
    class::JobClass,
    command::{Bounds, Claim, Command, JobSpec, KeyClaim, Verdict},
    id::{InvalidId, JobId, KeyTag, OwnerTag},
    job::{Cause, Job, JobState},
    machine::{KeyRecord, Machine},
    reply::{Cancelled, Claimed, Effects, Enqueued, Erased, Lost, Renewed, Reply, Settled, Stats, Swept},
};
