//! Dropped at any poll, the job exists or the client has no 202, and nothing is left behind.

mod kit;

use bytes::Bytes;
use forebay_core::{
    BoxError, DemandSource, Overflow, Reason, Rejection, ReqBody,
    testing::{Scripted, Spy, Step, cut_after},
};
use forebay_offload::{JobRouter, OffloadLayer, Worker, store::MemoryStore};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use kit::{queue, respond_async};
use tower::{Layer, ServiceExt, service_fn};

fn slow_body() -> Scripted {
    Scripted::new(vec![
        Step::Pending,
        Step::Data(Bytes::from_static(b"a")),
        Step::Pending,
        Step::Data(Bytes::from_static(b"b")),
        Step::Pending,
    ])
}

async fn slow_inner<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, BoxError> {
    tokio::task::yield_now().await;
    Ok(Response::new(Full::from("inline")))
}

#[tokio::test]
async fn an_exchange_cut_at_any_poll_leaves_nothing_or_a_whole_job() {
    for asked in [true, false] {
        for polls in 0.. {
            let queue = queue(MemoryStore::new());
            let (spy, seen) = Spy::new(service_fn(slow_inner::<ReqBody<Scripted>>));
            let service = OffloadLayer::new(queue.clone()).layer(spy);
            let mut request = Request::post("/").body(slow_body()).unwrap();
            if asked {
                request.headers_mut().insert("prefer", "respond-async".parse().unwrap());
            }
            let done = cut_after(polls, async {
                let response = service.oneshot(request).await.unwrap();
                let status = response.status();
                response.into_body().collect().await.unwrap();
                status
            })
            .await;
            assert_eq!(seen.lock().unwrap().in_flight, 0, "cut after {polls}");
            let jobs = queue.demand().total().queued;
            match done {
                None => assert!(jobs == 0 || asked, "cut after {polls}"),
                Some(status) => {
                    assert_eq!((status.as_u16(), jobs), if asked { (202, 1) } else { (200, 0) });
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn an_overflow_cut_at_any_poll_leaves_nothing_or_a_whole_job() {
    for polls in 0.. {
        let queue = queue(MemoryStore::new());
        let (_layer, handle) = OffloadLayer::builder(queue.clone()).build_with_handle().unwrap();
        let request = Request::post("/").body(slow_body()).unwrap();
        let hook = handle.overflow();
        let done = cut_after(polls, hook.overflow(request, Rejection::new(Reason::QueueFull))).await;
        assert!(queue.demand().total().queued <= 1);
        if let Some(answer) = done {
            assert_eq!(answer.unwrap().status(), 202);
            assert_eq!(queue.demand().total().queued, 1);
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_status_request_that_is_dropped_is_forgotten() {
    let queue = kit::builder(MemoryStore::new()).build().unwrap();
    let service = OffloadLayer::new(queue.clone()).layer(service_fn(slow_inner::<ReqBody<Full<Bytes>>>));
    let accepted = service.oneshot(respond_async("/", "x")).await.unwrap();
    let location = accepted.headers()["location"].to_str().unwrap().to_owned();
    let router = JobRouter::new(queue);
    for polls in 0..10 {
        let request = Request::get(&location).header("prefer", "wait=60").body(()).unwrap();
        assert!(cut_after(polls, router.clone().oneshot(request)).await.is_none());
    }
    // And one that is not dropped ends by itself.
    let started = tokio::time::Instant::now();
    let request = Request::get(&location).header("prefer", "wait=3600").body(()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["preference-applied"], "wait=60");
    assert_eq!(started.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_worker_cut_at_any_poll_leaves_jobs_that_another_runs() {
    for polls in 0..40 {
        let queue = queue(MemoryStore::new());
        let service = OffloadLayer::new(queue.clone()).layer(service_fn(slow_inner::<ReqBody<Full<Bytes>>>));
        for _ in 0..2 {
            service.clone().oneshot(respond_async("/", "x")).await.unwrap();
        }
        let worker = Worker::builder(queue.clone(), service_fn(slow_inner::<ReqBody>)).concurrency(2).build().unwrap();
        assert!(cut_after(polls, worker.run(std::future::pending())).await.is_none());
        kit::run_until_idle(&queue, service_fn(slow_inner::<ReqBody>)).await;
        let total = queue.demand().total();
        assert_eq!((total.queued, total.in_flight, total.done), (0, 0, 2), "cut after {polls}");
        assert_eq!(queue.stats().dead, 0);
    }
}
