//! Ledgers of balancers that are gone, for those to come.
//!
//! Each exchange holds on to its endpoint, and the endpoint to the ledger. To hold on is to count, which costs as much as a
//! lock, twice. So what held on is not dropped at the end of an exchange but put into the ledger, for the next one. It
//! must go there while the ledger is locked, and cannot if it is what keeps the ledger: so a ledger is not freed. There
//! are never more of them than there were balancers at once.

use std::sync::{Mutex as StdMutex, PoisonError};

use super::{Ledger, Mutex, lock, now};
use crate::policy::{Picker, Routes, Settings};

/// Those that nobody uses; empty ones.
static SHELF: StdMutex<Vec<&'static Mutex<Ledger>>> = StdMutex::new(Vec::new());

/// A lock with this ledger in it.
pub(super) fn take(ledger: Ledger) -> &'static Mutex<Ledger> {
    let spare = SHELF.lock().unwrap_or_else(PoisonError::into_inner).pop();
    match spare {
        Some(spare) => {
            *lock(spare) = ledger;
            spare
        }
        None => Box::leak(Box::new(Mutex::new(ledger))),
    }
}

/// Empties it, for somebody else. Nobody else may use it any more.
pub(super) fn put_back(ledger: &'static Mutex<Ledger>) {
    let empty = Ledger::new(Picker::new(Settings::default(), Routes::default(), 0, 0, now()));
    let old = std::mem::replace(&mut *lock(ledger), empty);
    drop(old); // outside the locks
    if !cfg!(forebay_loom) {
        SHELF.lock().unwrap_or_else(PoisonError::into_inner).push(ledger); // a lock of loom is of one run
    }
}

#[cfg(all(test, not(any(forebay_loom, forebay_shuttle))))]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use forebay_core::{BodyGuard as _, Class, Outcome};

    use super::*;
    use crate::conduct::Conduct;
    use crate::endpoint::Endpoint;
    use crate::gpu::GpuTable;
    use crate::ledger::Core;
    use crate::members::Members;
    use crate::permit::{Permit, Who};

    #[test]
    fn a_ledger_is_used_again_and_what_was_in_it_is_gone() {
        let service = Arc::new(());
        let used = (0..1000).map(|_| {
            let picker = Picker::new(Settings::default(), Routes::to_one_pool(), 1, 7, now());
            let core = Arc::new(Core::new(picker, ["default".into()].into(), Conduct::default()));
            let members = Members::new(Arc::clone(&core), GpuTable::default(), false, false);
            members.insert(Endpoint::with_service("a", Arc::clone(&service))).expect("valid");
            let who = Who { class: Class::P1, key: None, timed: false, counted: true, new: true };
            let pick = || Permit::pick(&core, who, &[]).expect("open");
            (0..3).for_each(|_| pick().finish(Outcome::Success)); // what they held on to is kept
            let last = [pick(), pick()];
            let ledger = std::ptr::from_ref(core.ledger).addr();
            drop((core, members));
            assert_eq!(Arc::strong_count(&service), 2, "as long as there are exchanges");
            last.into_iter().for_each(|permit| permit.finish(Outcome::Success));
            assert_eq!(Arc::strong_count(&service), 1, "the endpoint is gone with the last of them");
            ledger
        });
        let used: HashSet<usize> = used.collect();
        assert!(used.len() < 100, "{}, and not more than there are at once in all tests of this process", used.len());
    }
}
