use std::sync::Arc;
use std::time::Duration;

use crate::{Entry, Key};

/// The first tier: synchronous, so that a hit awaits nothing. The cache knows itself when an entry is stale; a memory
/// only bounds what is kept.
#[diagnostic::on_unimplemented(note = "turn on the feature `moka` for `MokaStore`, or implement `Memory`")]
pub trait Memory: Send + Sync + 'static {
    /// The entry, if it is still there.
    fn get(&self, key: &Key) -> Option<Arc<Entry>>;
    /// Keeps an entry, in place of an older one; after `keep` it is of no more use.
    fn put(&self, key: Key, entry: Arc<Entry>, keep: Duration);
    /// Drops an entry.
    fn remove(&self, key: &Key);
    /// Drops all entries that were put before.
    fn clear(&self);
    /// How many entries there are, indexes included. May do outstanding housekeeping first.
    fn entries(&self) -> u64;
    /// What they weigh, in bytes.
    fn bytes(&self) -> u64;
    /// What they may weigh, in bytes.
    fn max_bytes(&self) -> u64;
}
