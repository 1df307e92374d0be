//! Exchanges at random, with cancels, errors, panics, refusals, ejections and endpoints that come and go: nothing leaks,
//! and no request is seen twice.
//!
//! 20,000 exchanges by default; a million by
//! `CHAOS_EXCHANGES=1000000 cargo test --release -p forebay-balance --test chaos`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_balance::{Balance, BalanceHandle, Endpoint, OnFull, Picked, Redial, Undispatched};
use forebay_core::testing::{Scripted, Step, cut_after};
use forebay_core::{CapacitySignal as _, Class, Deadline, DemandSource as _, Rejection};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tower::{Service, ServiceExt as _};

/// Draws of one exchange.
#[derive(Debug, Clone, Copy)]
struct Draws(u64);

impl Draws {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// How often each request was seen.
type Seen = Arc<Vec<AtomicU8>>;

#[derive(Debug, Clone)]
struct Backend {
    seen: Seen,
    here: Arc<AtomicUsize>,
}

#[derive(Debug, thiserror::Error)]
#[error("failed")]
struct Failed(Option<Request<usize>>);

impl Undispatched<Request<usize>> for Failed {
    fn take_request(&mut self) -> Option<Request<usize>> {
        self.0.take()
    }
}

/// Counts what is at the backend, to its end or drop.
struct Here(Arc<AtomicUsize>);

impl Here {
    fn enter(at: &Arc<AtomicUsize>) -> Self {
        at.fetch_add(1, SeqCst);
        Self(Arc::clone(at))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Service<Request<usize>> for Backend {
    type Response = Response<Scripted>;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Scripted>, Failed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<usize>) -> Self::Future {
        let (number, here) = (*request.body(), Here::enter(&self.here));
        let seen = Arc::clone(&self.seen);
        let mut draws = Draws((number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seen.len() as u64);
        Box::pin(async move {
            let _here = here;
            let what = draws.next(60) + u64::from(seen[number].load(SeqCst) > 0) * 100;
            if what < 3 {
                tokio::task::yield_now().await;
                return Err(Failed(Some(request))); // it never left
            }
            seen[number].fetch_add(1, SeqCst); // from here on it was seen
            for _ in 0..draws.next(3) {
                tokio::task::yield_now().await;
            }
            let status = match what {
                3 => return Err(Failed(None)),
                4 => panic!("as services do"),
                5 | 6 => StatusCode::SERVICE_UNAVAILABLE,
                7 => StatusCode::TOO_MANY_REQUESTS,
                8 => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::OK,
            };
            let steps = match draws.next(4) {
                0 => vec![],
                1 => vec![Step::Data("a".into()), Step::Pending, Step::Data("b".into())],
                2 => vec![Step::Pending, Step::Data("a".into()), Step::Error("cut".into())],
                _ => vec![Step::Data("a".into())],
            };
            let response = Response::builder().status(status).body(Scripted::new(steps));
            Ok(response.expect("valid"))
        })
    }
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaks_and_nothing_is_seen_twice() {
    let exchanges: usize = std::env::var("CHAOS_EXCHANGES").ok().map_or(20_000, |n| n.parse().expect("a number"));
    let seen: Seen = Arc::new((0..exchanges).map(|_| AtomicU8::new(0)).collect());
    let here = Arc::new(AtomicUsize::new(0));
    let backend = Backend { seen: Arc::clone(&seen), here: Arc::clone(&here) };
    let wait = OnFull::Wait { len: 16, timeout: Duration::from_millis(2) };
    let (balance, handle) = Balance::<Backend, Redial>::builder_with_redial()
        .endpoint(Endpoint::with_service("a", backend.clone()).max_concurrency(4))
        .endpoint(Endpoint::with_service("gold", backend.clone()).pool("gold").max_concurrency(3))
        .route(Class::P0, ["gold", "default"])
        .borrow("gold", Class::P3, 1)
        .on_full(wait)
        .build_with_handle()
        .expect("valid");

    std::panic::set_hook(Box::new(|_| ())); // they are meant
    let (next, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (0..24_u64)
        .map(|worker| {
            let (balance, handle) = (balance.clone(), handle.clone());
            let (next, answered) = (Arc::clone(&next), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut draws = Draws(worker * 77 + 1);
                loop {
                    let number = next.fetch_add(1, SeqCst);
                    if number >= exchanges {
                        return;
                    }
                    // In a task of its own, as some panic.
                    let one = exchange(balance.clone(), handle.clone(), number, Draws(draws.next(1 << 50) + 1));
                    if tokio::spawn(one).await.is_ok_and(|answer| answer) {
                        answered.fetch_add(1, SeqCst);
                    }
                }
            })
        })
        .collect();
    let changer = tokio::spawn(change(balance.clone(), handle.clone(), backend.clone(), Arc::clone(&next), exchanges));
    for worker in workers {
        worker.await.expect("the workers do not panic");
    }
    changer.await.expect("nor does who changes");
    drop(std::panic::take_hook());

    assert_eq!(here.load(SeqCst), 0, "nothing runs at the backends");
    assert!(seen.iter().all(|seen| seen.load(SeqCst) <= 1), "nothing was seen twice");
    assert!(answered.load(SeqCst) as usize > exchanges / 4, "{} answers", answered.load(SeqCst));
    let demand = handle.demand().total();
    assert_eq!((demand.queued, demand.in_flight, demand.offered), (0, 0, exchanges as u64));
    for endpoint in handle.snapshot() {
        assert_eq!(endpoint.in_flight, 0, "{endpoint:?}");
        let ended = endpoint.success + endpoint.overload + endpoint.error + endpoint.cancelled;
        assert_eq!(endpoint.picks, ended, "{endpoint:?}");
    }
    // All that were reserved are open again.
    balance.replace([Endpoint::with_service("new", backend).max_concurrency(7)]).expect("valid");
    assert_eq!(handle.places().open, 7);
}

/// One exchange, perhaps cut off; whether it was answered by a backend.
async fn exchange(balance: Balance<Backend, Redial>, handle: BalanceHandle, number: usize, mut draws: Draws) -> bool {
    let mut request = Request::new(number);
    let class = Class::new(draws.next(4) as u8);
    request.extensions_mut().insert(class);
    if draws.next(3) == 0
        && let Some(place) = handle.capacity().try_reserve(class)
    {
        request.extensions_mut().insert(place);
    }
    if draws.next(20) == 0 {
        let soon = tokio::time::Instant::now() + Duration::from_micros(draws.next(500));
        request.extensions_mut().insert(Deadline::at(soon.into_std()));
    }
    let whole = async {
        let response = balance.oneshot(request).await.ok()?;
        let by_backend = response.extensions().get::<Picked>().is_some();
        assert_ne!(by_backend, response.extensions().get::<Rejection>().is_some(), "one of the two");
        let _ = response.into_body().collect().await;
        by_backend.then_some(())
    };
    let polls = 1 + draws.next(12) as usize;
    if polls < 5 { cut_after(polls, whole).await.flatten().is_some() } else { whole.await.is_some() }
}

/// Changes whatever can be changed, until all exchanges have begun.
async fn change(
    balance: Balance<Backend, Redial>,
    handle: BalanceHandle,
    backend: Backend,
    begun: Arc<AtomicUsize>,
    exchanges: usize,
) {
    let mut draws = Draws(42);
    while begun.load(SeqCst) < exchanges {
        let name = NAMES[1 + draws.next(5) as usize];
        match draws.next(12) {
            0..=2 => {
                let weight = 1 + draws.next(9) as u16;
                let endpoint = Endpoint::with_service(name, backend.clone()).weight(weight);
                balance.insert(endpoint.max_concurrency(1 + draws.next(6) as u32)).expect("valid");
            }
            3 => drop(balance.remove(name)),
            4 => drop(handle.eject(name, Duration::from_micros(draws.next(2000)))),
            5 => drop(handle.set_health(name, draws.next(2) == 0)),
            6 => drop(handle.set_max_concurrency("a", Some(1 + draws.next(5) as u32))),
            _ => drop(["a", "gold", name].map(|name| handle.clear(name))),
        }
        tokio::task::yield_now().await;
    }
}
