//! What a worker does when runs go wrong: retries, refusals, panics, lost leases, a lost store, a shutdown.

mod kit;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use forebay_core::{
    AffinityKey, BoxError, Class, Demand, DemandSource, Offloaded, Principal, Reason, Rejection, ReqBody,
};
use forebay_offload::{
    Decision, JobContext, JobOptions, JobQueue, Worker,
    policy::{Cause, Enqueued, Job, JobState},
    store::MemoryStore,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use kit::queue;
use tokio::sync::{Notify, oneshot};
use tower::service_fn;

type Answer = Result<Response<Full<Bytes>>, BoxError>;

fn answer(status: u16) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from("answer")).unwrap()
}

async fn enqueue(queue: &JobQueue, options: JobOptions) -> Job {
    let request = Request::post("/v1/x").body(Bytes::from("body")).unwrap();
    match queue.enqueue(request, options).await.unwrap() {
        Enqueued::New(job) => job,
        other => panic!("{other:?}"),
    }
}

async fn job(queue: &JobQueue, id: forebay_offload::policy::JobId) -> Job {
    queue.status(id).await.unwrap().unwrap()
}

/// Answers with these statuses in turn, the last for ever.
fn script(
    statuses: &[u16],
) -> impl tower::Service<Request<ReqBody>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ use<> {
    let statuses = Arc::new(Mutex::new(statuses.iter().copied().collect::<VecDeque<_>>()));
    service_fn(move |_: Request<ReqBody>| {
        let mut statuses = statuses.lock().unwrap();
        let status = if statuses.len() > 1 { statuses.pop_front().unwrap() } else { statuses[0] };
        async move { Answer::Ok(answer(status)) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_run_gets_the_request_as_it_was_with_what_a_job_adds() {
    let queue = queue(MemoryStore::new());
    let mut request = Request::put("/v1/x?q=1")
        .header("authorization", "secret")
        .header("accept", "text/plain")
        .header("forebay-job-token", "99")
        .body(Bytes::from("body"))
        .unwrap();
    request.extensions_mut().insert(Principal::from_bytes("alice"));
    request.extensions_mut().insert(AffinityKey(7));
    request.extensions_mut().insert(Class::P1);
    let Enqueued::New(made) = queue.enqueue(request, JobOptions::new()).await.unwrap() else { panic!() };
    let check = service_fn(move |request: Request<ReqBody>| async move {
        let (parts, body) = request.into_parts();
        let context = parts.extensions.get::<JobContext>().unwrap();
        assert_eq!((context.id(), context.attempt(), context.is_cancelled()), (made.id, 1, false));
        assert!(parts.extensions.get::<Offloaded>().is_some());
        assert_eq!(parts.extensions.get::<Class>(), Some(&Class::P1));
        assert_eq!(parts.extensions.get::<Principal>(), Some(&Principal::from_bytes("alice")));
        assert_eq!(parts.extensions.get::<AffinityKey>().unwrap().0, 7);
        assert_eq!((parts.method.as_str(), parts.uri.to_string().as_str()), ("PUT", "/v1/x?q=1"));
        let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("authorization"), None);
        assert_eq!(header("accept").as_deref(), Some("text/plain"));
        assert_eq!(header("forebay-job-id"), Some(made.id.to_string()));
        assert_eq!(header("forebay-job-attempt").as_deref(), Some("1"));
        assert_eq!(header("forebay-job-token"), Some(context.token().to_string()));
        assert_eq!(header("idempotency-key"), Some(format!("\"{}\"", made.id)));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "body");
        Answer::Ok(answer(200))
    });
    let summary = kit::run_until_idle(&queue, check).await;
    assert_eq!(summary.completed, 1);
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_retried_and_counts() {
    let queue = queue(MemoryStore::new());
    let made = enqueue(&queue, JobOptions::new()).await;
    let summary = kit::run_until_idle(&queue, script(&[503, 429, 200])).await;
    assert_eq!((summary.retried, summary.completed), (2, 1));
    let ended = job(&queue, made.id).await;
    assert_eq!((ended.state, ended.attempts, ended.http_status), (JobState::Completed, 3, Some(200)));
}

#[tokio::test(start_paused = true)]
async fn attempts_end_and_the_failed_job_keeps_its_last_answer_and_can_be_requeued() {
    let queue = queue(MemoryStore::new());
    let made = enqueue(&queue, JobOptions::new().attempts(2)).await;
    let summary = kit::run_until_idle(&queue, script(&[500])).await;
    assert_eq!((summary.retried, summary.failed), (1, 1));
    let failed = job(&queue, made.id).await;
    assert_eq!((failed.state, failed.cause), (JobState::Failed, Some(Cause::Attempts)));
    assert_eq!(queue.result(made.id).await.unwrap().unwrap().status, 500);
    assert!(queue.requeue(made.id).await.unwrap().is_some());
    assert_eq!(kit::run_until_idle(&queue, script(&[200])).await.completed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_no_attempt() {
    let queue = queue(MemoryStore::new());
    let made = enqueue(&queue, JobOptions::new().attempts(1)).await;
    let refusals = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&refusals);
    let refuse = service_fn(move |_: Request<ReqBody>| {
        let n = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            if n >= 20 {
                return Answer::Ok(answer(200));
            }
            let refused = Rejection::new(Reason::QueueFull).retry_after(Duration::from_secs(2)).into_response();
            Ok(refused.map(Full::new))
        }
    });
    let started = tokio::time::Instant::now();
    let summary = kit::run_until_idle(&queue, refuse).await;
    assert_eq!((summary.released, summary.completed), (20, 1));
    assert_eq!(job(&queue, made.id).await.attempts, 1);
    assert!(started.elapsed() >= Duration::from_secs(40), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_crash_and_two_are_survived() {
    let queue = queue(MemoryStore::new());
    let made = enqueue(&queue, JobOptions::new()).await;
    let other = enqueue(&queue, JobOptions::new()).await;
    let id = made.id;
    let fragile = service_fn(move |request: Request<ReqBody>| async move {
        assert_ne!(request.extensions().get::<JobContext>().unwrap().id(), id, "a panic on purpose");
        Answer::Ok(answer(200))
    });
    let summary = kit::run_until_idle(&queue, fragile).await;
    assert_eq!((summary.crashed, summary.completed), (3, 1));
    let failed = job(&queue, made.id).await;
    assert_eq!((failed.state, failed.cause, failed.crashes), (JobState::Failed, Some(Cause::Crashes), 3));
    assert_eq!(job(&queue, other.id).await.state, JobState::Completed);
}

#[tokio::test(start_paused = true)]
async fn errors_timeouts_and_large_answers_are_judged() {
    let queue = kit::builder(MemoryStore::new()).max_result(3).build().unwrap();
    let large = enqueue(&queue, JobOptions::new()).await;
    kit::run_until_idle(&queue, script(&[200])).await;
    assert_eq!(job(&queue, large.id).await.cause, Some(Cause::TooLarge));

    let stuck = enqueue(&queue, JobOptions::new().attempts(1).timeout(Duration::from_secs(60))).await;
    let never = service_fn(|_: Request<ReqBody>| std::future::pending::<Answer>());
    kit::run_until_idle(&queue, never).await;
    let stuck = job(&queue, stuck.id).await;
    assert_eq!((stuck.state, stuck.ended.unwrap() - stuck.started.unwrap()), (JobState::Failed, 60_000));

    let broken = enqueue(&queue, JobOptions::new().attempts(1)).await;
    let fails = service_fn(|_: Request<ReqBody>| async { Answer::Err("no".into()) });
    kit::run_until_idle(&queue, fails).await;
    assert_eq!(job(&queue, broken.id).await.cause, Some(Cause::Attempts));
}

#[tokio::test(start_paused = true)]
async fn the_verdict_can_be_the_users() {
    let queue = queue(MemoryStore::new());
    let made = enqueue(&queue, JobOptions::new()).await;
    let watched = queue.clone();
    let worker = Worker::builder(queue.clone(), script(&[404])).verdict(|_| Decision::Fail).build().unwrap();
    assert_eq!(worker.run(async move { kit::idle(&watched).await }).await.failed, 1);
    assert_eq!(job(&queue, made.id).await.cause, Some(Cause::Refused));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_is_dropped_within_a_renewal() {
    let queue = queue(MemoryStore::new());
    let made = enqueue(&queue, JobOptions::new()).await;
    let (started, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let service = {
        let (started, dropped) = (Arc::clone(&started), Arc::clone(&dropped));
        service_fn(move |_: Request<ReqBody>| {
            let (started, guard) = (Arc::clone(&started), Tell(Arc::clone(&dropped)));
            async move {
                let _guard = guard;
                started.notify_one();
                std::future::pending::<Answer>().await
            }
        })
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = Worker::builder(queue.clone(), service).build().unwrap();
    let worker = tokio::spawn(worker.run(async { _ = stopped.await }));
    started.notified().await;
    let at = tokio::time::Instant::now();
    queue.cancel(made.id).await.unwrap();
    dropped.notified().await;
    assert!(at.elapsed() <= Duration::from_secs(1), "{:?}", at.elapsed());
    drop(stop);
    assert_eq!(worker.await.unwrap().lost, 1);
    assert_eq!(job(&queue, made.id).await.state, JobState::Cancelled);
}

struct Tell(Arc<Notify>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_run_keeps_its_lease_and_a_dead_worker_loses_it() {
    let queue = queue(MemoryStore::new());
    let made = enqueue(&queue, JobOptions::new()).await;
    let slow = service_fn(|_: Request<ReqBody>| async {
        tokio::time::sleep(Duration::from_secs(120)).await;
        Answer::Ok(answer(200))
    });
    assert_eq!(kit::run_until_idle(&queue, slow).await.completed, 1);
    assert_eq!(job(&queue, made.id).await.crashes, 0);

    let made = enqueue(&queue, JobOptions::new()).await;
    let dead = Worker::builder(queue.clone(), slow).build().unwrap();
    let cut = tokio::time::timeout(Duration::from_secs(3), dead.run(std::future::pending())).await;
    assert!(cut.is_err());
    let at = tokio::time::Instant::now();
    assert_eq!(kit::run_until_idle(&queue, script(&[200])).await.completed, 1);
    assert!(at.elapsed() <= Duration::from_secs(11), "{:?}", at.elapsed());
    let ended = job(&queue, made.id).await;
    assert_eq!((ended.state, ended.crashes, ended.attempts), (JobState::Completed, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_it_can_and_gives_the_rest_back() {
    let queue = queue(MemoryStore::new());
    let quick = enqueue(&queue, JobOptions::new()).await;
    let endless = enqueue(&queue, JobOptions::new()).await;
    let quick_id = quick.id;
    let service = service_fn(move |request: Request<ReqBody>| async move {
        if request.extensions().get::<JobContext>().unwrap().id() != quick_id {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        Answer::Ok(answer(200))
    });
    let both = Worker::builder(queue.clone(), service).concurrency(2).classes([Class::P3]).max_share(1.0);
    let worker = both.build().unwrap();
    let at = tokio::time::Instant::now();
    let summary = worker.run(tokio::time::sleep(Duration::from_secs(2))).await;
    assert_eq!((summary.completed, summary.released), (1, 1));
    assert_eq!(at.elapsed().as_secs(), 32);
    assert_eq!(job(&queue, quick.id).await.state, JobState::Completed);
    let back = job(&queue, endless.id).await;
    assert_eq!((back.state, back.attempts, back.crashes), (JobState::Ready, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_store_error_ends_a_worker() {
    let worker = Worker::builder(queue(kit::Down), script(&[200])).build().unwrap();
    let summary = worker.run(tokio::time::sleep(Duration::from_secs(60))).await;
    assert_eq!(summary, Default::default());
}

#[tokio::test(start_paused = true)]
async fn answers_of_the_store_that_get_lost_cost_no_job_and_no_attempt() {
    let queue = queue(kit::Faulty::new());
    let mut made = Vec::new();
    for _ in 0..6 {
        made.push(enqueue(&queue, JobOptions::new()).await.id);
    }
    let summary = kit::run_until_idle(&queue, script(&[200])).await;
    for id in made {
        let ended = job(&queue, id).await;
        assert_eq!((ended.state, ended.attempts, ended.crashes), (JobState::Completed, 1, 0));
    }
    assert_eq!((summary.completed, summary.lost), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn jobs_yield_to_requests_of_their_class_and_above() {
    #[derive(Clone, Default)]
    struct Busy(Arc<Mutex<Demand>>);
    impl DemandSource for Busy {
        fn demand(&self) -> Demand {
            *self.0.lock().unwrap()
        }
    }
    let queue = queue(MemoryStore::new());
    let urgent = enqueue(&queue, JobOptions::new().class(Class::P0)).await;
    let patient = enqueue(&queue, JobOptions::new().class(Class::P2)).await;
    let busy = Busy::default();
    busy.0.lock().unwrap().classes[1].queued = 1;
    let (watched, freed, id) = (queue.clone(), busy.clone(), patient.id);
    let worker = Worker::builder(queue.clone(), script(&[200])).concurrency(2).yield_to(busy).build().unwrap();
    let shutdown = async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(job(&watched, urgent.id).await.state, JobState::Completed);
        assert_eq!(job(&watched, id).await.state, JobState::Ready);
        freed.0.lock().unwrap().classes[1].queued = 0;
        kit::idle(&watched).await;
    };
    assert_eq!(worker.run(shutdown).await.completed, 2);
}

#[tokio::test(start_paused = true)]
async fn an_expired_job_is_never_started() {
    let queue = queue(MemoryStore::new());
    let made = enqueue(&queue, JobOptions::new().expires_after(Duration::from_secs(1))).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(kit::run_until_idle(&queue, script(&[200])).await, Default::default());
    assert_eq!(job(&queue, made.id).await.state, JobState::Expired);
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_notices_a_job_at_once() {
    let queue = queue(MemoryStore::new());
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = Worker::builder(queue.clone(), script(&[200])).build().unwrap();
    let worker = tokio::spawn(worker.run(async { _ = stopped.await }));
    tokio::time::sleep(Duration::from_millis(10_300)).await;
    let at = tokio::time::Instant::now();
    let made = enqueue(&queue, JobOptions::new()).await;
    let ended = queue.wait(made.id, Duration::from_secs(60)).await.unwrap().unwrap();
    assert_eq!(ended.state, JobState::Completed);
    assert!(at.elapsed() < Duration::from_millis(5), "{:?}", at.elapsed());
    drop(stop);
    worker.await.unwrap();
}
