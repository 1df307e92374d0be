//! Jobs in a file: what was confirmed is there after any end, one process at a time, a corrupt record fails alone.
#![cfg(feature = "redb")]

mod kit;

use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use forebay_core::{BoxError, Class, DemandSource, Principal, ReqBody};
use forebay_offload::{
    JobOptions, JobQueue,
    policy::{Cause, Claim, Enqueued, Job, JobId, JobState, Settled, Verdict},
    redb::RedbStore,
    store::{JobStore, StoreErrorKind},
};
use http::{Request, Response};
use http_body_util::Full;
use kit::queue;
use redb::{ReadableTable, TableDefinition};
use tower::service_fn;

const FILE_OF_CHILD: &str = "FOREBAY_OFFLOAD_TEST_FILE";

fn file() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.redb");
    (dir, path)
}

async fn open(path: &Path) -> JobQueue {
    queue(RedbStore::open(path).await.unwrap())
}

async fn enqueue(queue: &JobQueue, body: impl Into<Bytes>) -> Job {
    let mut request = Request::post("/v1/x?q=1").header("x-kept", "1").body(body.into()).unwrap();
    request.extensions_mut().insert(Principal::from_bytes("alice"));
    match queue.enqueue(request, JobOptions::new()).await.unwrap() {
        Enqueued::New(job) => job,
        other => panic!("{other:?}"),
    }
}

fn echo()
-> impl tower::Service<Request<ReqBody>, Response = Response<ReqBody>, Error = BoxError, Future: Send> + Clone + Send {
    service_fn(|request: Request<ReqBody>| async { Ok::<_, BoxError>(Response::new(request.into_body())) })
}

#[tokio::test]
async fn jobs_results_keys_and_secrets_outlive_the_process() {
    let (_dir, path) = file();
    let (done, waiting, location) = {
        let queue = open(&path).await;
        let done = enqueue(&queue, "first").await;
        assert_eq!(kit::run_until_idle(&queue, echo()).await.completed, 1);
        let free = Request::post("/").body(Bytes::new()).unwrap();
        let Enqueued::New(free) =
            queue.enqueue(free, JobOptions::new().key("k").delay(Duration::from_secs(3_600))).await.unwrap()
        else {
            panic!()
        };
        let location = queue.location(&free).await.unwrap();
        (done, free, location)
    };
    let queue = open(&path).await;
    assert_eq!(queue.demand()[Class::P3].queued, 1);
    let ended = queue.status(done.id).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.attempts), (JobState::Completed, 1));
    assert_eq!(queue.result(done.id).await.unwrap().unwrap().body, "first");
    assert_eq!(queue.status(waiting.id).await.unwrap(), Some(waiting));
    assert_eq!(queue.location(&waiting).await.unwrap(), location);
    let again = Request::post("/").body(Bytes::new()).unwrap();
    let again = queue.enqueue(again, JobOptions::new().key("k")).await.unwrap();
    assert_eq!(again, Enqueued::Existing(waiting));
}

#[tokio::test]
async fn at_reopening_leases_are_lost_and_each_counts_a_crash() {
    let (_dir, path) = file();
    let store = RedbStore::open(&path).await.unwrap();
    let queue = queue(store.clone());
    let made = enqueue(&queue, "x").await;
    let claimed = store.claim("test", &Claim::new(1, 1)).await.unwrap();
    assert_eq!(claimed.jobs[0].request.body, "x");
    let token = claimed.jobs[0].job.token;
    drop((queue, store));

    let store = RedbStore::open(&path).await.unwrap();
    let job = store.get("test", made.id).await.unwrap().unwrap();
    assert_eq!((job.state, job.attempts, job.crashes), (JobState::Ready, 1, 1));
    let claimed = store.claim("test", &Claim::new(2, 1)).await.unwrap();
    assert!(claimed.jobs[0].job.token > token, "tokens grow across processes");
}

#[tokio::test]
async fn a_claim_keeps_to_its_room_after_reopening_too() {
    let (_dir, path) = file();
    let store = RedbStore::open(&path).await.unwrap();
    let queue = queue(store.clone());
    let [first, second] = [enqueue(&queue, "x").await, enqueue(&queue, "y").await];
    let free = Request::post("/").body(Bytes::new()).unwrap();
    let Enqueued::New(free) = queue.enqueue(free, JobOptions::new()).await.unwrap() else { panic!() };
    drop((queue, store));

    let store = RedbStore::open(&path).await.unwrap();
    let mut ask = Claim::new(1, 10);
    (ask.max_per_owner, ask.held) = (2, vec![(first.owner, 1)]);
    let claimed = store.claim("test", &ask).await.unwrap();
    let ids: Vec<_> = claimed.jobs.iter().map(|leased| leased.job.id).collect();
    assert_eq!((ids, claimed.more), (vec![first.id, free.id], true));
    let again = store.claim("test", &ask).await.unwrap();
    assert_eq!(again.jobs.len(), 2, "a repeated claim has the same answer");
    (ask.nonce, ask.room[Class::P3.index()]) = (2, 0);
    ask.held.clear();
    assert!(store.claim("test", &ask).await.unwrap().jobs.is_empty());
    ask.room[Class::P3.index()] = 1;
    assert_eq!(store.claim("test", &ask).await.unwrap().jobs[0].job.id, second.id);
}

#[tokio::test]
async fn a_second_opener_is_told_so() {
    let (_dir, path) = file();
    let first = RedbStore::open(&path).await.unwrap();
    let error = RedbStore::open(&path).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InUse);
    assert!(error.to_string().contains("jobs.redb"), "{error}");
    drop(first);
    RedbStore::open(&path).await.unwrap();
}

/// Flips a bit in the middle of a record, behind the store's back.
fn corrupt(path: &Path, table: &str, id: JobId) {
    let db = redb::Database::open(path).unwrap();
    let txn = db.begin_write().unwrap();
    {
        let table: TableDefinition<'_, (&str, u128), &[u8]> = TableDefinition::new(table);
        let mut table = txn.open_table(table).unwrap();
        let mut record = table.get(("test", id.as_u128())).unwrap().unwrap().value().to_vec();
        let middle = record.len() / 2;
        record[middle] ^= 1;
        table.insert(("test", id.as_u128()), &record[..]).unwrap();
    }
    txn.commit().unwrap();
}

#[tokio::test]
async fn a_corrupt_record_fails_its_job_and_no_other() {
    for table in ["jobs", "requests"] {
        let (_dir, path) = file();
        let (bad, good) = {
            let queue = open(&path).await;
            (enqueue(&queue, "bad").await, enqueue(&queue, "good").await)
        };
        corrupt(&path, table, bad.id);
        let queue = open(&path).await;
        let summary = kit::run_until_idle(&queue, echo()).await;
        assert_eq!(summary.completed, 1, "{table}");
        assert_eq!(queue.status(good.id).await.unwrap().unwrap().state, JobState::Completed);
        let failed = queue.status(bad.id).await.unwrap().unwrap();
        assert_eq!((failed.state, failed.cause), (JobState::Failed, Some(Cause::Corrupt)), "{table}");
        assert_eq!(failed.owner, bad.owner, "it stays its owner's");
    }
    let (_dir, path) = file();
    let made = {
        let queue = open(&path).await;
        let made = enqueue(&queue, "x").await;
        kit::run_until_idle(&queue, echo()).await;
        made
    };
    corrupt(&path, "responses", made.id);
    let error = open(&path).await.result(made.id).await.unwrap_err();
    let forebay_offload::QueueError::Store(error) = error else { panic!("{error}") };
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn what_is_over_leaves_the_file() {
    let (_dir, path) = file();
    let made = {
        let queue = open(&path).await;
        let made = enqueue(&queue, "x").await;
        let cancelled = enqueue(&queue, "y").await;
        queue.cancel(cancelled.id).await.unwrap();
        assert_eq!(queue.erase(cancelled.id).await.unwrap(), forebay_offload::policy::Erased::Done);
        kit::run_until_idle(&queue, echo()).await;
        queue.erase(made.id).await.unwrap();
        assert_eq!(queue.stats().stored_bytes, 0);
        made
    };
    let db = redb::Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    for table in ["jobs", "requests", "responses"] {
        let table: TableDefinition<'_, (&str, u128), &[u8]> = TableDefinition::new(table);
        assert_eq!(txn.open_table(table).unwrap().iter().unwrap().count(), 0, "{table} {}", made.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_commits_and_each_job_has_one_end() {
    let (_dir, path) = file();
    let store = RedbStore::open(&path).await.unwrap();
    let queue = queue(store.clone());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let queue = queue.clone();
        tasks.spawn(async move { enqueue(&queue, format!("{n}")).await.id });
    }
    let made: HashSet<JobId> = tasks.join_all().await.into_iter().collect();
    assert_eq!(made.len(), 200);
    let claimed = store.claim("test", &Claim::new(1, 200)).await.unwrap();
    assert_eq!(claimed.jobs.len(), 200);
    let repeated = store.claim("test", &Claim::new(1, 200)).await.unwrap();
    assert_eq!(repeated.jobs.len(), 200, "the same claim, not a new one");
    let job = claimed.jobs[0].job;
    let (first, second) = tokio::join!(settle(&store, &job, 200), settle(&store, &job, 404));
    assert_eq!((first, second), (Settled::Done(JobState::Completed), Settled::Done(JobState::Completed)));
    let kept = store.get("test", job.id).await.unwrap().unwrap();
    assert_eq!(kept.http_status, Some(200), "the first word counts");
}

async fn settle(store: &RedbStore, job: &Job, http_status: u16) -> Settled {
    let verdict = Verdict::Complete { http_status, bytes: 0 };
    let end = forebay_offload::store::Settle::new(job, verdict);
    store.settle("test", &[end]).await.unwrap()[0]
}

#[tokio::test]
async fn every_confirmed_job_survives_a_kill() {
    for round in 0..3 {
        let (_dir, path) = file();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "helper_process", "--nocapture", "--test-threads=1"])
            .env(FILE_OF_CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut confirmed = Vec::new();
        while confirmed.len() < 20 + round * 7 {
            let line = lines.next().expect("the helper goes on until killed").unwrap();
            confirmed.extend(line.strip_prefix("confirmed ").map(|id| id.parse::<JobId>().unwrap()));
        }
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        // What it had said before it died counts as well.
        confirmed.extend(
            lines
                .map_while(Result::ok)
                .filter_map(|line| line.strip_prefix("confirmed ").and_then(|id| id.parse::<JobId>().ok())),
        );
        let queue = open(&path).await;
        for id in &confirmed {
            let job = queue.status(*id).await.unwrap().expect("a confirmed job is lost");
            assert_eq!(job.state, JobState::Ready);
        }
        let summary = kit::run_until_idle(
            &queue,
            service_fn(|_: Request<ReqBody>| async { Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("done"))) }),
        )
        .await;
        assert!(summary.completed >= confirmed.len() as u64);
    }
}

/// Not a test by itself: the process that is killed.
#[test]
fn helper_process() {
    let Ok(path) = std::env::var(FILE_OF_CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let queue = open(Path::new(&path)).await;
        // `println!` of a test goes to the harness; `writeln!` to standard output goes out at once.
        use std::io::Write;
        loop {
            let job = enqueue(&queue, "x").await;
            writeln!(std::io::stdout(), "\nconfirmed {}", job.id).unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a rate; run it with --release --nocapture"]
async fn enqueue_rate() {
    let (_dir, path) = file();
    let queue = open(&path).await;
    const JOBS: u32 = 6_400;
    for producers in [1, 64] {
        let started = tokio::time::Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..producers {
            let queue = queue.clone();
            tasks.spawn(async move {
                for _ in 0..(JOBS / producers) {
                    enqueue(&queue, vec![b'x'; 256]).await;
                }
            });
        }
        tasks.join_all().await;
        let rate = f64::from(JOBS) / started.elapsed().as_secs_f64();
        println!("{producers} producers: {rate:.0} jobs/s");
    }
}
