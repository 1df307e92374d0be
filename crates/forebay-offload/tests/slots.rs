//! How a worker's slots are shared: hung jobs of one tenant, or of a less urgent class, never stop more urgent ones.

mod kit;

use std::time::Duration;

use bytes::Bytes;
use forebay_core::{BoxError, Class, Principal, ReqBody};
use forebay_offload::{
    JobOptions, JobQueue, Worker, WorkerBuilder,
    policy::{Cause, Enqueued, Job, JobClass, JobId, JobState},
    store::MemoryStore,
};
use http::{Request, Response};
use http_body_util::Full;
use kit::queue;
use tokio::{sync::watch, time::Instant};
use tower::Service;

const SECOND: Duration = Duration::from_secs(1);

/// Sends a job of a tenant; one to `/hang` never ends by itself.
async fn send(queue: &JobQueue, tenant: Option<&str>, class: Class, path: &str) -> JobId {
    let mut request = Request::post(path).body(Bytes::new()).unwrap();
    if let Some(tenant) = tenant {
        request.extensions_mut().insert(Principal::from_bytes(tenant));
    }
    match queue.enqueue(request, JobOptions::new().class(class).attempts(1)).await.unwrap() {
        Enqueued::New(job) => job.id,
        other => panic!("{other:?}"),
    }
}

async fn hang(queue: &JobQueue, tenant: Option<&str>, class: Class, jobs: usize) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..jobs {
        ids.push(send(queue, tenant, class, "/hang").await);
    }
    ids
}

/// Returns the job once it has ended, or as it is after `patience`.
async fn ended(queue: &JobQueue, id: JobId, patience: Duration) -> Job {
    queue.wait(id, patience).await.unwrap().unwrap()
}

/// Asserts that a job sent now has run a second from now.
async fn runs_within_a_second(queue: &JobQueue, tenant: &str, class: Class) {
    let sent = Instant::now();
    let id = send(queue, Some(tenant), class, "/x").await;
    let job = ended(queue, id, Duration::from_secs(3_600)).await;
    assert_eq!(job.state, JobState::Completed);
    assert!(sent.elapsed() <= SECOND, "a {class} job of {tenant} has run after {:?}", sent.elapsed());
}

/// A worker that runs, and the number of its hung jobs; gone with its runtime.
struct Running {
    hung: watch::Receiver<usize>,
}

impl Running {
    fn start(queue: &JobQueue, set: impl FnOnce(WorkerBuilder<Hang>) -> WorkerBuilder<Hang>) -> Self {
        let (started, hung) = watch::channel(0);
        let worker = set(Worker::builder(queue.clone(), Hang(started)).concurrency(16)).build().unwrap();
        tokio::spawn(worker.run(std::future::pending()));
        Self { hung }
    }

    /// Waits until so many jobs hang, then asserts that a minute brings no more.
    async fn hung(&mut self, jobs: usize) {
        let enough = tokio::time::timeout(60 * SECOND, self.hung.wait_for(|&hung| hung >= jobs)).await.is_ok();
        assert!(enough, "fewer than {jobs} jobs hang");
        let more = tokio::time::timeout(60 * SECOND, self.hung.wait_for(|&hung| hung != jobs)).await;
        let hung = more.map_or(jobs, |hung| *hung.unwrap());
        assert_eq!(hung, jobs, "jobs that hang");
    }
}

/// Answers at once, except at `/hang`: never.
#[derive(Clone)]
struct Hang(watch::Sender<usize>);

struct Hung(watch::Sender<usize>);

impl Drop for Hung {
    fn drop(&mut self) {
        self.0.send_modify(|hung| *hung -= 1);
    }
}

impl Service<Request<ReqBody>> for Hang {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let hangs = request.uri().path() == "/hang";
        let hung = self.0.clone();
        Box::pin(async move {
            if hangs {
                hung.send_modify(|hung| *hung += 1);
                let _hung = Hung(hung);
                std::future::pending::<()>().await;
            }
            Ok(Response::new(Full::default()))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn hung_jobs_of_one_tenant_leave_a_p0_job_of_another_its_slot() {
    let queue = queue(MemoryStore::new());
    hang(&queue, Some("joe"), Class::P3, 16).await;
    let mut worker = Running::start(&queue, |worker| worker);
    worker.hung(8).await;
    runs_within_a_second(&queue, "acme", Class::P0).await;
}

#[tokio::test(start_paused = true)]
async fn even_hung_jobs_of_p0_are_bounded_for_each_tenant() {
    let queue = queue(MemoryStore::new());
    hang(&queue, Some("joe"), Class::P0, 16).await;
    let mut worker = Running::start(&queue, |worker| worker);
    worker.hung(8).await;
    runs_within_a_second(&queue, "acme", Class::P0).await;
}

#[tokio::test(start_paused = true)]
async fn several_hostile_tenants_of_less_urgent_classes_leave_slots_to_the_more_urgent() {
    let queue = queue(MemoryStore::new());
    for tenant in ["joe", "eve", "mallory"] {
        hang(&queue, Some(tenant), Class::P3, 16).await;
    }
    let mut worker = Running::start(&queue, |worker| worker);
    worker.hung(10).await;
    runs_within_a_second(&queue, "acme", Class::P2).await;
    for tenant in ["trent", "oscar"] {
        hang(&queue, Some(tenant), Class::P2, 16).await;
    }
    worker.hung(12).await;
    runs_within_a_second(&queue, "acme", Class::P1).await;
    runs_within_a_second(&queue, "acme", Class::P0).await;
}

#[tokio::test(start_paused = true)]
async fn a_hung_tenants_further_jobs_wait_and_others_of_the_same_class_pass() {
    let queue = queue(MemoryStore::new());
    hang(&queue, Some("joe"), Class::P3, 8).await;
    let own = send(&queue, Some("joe"), Class::P3, "/x").await;
    let urgent = send(&queue, Some("joe"), Class::P0, "/hang").await;
    let mut worker = Running::start(&queue, |worker| worker);
    worker.hung(8).await;
    runs_within_a_second(&queue, "eve", Class::P3).await;
    assert_eq!(ended(&queue, own, 60 * SECOND).await.state, JobState::Ready);
    assert_eq!(ended(&queue, urgent, SECOND).await.state, JobState::Running, "the tenant's own most urgent came first");
}

#[tokio::test(start_paused = true)]
async fn the_slots_of_hung_attempts_come_back_when_their_class_times_out() {
    let mut settings = JobClass::of(Class::P3);
    settings.attempt_timeout = 600 * SECOND;
    let queue = kit::builder(MemoryStore::new()).class(Class::P3, settings).build().unwrap();
    let hung = hang(&queue, Some("joe"), Class::P3, 8).await;
    let own = send(&queue, Some("joe"), Class::P3, "/x").await;
    let sent = Instant::now();
    let mut worker = Running::start(&queue, |worker| worker);
    worker.hung(8).await;
    assert_eq!(ended(&queue, own, 3_600 * SECOND).await.state, JobState::Completed);
    assert_eq!(sent.elapsed().as_secs(), 600, "at once after the time-out");
    for id in hung {
        let job = ended(&queue, id, SECOND).await;
        assert_eq!((job.state, job.cause), (JobState::Failed, Some(Cause::Attempts)));
    }
    worker.hung(0).await;
    hang(&queue, Some("joe"), Class::P3, 16).await;
    worker.hung(8).await;
}

#[tokio::test(start_paused = true)]
async fn cancelled_jobs_give_their_slots_back() {
    let queue = queue(MemoryStore::new());
    let hung = hang(&queue, Some("joe"), Class::P3, 16).await;
    let mut worker = Running::start(&queue, |worker| worker);
    worker.hung(8).await;
    for id in &hung[..4] {
        queue.cancel(*id).await.unwrap();
    }
    assert_eq!(ended(&queue, hung[12], 60 * SECOND).await.state, JobState::Ready);
    for id in &hung[4..12] {
        assert_eq!(queue.status(*id).await.unwrap().unwrap().state, JobState::Running);
    }
    worker.hung(8).await;
}

#[tokio::test(start_paused = true)]
async fn jobs_without_an_owner_are_bounded_by_their_class_alone() {
    let queue = queue(MemoryStore::new());
    hang(&queue, None, Class::P3, 16).await;
    let mut worker = Running::start(&queue, |worker| worker);
    worker.hung(10).await;
    runs_within_a_second(&queue, "acme", Class::P0).await;
}

#[tokio::test(start_paused = true)]
async fn each_worker_keeps_to_its_own_slots() {
    let queue = queue(MemoryStore::new());
    hang(&queue, Some("joe"), Class::P0, 40).await;
    let (mut first, mut second) = (Running::start(&queue, |worker| worker), Running::start(&queue, |worker| worker));
    first.hung(8).await;
    second.hung(8).await;
    runs_within_a_second(&queue, "acme", Class::P0).await;
}

#[tokio::test(start_paused = true)]
async fn the_share_is_a_setting_and_the_only_class_of_a_worker_may_hold_all_slots() {
    for (share, classes, jobs) in [
        (1.0, &[Class::P3][..], 16),
        (0.2, &[Class::P3], 4), // 3.2, rounded up
        (1e-9, &[Class::P3], 1),
        (1.0, &[Class::P2, Class::P3], 14),
    ] {
        let queue = queue(MemoryStore::new());
        hang(&queue, Some("joe"), Class::P3, 20).await;
        let classes = classes.iter().copied();
        Running::start(&queue, |worker| worker.max_share(share).classes(classes)).hung(jobs).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_slot_is_for_any_job() {
    let queue = queue(MemoryStore::new());
    let id = send(&queue, Some("joe"), Class::new(15), "/x").await;
    Running::start(&queue, |worker| worker.concurrency(1));
    assert_eq!(ended(&queue, id, 60 * SECOND).await.state, JobState::Completed);
}

#[tokio::test(start_paused = true)]
async fn repeated_claims_of_lost_answers_keep_to_the_slots() {
    let queue = queue(kit::Faulty::new());
    hang(&queue, Some("joe"), Class::P3, 16).await;
    let mut worker = Running::start(&queue, |worker| worker);
    worker.hung(8).await;
    runs_within_a_second(&queue, "acme", Class::P0).await;
}

#[test]
fn a_share_out_of_range_is_a_problem() {
    for share in [0.0, -0.5, 1.01, f64::NAN, f64::INFINITY] {
        let queue = queue(MemoryStore::new());
        let error = Worker::builder(queue, ()).max_share(share).concurrency(0).build().unwrap_err();
        assert_eq!(error.problems().len(), 2, "{error}");
        assert!(error.to_string().contains("max_share"), "{error}");
    }
}
