//! What runs beside the requests.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use forebay_core::ConfigError;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::handle::BalanceHandle;
use crate::ledger::Core;
use crate::members::{AnyNode, Members};

/// A part of the work, which ends by itself or is dropped.
pub(crate) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The work for one endpoint, for as long as it is there.
pub(crate) type WatchEndpoint = Box<dyn Fn(usize, &Arc<AnyNode>) -> Vec<Job> + Send>;

/// All that a balancer does without being called: it follows discovery, checks health and fetches metrics pages.
///
/// `build` and `build_with_handle` spawn it. From [`build_parts`](crate::BalanceBuilder::build_parts) it comes unspawned,
/// for a balancer that is built outside a runtime, or whose background work is to run on another one. Spawn it on a tokio
/// runtime with time, and with I/O where there are HTTP endpoints: it spawns a task there for each source and each
/// endpoint. It needs no traffic, and ends once the last [`Balance`](crate::Balance), [`Fleet`](crate::Fleet) and
/// [`BalanceHandle`] are gone.
///
/// Dropped before that, or never run, it takes its tasks along and nothing of this happens any more. Requests are served
/// as before, by what was known: sources and their changes are let go, the endpoints stay; one that was up stays up, one
/// that was down or had not had its first check (`EndpointState::New`) stays so and gets nothing; what pages said is
/// forgotten after three intervals, as when a page is not there, but for a GPU fault.
///
/// ```
/// use forebay_balance::{Balance, Change, Endpoint};
/// # use std::pin::Pin;
/// # use std::task::{Context, Poll};
/// # struct Registry(Vec<Change<&'static str>>);
/// # impl futures_core::Stream for Registry {
/// #     type Item = Result<Change<&'static str>, std::convert::Infallible>;
/// #     fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
/// #         Poll::Ready(self.0.pop().map(Ok))
/// #     }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let registry = Registry(vec![Change::Insert(Endpoint::with_service("a", "connection"))]);
/// let (balance, handle, driver) = Balance::builder().discover(registry).build_parts()?; // there is no runtime yet
///
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// runtime.spawn(driver);
/// # runtime.block_on(async {
/// #     while handle.snapshot().is_empty() {
/// #         tokio::task::yield_now().await;
/// #     }
/// # });
/// # drop(balance);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is discovered, checked or probed unless it runs"]
pub struct Driver(Job);

impl Driver {
    pub(crate) fn new(members: &Members, sources: Vec<Job>, watch: Option<WatchEndpoint>) -> Self {
        Self(Box::pin(drive(Arc::downgrade(&members.core), members.changed.subscribe(), sources, watch)))
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Driver")
    }
}

/// Every job is a task of its own, so that long pages are read on all cores and a panic ends one job only. Each belongs to
/// a set that aborts it when it is dropped.
async fn drive(core: Weak<Core>, mut changed: watch::Receiver<()>, sources: Vec<Job>, watch: Option<WatchEndpoint>) {
    let mut followed = JoinSet::new();
    for source in sources {
        followed.spawn(source);
    }
    let mut watched = Watched::new();
    loop {
        if let (Some(watch), Some(core)) = (&watch, core.upgrade()) {
            let endpoints = core.ledger().endpoints().map(|(index, node)| (index, Arc::clone(node))).collect();
            drop(core);
            catch_up(&mut watched, endpoints, watch);
        }
        if changed.changed().await.is_err() {
            return; // nobody has the balancer any more
        }
    }
}

/// The jobs of the endpoints, by the index of each; the `Weak` says of which endpoint there.
type Watched = HashMap<usize, (Weak<AnyNode>, JoinSet<()>)>;

/// Begins to watch those that are new, and ends it for those that are gone: what is there counts, not each change, so that
/// nothing piles up however fast endpoints come and go. O(endpoints).
fn catch_up(watched: &mut Watched, endpoints: HashMap<usize, Arc<AnyNode>>, watch: &WatchEndpoint) {
    watched.retain(|index, (known, _)| {
        endpoints.get(index).is_some_and(|node| std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(node)))
    });
    for (index, node) in endpoints {
        watched.entry(index).or_insert_with(|| (Arc::downgrade(&node), watch(index, &node).into_iter().collect()));
    }
}

/// Builds with a driver that runs on the current runtime, if it is needed.
pub(crate) fn spawned<T>(
    needed: bool,
    build: impl FnOnce(Vec<String>) -> Result<(T, BalanceHandle, Driver), ConfigError>,
) -> Result<(T, BalanceHandle), ConfigError> {
    let runtime = needed.then(Handle::try_current).transpose();
    let problems = runtime.as_ref().err().map(|_| NO_RUNTIME.to_owned());
    let (balance, handle, driver) = build(problems.into_iter().collect())?;
    if let Ok(Some(runtime)) = runtime {
        runtime.spawn(driver);
    }
    Ok((balance, handle))
}

const NO_RUNTIME: &str = "discovery, checks and probes run in the background: build inside a tokio runtime, or spawn the \
                          driver of build_parts on one";
