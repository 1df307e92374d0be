//! What the layer does with users' own code and other layers' hooks: exemptions, costs, overflow, capacity, deadlines.

mod common;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use bytes::Bytes;
use common::{OneFrame, ask, assert_idle, config, house, millis, reason, request};
use forebay_core::testing::{Scripted, Step};
use forebay_core::{
    CapacitySignal, Class, Counted, Deadline, Offloaded, Overflow, Places, Principal, Raise, Reason, Rejection,
    RequestHead, Reservation, Subscription,
};
use forebay_priority::{Admitted, Ask, ByHeader, PriorityLayer, QueueWait, Seats, Tier, Tiers, Trust};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};
use tower::{Layer as _, ServiceExt as _, service_fn};

#[tokio::test(start_paused = true)]
async fn r19_the_exempt_need_no_seat() {
    let exempt = |head: &RequestHead<'_>| head.uri.path() == "/healthz";
    let (layer, handle) =
        PriorityLayer::builder().config(config(1, 0)).exempt(exempt).build_with_handle().expect("valid");
    let service = layer.layer(OneFrame);
    let _held = ask(&service, Class::P0).await;
    let health = Request::get("/healthz").body(()).expect("valid");
    assert_eq!(service.clone().oneshot(health).await.expect("infallible").status(), 200);
    assert_eq!(ask(&service, Class::P0).await.status(), 429);
    assert_eq!(handle.snapshot().classes.iter().map(|class| class.offered).sum::<u64>(), 2);
}

#[tokio::test(start_paused = true)]
async fn r26_a_large_request_waits_for_its_seats_and_is_not_starved_by_small_ones() {
    let cost = |head: &RequestHead<'_>| Seats::new(if head.headers.contains_key("large") { 1000 } else { 1 });
    let (layer, handle) = PriorityLayer::builder().config(config(3, 9)).cost(cost).build_with_handle().expect("valid");
    let service = layer.layer(OneFrame);
    let small = [ask(&service, Class::P1).await, ask(&service, Class::P1).await];
    let mut large = request(Class::P1);
    large.headers_mut().insert("large", "1".parse().expect("a value"));
    let mut large = spawn(service.clone().oneshot(large));
    assert_pending!(large.poll());
    let mut later = spawn(ask(&service, Class::P2));
    assert_pending!(later.poll());
    assert_eq!(handle.snapshot().classes[1].queued, 3, "as many as there are, not 1000");
    let [first, second] = small;
    drop(first);
    assert!(!later.is_woken() && !large.is_woken(), "the free seats are kept for it");
    drop(second);
    let whole = assert_ready!(large.poll()).expect("infallible");
    assert_eq!(handle.snapshot().classes[1].in_flight, 3);
    drop(whole);
    drop(assert_ready!(later.poll()));
    assert_idle(&handle);
}

/// Takes, declines, or panics.
#[derive(Clone)]
struct Hook(&'static str, Arc<AtomicU32>);

impl Overflow<()> for Hook {
    type Future = Ready<Result<Response<Bytes>, Rejection>>;

    fn overflow(&self, _: Request<()>, why: Rejection) -> Self::Future {
        self.1.fetch_add(1, Ordering::Relaxed);
        match self.0 {
            "takes" => ready(Ok(Response::builder().status(202).body(Bytes::from_static(b"job 7")).expect("valid"))),
            "declines" => ready(Err(why)),
            _ => panic!("a bug in the hook"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r21_an_overflow_hook_takes_declines_or_panics() {
    for kind in ["takes", "declines", "panics"] {
        let asked = Arc::new(AtomicU32::new(0));
        let builder = PriorityLayer::builder().config(config(1, 0));
        let builder = builder.overflow(Hook(kind, Arc::clone(&asked)), [Class::P2, Class::P3]);
        let (layer, handle) = builder.build_with_handle().expect("valid");
        let service = layer.layer(OneFrame);
        let held = ask(&service, Class::P0).await;
        assert_eq!(reason(&ask(&service, Class::P1).await), Reason::QueueFull, "not its class");
        let mut job = request(Class::P2);
        job.extensions_mut().insert(Offloaded);
        let job = service.clone().oneshot(job).await.expect("infallible");
        assert_eq!(reason(&job), Reason::QueueFull, "a job must not become a job again");
        let mut dead = request(Class::P2);
        dead.extensions_mut().insert(Deadline::at(Instant::now().into_std()));
        assert_eq!(service.clone().oneshot(dead).await.expect("infallible").status(), 504);
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        let outcome = tokio::spawn(ask(&service, Class::P2)).await;
        match kind {
            "takes" => {
                let response = outcome.expect("no panic");
                assert_eq!(response.status(), 202);
                assert_eq!(response.into_body().collect().await.expect("text").to_bytes(), "job 7");
            }
            "declines" => assert_eq!(reason(&outcome.expect("no panic")), Reason::QueueFull),
            _ => assert!(outcome.is_err_and(|error| error.is_panic())),
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        drop(held);
        assert_idle(&handle);
    }
}

/// Places for each class, and whoever wants to know when one comes free.
#[derive(Debug, Default)]
struct Backends {
    open: Mutex<[u32; 4]>,
    wakers: Mutex<Vec<Waker>>,
}

/// Goes back when dropped.
struct Place(Arc<Backends>, usize);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open(self.1);
    }
}

impl Backends {
    fn open(&self, class: usize) {
        self.open.lock().expect("no panic")[class] += 1;
        let wakers = self.wakers.lock().expect("no panic").clone();
        wakers.iter().for_each(Waker::wake_by_ref); // outside the locks
    }
}

struct Signal(Arc<Backends>);

impl CapacitySignal for Signal {
    fn try_reserve(&self, class: Class) -> Option<Reservation> {
        let open = &mut self.0.open.lock().expect("no panic")[class.index()];
        *open = open.checked_sub(1)?;
        Some(Reservation::new(Place(Arc::clone(&self.0), class.index())))
    }

    fn subscribe(&self, waker: &Waker) -> Subscription {
        self.0.wakers.lock().expect("no panic").push(waker.clone());
        Subscription::new(())
    }

    fn places(&self, _: Option<Class>) -> Places {
        Places::default()
    }
}

#[tokio::test(start_paused = true)]
async fn r20_a_grant_takes_a_place_at_the_backends_and_hands_it_on() {
    let backends = Arc::new(Backends::default());
    backends.open(0); // a place for P0 only
    let builder = PriorityLayer::builder().config(config(8, 8)).capacity(Signal(Arc::clone(&backends)));
    let (layer, handle) = builder.build_with_handle().expect("valid");
    let service = layer.layer(OneFrame);
    let mut batch = spawn(ask(&service, Class::P3));
    assert_pending!(batch.poll());
    let urgent = ask(&service, Class::P0).await;
    let place = urgent.extensions().get::<Reservation>().expect("it came inside").clone();
    let redeemed = place.redeem::<Place>().expect("nobody else had it");
    let mut second = spawn(ask(&service, Class::P0));
    assert_pending!(second.poll());
    assert!(!batch.is_woken() && !second.is_woken());
    drop(redeemed);
    assert!(second.is_woken(), "a place that is given back wakes the scheduler");
    drop(assert_ready!(second.poll()));
    backends.open(3);
    assert!(batch.is_woken(), "a place that comes late wakes the scheduler");
    let late = assert_ready!(batch.poll());
    drop((urgent, late));
    // A cancelled grant gives its place back.
    let before = *backends.open.lock().expect("no panic");
    let mut third = spawn(ask(&service, Class::P1));
    assert_pending!(third.poll());
    backends.open(1);
    assert!(third.is_woken());
    drop(third);
    assert_eq!(backends.open.lock().expect("no panic")[1], before[1] + 1);
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn r4_r13_the_time_to_the_head_is_bounded_by_the_least_of_all_sources() {
    let slow = || {
        service_fn(|_: Request<()>| async {
            tokio::time::sleep(millis(5000)).await;
            Ok::<_, Infallible>(Response::new(Scripted::new([])))
        })
    };
    let mut own = config(1, 1);
    own.classes[1].answer_timeout = Some(millis(2000));
    let (layer, handle) =
        PriorityLayer::builder().config(own).deadline_header("x-timeout-ms").build_with_handle().expect("valid");
    let service = layer.layer(slow());
    for (class, header, value, expected) in [
        (Class::P1, "x-none", "1", Some(2000)),
        (Class::P1, "x-timeout-ms", "700", Some(700)),
        (Class::P1, "x-timeout-ms", "70000", Some(2000)),
        (Class::P1, "x-timeout-ms", "-3", Some(2000)),
        (Class::P1, "grpc-timeout", "300m", Some(300)),
        (Class::P2, "grpc-timeout", "99999999H", None),
        (Class::P2, "x-none", "1", None),
    ] {
        let mut request = request(class);
        request.headers_mut().insert(header, value.parse().expect("a value"));
        let start = Instant::now();
        let response = service.clone().oneshot(request).await.expect("infallible");
        match expected {
            Some(expected) => {
                assert_eq!((response.status().as_u16(), reason(&response)), (504, Reason::DeadlineExceeded), "{value}");
                assert_eq!(start.elapsed(), millis(expected), "{header}: {value}");
            }
            None => assert_eq!(response.status(), 200),
        }
        drop(response);
        assert_idle(&handle);
    }
}

#[tokio::test(start_paused = true)]
async fn r4_once_the_head_is_out_no_timeout_counts_but_max_hold() {
    let mut own = config(1, 4);
    own.classes[2].answer_timeout = Some(millis(1000));
    let (service, handle) = house(own);
    let body = ask(&service, Class::P2).await.into_body();
    tokio::time::advance(millis(60_000)).await;
    assert_eq!(body.collect().await.expect("unharmed").to_bytes(), "x");
    handle.update_class(Class::P2, |class| class.max_hold = Some(millis(500))).expect("valid");
    let mut stuck = ask(&service, Class::P2).await.into_body();
    let waiter = tokio::spawn(ask(&service, Class::P0));
    tokio::time::advance(millis(600)).await;
    let served = waiter.await.expect("no panic");
    assert_eq!(served.status(), 200, "the seat of the stuck one was taken away");
    assert_eq!((handle.snapshot().revoked_live, handle.snapshot().classes[2].overdue), (0, 1), "its body is gone too");
    let cut = stuck.frame().await.expect("a frame").expect_err("cut, so that it does not look complete");
    assert!(cut.to_string().contains("held its seat"));
    drop((served, stuck));
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn an_sla_picks_the_least_urgent_class_whose_predicted_wait_keeps_it() {
    let config = config(1, 50).expected_head(millis(350));
    let tiers = Tiers::new(Class::P3)
        .member(Principal::from_bytes("gold"), Class::P0)
        .member(Principal::from_bytes("silver"), Tier::new(Class::P0).sla(millis(4000)))
        .member(Principal::from_bytes("tight"), Tier::new(Class::P1).sla(millis(900)))
        .member(Principal::from_bytes("dream"), Tier::new(Class::P1).sla(millis(10)));
    let classifier = ByHeader::new("x-priority").within(tiers);
    let layer = PriorityLayer::builder().config(config).classify(classifier);
    let (layer, handle) = layer.build_with_handle().expect("valid");
    let service = layer.layer(OneFrame);
    let classes = |expected: [Class; 4]| {
        for (who, class, deadline) in [
            ("gold", Class::P0, None),
            ("silver", expected[0], Some(4000)),
            ("tight", expected[1], Some(900)),
            ("dream", expected[2], Some(10)),
            ("nobody", expected[3], None),
        ] {
            let mut request = Request::new(());
            request.extensions_mut().insert(Principal::from_bytes(who));
            handle.mark(&mut request);
            assert_eq!(request.extensions().get::<Class>(), Some(&class), "{who}");
            let left =
                request.extensions().get::<Deadline>().map(|deadline| deadline.remaining(Instant::now().into_std()));
            assert_eq!(left, deadline.map(millis), "{who}");
        }
    };
    // Nothing has been measured: the most urgent class that they may have.
    classes([Class::P0, Class::P1, Class::P1, Class::P3]);
    for _ in 0..32 {
        let answer = ask(&service, Class::P3).await;
        tokio::time::advance(millis(1000)).await;
        drop(answer);
    }
    // A second each, and no queue: the least urgent class keeps what can be kept.
    let held = ask(&service, Class::P3).await;
    classes([Class::P3, Class::P3, Class::P1, Class::P3]);
    // One waits in P2, three in P3: 1 s and 4 s; with P0 waiting too 2 s and 5 s, and 1 s for P0 itself.
    let spawn = |class| {
        let mut waiter = spawn(ask(&service, class));
        assert_pending!(waiter.poll());
        waiter
    };
    let waiting = [Class::P2, Class::P3, Class::P3, Class::P3].map(spawn);
    classes([Class::P2, Class::P1, Class::P1, Class::P3]);
    let urgent = spawn(Class::P0);
    classes([Class::P1, Class::P1, Class::P1, Class::P3]);
    drop((waiting, urgent));
    classes([Class::P3, Class::P3, Class::P1, Class::P3]);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_is_there_stays() {
    let tiers = Tiers::new(Class::P3).member(Principal::from_bytes("silver"), Tier::new(Class::P0).sla(millis(4000)));
    let (_, handle) = PriorityLayer::builder().classify(tiers).build_with_handle().expect("valid");
    let mut request = Request::new(());
    request.extensions_mut().insert(Principal::from_bytes("silver"));
    handle.mark(&mut request);
    tokio::time::advance(millis(3)).await;
    handle.mark(&mut request); // a second time, further in: nothing moves
    let left = request.extensions().get::<Deadline>().map(|deadline| deadline.remaining(Instant::now().into_std()));
    assert_eq!(left, Some(millis(3997)));
}

#[tokio::test]
async fn r12_trust_lets_a_wish_raise() {
    let classify = || ByHeader::new("x-priority").default_class(Class::P2);
    let internal = |head: &RequestHead<'_>| head.extensions.get::<u8>().is_some();
    for (trust, marked, class) in [
        (Trust::lower_only(), true, Class::P2),
        (Trust::always(), false, Class::P0),
        (Trust::when(internal), true, Class::P0),
        (Trust::when(internal), false, Class::P2),
    ] {
        let builder = PriorityLayer::builder().classify(classify()).trust(trust);
        let (_, handle) = builder.build_with_handle().expect("valid");
        let mut request = Request::new(());
        request.headers_mut().insert("x-priority", "p0".parse().expect("a value"));
        if marked {
            request.extensions_mut().insert(7_u8);
        }
        handle.mark(&mut request);
        assert_eq!(request.extensions().get::<Class>(), Some(&class));
        assert_eq!(request.headers()["x-priority"], class.as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_inside_and_what_comes_out() {
    let (layer, _) =
        PriorityLayer::builder().config(config(1, 4)).forward_deadline("x-left-ms").build_with_handle().expect("valid");
    let service = layer.layer(OneFrame);
    let held = ask(&service, Class::P1).await;
    assert!(held.extensions().get::<Counted>().is_some(), "balance does not count it again");
    assert_eq!(held.extensions().get::<Class>(), Some(&Class::P1));
    assert!(held.extensions().get::<QueueWait>().is_none() && held.extensions().get::<Admitted>().is_none());
    let mut waits = request(Class::P0);
    waits.extensions_mut().insert(Deadline::after(Instant::now().into_std(), millis(1000)));
    let mut waits = spawn(service.clone().oneshot(waits));
    assert_pending!(waits.poll());
    tokio::time::advance(millis(400)).await;
    drop(held);
    let answer = assert_ready!(waits.poll()).expect("infallible");
    assert_eq!(answer.extensions().get::<QueueWait>(), Some(&QueueWait(millis(400))));
    let admitted = answer.extensions().get::<Admitted>().expect("it waited");
    assert_eq!((admitted.class, admitted.waited), (Class::P0, millis(400)));
    assert_eq!(answer.headers()["x-left-ms"], "600");
}

#[tokio::test(start_paused = true)]
async fn r27_the_neutral_form_has_the_same_seats_and_queues() {
    let (service, handle) = house(config(2, 1));
    let admission = handle.admission();
    let held = ask(&service, Class::P1).await;
    let mut permit = admission.acquire(Ask::new(Class::P1)).await.expect("a seat");
    assert_eq!(admission.try_acquire(Ask::new(Class::P0)).expect_err("full").reason, Reason::Overloaded);
    let mut waits = spawn(admission.acquire(Ask::new(Class::P2)));
    assert_pending!(waits.poll());
    assert_eq!(reason(&ask(&service, Class::P2).await), Reason::QueueFull, "one queue for both forms");
    permit.first_output();
    drop(permit);
    let mut permit = assert_ready!(waits.poll()).expect("a seat");
    handle.set_limit(8);
    permit.resize(Seats::new(6));
    assert_eq!(handle.snapshot().classes[2].in_flight, 6);
    let mut next = spawn(admission.acquire(Ask::new(Class::P1).seats(Seats::new(3))));
    assert_pending!(next.poll());
    permit.resize(Seats::new(1));
    assert!(next.is_woken(), "what is given back passes on within the call");
    drop(assert_ready!(next.poll()));
    drop((permit, held));
    let late = Ask::new(Class::P1).deadline(Deadline::at(Instant::now().into_std()));
    assert_eq!(admission.acquire(late).await.expect_err("too late").reason, Reason::DeadlineExceeded);
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn r28_what_only_the_prefill_needs_passes_on_with_the_first_data() {
    let cost = |head: &RequestHead<'_>| {
        let long = head.headers.contains_key("x-long");
        if long { Seats::new(3).after_first_frame(1) } else { Seats::new(1).after_first_frame(5) }
    };
    let (layer, handle) = PriorityLayer::builder().config(config(4, 10)).cost(cost).build_with_handle().expect("valid");
    let stream = service_fn(|_: Request<()>| async {
        let steps = [Step::Data("".into()), Step::Data("a".into()), Step::Pending, Step::Data("b".into())];
        Ok::<_, Infallible>(Response::new(Scripted::new(steps)))
    });
    let service = layer.layer(stream);
    let long = || {
        let mut request = Request::new(());
        request.headers_mut().insert("x-long", HeaderValue::from_static("1"));
        request
    };
    let in_flight = || handle.snapshot().classes.iter().map(|class| class.in_flight).sum::<usize>();
    let mut first = pin!(service.clone().oneshot(long()).await.expect("an answer").into_body());
    assert_eq!(in_flight(), 3, "the head alone changes nothing");
    let mut second = spawn(service.clone().oneshot(long()));
    assert_pending!(second.poll());
    first.frame().await.expect("open").expect("an empty frame");
    assert_eq!((in_flight(), second.is_woken()), (3, false), "no data yet");
    first.frame().await.expect("open").expect("data");
    assert!(second.is_woken(), "passed on within the call");
    let mut second = pin!(assert_ready!(second.poll()).expect("an answer").into_body());
    assert_eq!(in_flight(), 1 + 3);
    first.frame().await.expect("open").expect("more data");
    assert_eq!(in_flight(), 1 + 3, "once");
    second.frame().await.expect("open").expect("an empty frame");
    second.frame().await.expect("open").expect("data");
    assert_eq!(in_flight(), 1 + 1);
    let mut short = pin!(service.clone().oneshot(Request::new(())).await.expect("an answer").into_body());
    short.frame().await.expect("open").expect("an empty frame");
    short.frame().await.expect("open").expect("data");
    assert_eq!(in_flight(), 1 + 1 + 1, "never more than before");
    assert!(first.frame().await.is_none());
    let mut permit = handle.admission().try_acquire(Ask::new(Class::P1).seats(Seats::new(2).after_first_frame(0)));
    permit.as_mut().expect("two are free").first_output();
    assert_eq!(in_flight(), 1 + 1 + 1, "the neutral form does so too");
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn r30_a_raise_moves_a_waiter_up_with_whoever_waits_for_the_same_answer() {
    let (service, handle) = house(config(1, 1));
    let classes = || handle.snapshot().classes.into_iter().map(|class| class.waiting).collect::<Vec<_>>();
    let held = ask(&service, Class::P0).await;
    let raise = Raise::new(Class::P3);
    let mut leader = request(Class::P3);
    leader.extensions_mut().insert(raise.clone());
    let mut leader = spawn(service.clone().oneshot(leader));
    assert_pending!(leader.poll());
    let mut other = spawn(ask(&service, Class::P2));
    assert_pending!(other.poll());
    raise.raise(Class::P1);
    assert!(leader.is_woken());
    assert_pending!(leader.poll());
    assert_eq!(classes(), [0, 1, 1, 0]);
    // The queue of P0 is full: it stays where it is, and tries again when it is woken.
    let mut urgent = spawn(ask(&service, Class::P0));
    assert_pending!(urgent.poll());
    raise.raise(Class::P0);
    assert_pending!(leader.poll());
    assert_eq!(classes(), [1, 1, 1, 0]);
    drop(urgent);
    assert_pending!(leader.poll());
    assert_eq!(classes(), [1, 0, 1, 0]);
    tokio::time::advance(millis(100)).await;
    drop(held);
    assert!(leader.is_woken() && !other.is_woken(), "before who came as P2");
    let first = assert_ready!(leader.poll()).expect("infallible");
    let admitted = first.extensions().get::<Admitted>().expect("it waited");
    assert_eq!((admitted.class, admitted.waited), (Class::P0, millis(100)), "since it came");
    drop(first);
    drop(assert_ready!(other.poll()));
    // From the rise on the timeout is that of the new class.
    let held = ask(&service, Class::P0).await;
    let raise = Raise::new(Class::P3);
    let mut late = spawn(handle.admission().acquire(Ask::new(Class::P3).raise(raise.clone())));
    assert_pending!(late.poll());
    tokio::time::advance(millis(2000)).await;
    raise.raise(Class::P0);
    assert_pending!(late.poll());
    tokio::time::advance(millis(500)).await;
    assert!(late.is_woken());
    let refused = assert_ready!(late.poll()).expect_err("its 500 ms are over");
    assert_eq!((refused.class, refused.reason), (Some(Class::P0), Reason::QueueTimeout));
    // Whoever has a seat is raised no more; nor is it a way to be less urgent.
    drop(held);
    let raise = Raise::new(Class::P3);
    let running = handle.admission().try_acquire(Ask::new(Class::P1).raise(raise.clone())).expect("it is free");
    raise.raise(Class::P0);
    assert_eq!(handle.snapshot().classes[1].in_flight, 1);
    drop(running);
    assert_idle(&handle);
}
