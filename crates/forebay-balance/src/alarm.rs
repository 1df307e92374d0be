use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::runtime::Handle;

use crate::ledger::{Core, Ledger, now};

/// Wakes those who wait when time alone opens a place: an ejection or a pause is over. Without anybody who waits there
/// is no alarm, as each pick looks at the clock itself; and none outside a tokio runtime.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    at: Option<Instant>,
}

/// An alarm that is to be started.
pub(crate) struct Armed {
    at: Instant,
    runtime: Handle,
}

impl Core {
    /// Sets an alarm if there is something to wait for that no other will tell.
    pub(crate) fn set_alarm(&self, ledger: &mut Ledger) -> Option<Armed> {
        let at = ledger.picker.due()?;
        if ledger.alarm.at.is_some_and(|set| set <= at) || ledger.waiting.is_empty() && self.wakers.is_empty() {
            return None;
        }
        let runtime = Handle::try_current().ok()?;
        ledger.alarm.at = Some(at);
        Some(Armed { at, runtime })
    }

    /// As [`set_alarm`](Self::set_alarm), for somebody who begins to wait.
    pub(crate) fn keep_awake(self: &Arc<Self>) {
        let alarm = self.set_alarm(&mut self.ledger());
        if let Some(alarm) = alarm {
            alarm.start(self);
        }
    }
}

impl Armed {
    /// It rings once, and the next is set then. Nobody is kept alive by it.
    pub(crate) fn start(self, core: &Arc<Core>) {
        let Self { at, runtime } = self;
        let set = Set { core: Arc::downgrade(core), at };
        runtime.spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            if let Some(core) = set.core.upgrade() {
                drop(set); // it has rung
                core.change(|ledger| ledger.picker.advance(now()));
            }
        });
    }
}

/// An alarm that is set. Dropped, it is not any more, also if its runtime has ended before: then another may be set.
struct Set {
    core: Weak<Core>,
    at: Instant,
}

impl Drop for Set {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else { return };
        let mut ledger = core.ledger();
        ledger.alarm.at = ledger.alarm.at.filter(|at| *at != self.at);
        ledger.picker.look_again(); // the next change sets another, if there is something to wait for
    }
}
