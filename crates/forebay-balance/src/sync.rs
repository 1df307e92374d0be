//! The locks of what is counted: the standard one, or that of a model checker.

#[cfg(forebay_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(forebay_shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(any(forebay_loom, forebay_shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard};
