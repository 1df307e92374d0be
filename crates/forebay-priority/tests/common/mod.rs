//! What several test files need.
#![allow(dead_code, unreachable_pub)] // each file uses a part

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use forebay_core::testing::{Scripted, Step};
use forebay_core::{Class, Reason, Rejection};
use forebay_priority::{Priority, PriorityBody, PriorityConfig, PriorityHandle, PriorityLayer, QueueLength};
use http::{Request, Response};
use tower::util::BoxCloneService;
use tower::{Layer as _, Service, ServiceExt as _};

pub type Answer = Response<PriorityBody<Scripted>>;

/// So many seats, queues of so many, no reserved shares, first come first served; timeouts of 0.5, 1, 3 and 10 s,
/// whatever the hold.
pub fn config(seats: usize, queue: usize) -> PriorityConfig {
    let mut config = PriorityConfig::four_class(seats);
    for class in &mut config.classes {
        (class.queue, class.reserved) = (QueueLength::Fixed(queue), 0.0);
        class.order = forebay_priority::Order::Fifo;
    }
    for (class, millis) in config.classes.iter_mut().zip([500, 1000, 3000, 10_000]) {
        (class.queue_timeout, class.patience_seats) = (Duration::from_millis(millis), 0);
    }
    config
}

/// A service whose body is one frame that has to be read.
#[derive(Clone, Debug)]
pub struct OneFrame;

impl Service<Request<()>> for OneFrame {
    type Response = Response<Scripted>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let mut response = Response::new(Scripted::new([Step::Data("x".into())]));
        *response.extensions_mut() = request.extensions().clone(); // so that tests see what came inside
        *response.headers_mut() = request.headers().clone();
        std::future::ready(Ok(response))
    }
}

pub fn house(config: PriorityConfig) -> (Priority<OneFrame>, PriorityHandle) {
    let (layer, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("valid");
    (layer.layer(OneFrame), handle)
}

pub fn request(class: Class) -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(class);
    request
}

pub fn ask<S>(service: &S, class: Class) -> impl Future<Output = S::Response> + use<S>
where
    S: Service<Request<()>, Error = Infallible> + Clone,
{
    let exchange = service.clone().oneshot(request(class));
    async move { exchange.await.expect("infallible") }
}

pub fn reason<B>(response: &Response<B>) -> Reason {
    response.extensions().get::<Rejection>().expect("a refusal").reason
}

pub fn assert_idle(handle: &PriorityHandle) {
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.revoked_live, snapshot.saturation), (0, 0.0), "{snapshot:?}");
    for class in &snapshot.classes {
        assert_eq!((class.waiting, class.queued, class.in_flight), (0, 0, 0), "{snapshot:?}");
        assert_eq!(class.offered, class.admitted + class.shed + class.cancelled, "{snapshot:?}");
    }
}

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub type Boxed<B = Scripted> = BoxCloneService<Request<()>, Response<PriorityBody<B>>, Infallible>;

/// What callers of each class wait for at most, in milliseconds.
pub const PATIENCE: [u64; 4] = [500, 1000, 3000, 10_000];

/// Random numbers that are the same in every run (Steele, Lea and Flood, OOPSLA 2014: SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One of four classes, with these shares.
pub fn class(random: &mut Random, mix: [f64; 4]) -> usize {
    let dice = random.unit();
    (0..3).find(|&class| dice < mix[..=class].iter().sum()).unwrap_or(3)
}
