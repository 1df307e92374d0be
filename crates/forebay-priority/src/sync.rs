//! The lock of the scheduler and the word of the gate: the standard ones, or those of a model checker.

#[cfg(forebay_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::AtomicU64};
#[cfg(forebay_shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic::AtomicU64};
#[cfg(not(any(forebay_loom, forebay_shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicU64};
