//! Jobs in one file: [`RedbStore`], behind the feature `redb`.
//!
//! The file holds everything, memory an index of a few hundred bytes a job. One thread writes: it gathers the calls that came
//! while the last commit was under way, runs the state machine over them, and commits what they change in one
//! transaction that is on disk before any of them is answered. So a call costs about one `fsync`, and many calls at a
//! time cost about one together.
//!
//! # After a crash
//! What was confirmed is there. Whoever ran jobs is gone: every lease counts as lost when the file is opened, each a
//! crash of its job. A record that cannot be read fails its own job (cause `record-corrupt`), no other.
//!
//! # Limits
//! One process at a time: a second one gets [`StoreErrorKind::InUse`](crate::store::StoreErrorKind::InUse). After a
//! failed commit (disk full, I/O error) the store is closed for good, as nobody knows what the disk has: every call
//! fails until the file is opened anew, and the layer serves inline meanwhile. Saved-up shares of classes, and the
//! counts since start, do not outlive the process.

mod board;
mod codec;
mod load;
mod store;
mod tables;
mod writer;

pub use self::store::RedbStore;
