//! Takes a long request in at once, runs it later, and keeps the answer.
//!
//! Run it with `cargo run -p forebay-examples --example offload`, then ask, and come back with the job's URL:
//!
//! ```text
//! $ curl -si -X POST http://127.0.0.1:3000/report -H 'prefer: respond-async' | grep -e HTTP -e location
//! HTTP/1.1 202 Accepted
//! location: /jobs/01a2…?token=7c9e…
//! $ curl -s 'http://127.0.0.1:3000/jobs/01a2…?token=7c9e…'
//! {"attempt":1,"class":"P3","created_at":"…","state":"running",…}
//! $ curl -s 'http://127.0.0.1:3000/jobs/01a2…/result?token=7c9e…' -H 'prefer: wait=30'
//! the report
//! ```
//!
//! Without `prefer` the report comes on the connection, 10 s later. Jobs are in a file: ask, stop the program with
//! Ctrl-C or `kill -9`, start it again, and the answer is there or comes.

use std::time::Duration;

use axum::{Router, routing::post};
use forebay_offload::{JobQueue, JobRouter, OffloadLayer, Worker, redb::RedbStore, store::JobStore};

fn app(store: impl JobStore) -> Result<(Router, Worker<Router>), Box<dyn std::error::Error>> {
    let queue = JobQueue::builder(store, "reports").path("/jobs").build()?;
    let report = || async {
        tokio::time::sleep(Duration::from_secs(10)).await; // the slow backend
        "the report\n"
    };
    let api = Router::new().route("/report", post(report));
    let worker = Worker::builder(queue.clone(), api.clone()).concurrency(2).build()?;
    Ok((api.layer(OffloadLayer::new(queue.clone())).nest_service("/jobs", JobRouter::new(queue)), worker))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::temp_dir().join("forebay-example-jobs.redb");
    let (app, worker) = app(RedbStore::open(&file).await?)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}, jobs in {}", listener.local_addr()?, file.display());

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = tokio::spawn(worker.run(async { _ = stopped.await }));
    let interrupt = async { _ = tokio::signal::ctrl_c().await };
    axum::serve(listener, app).with_graceful_shutdown(interrupt).await?;
    drop(stop); // after the server: a client that still waits for its job waits for the worker
    println!("{:?}", worker.await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http::Request};
    use forebay_offload::store::MemoryStore;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn get(app: &Router, uri: &str, prefer: &str) -> (u16, String) {
        let request = Request::get(uri).header("prefer", prefer).body(Body::empty()).expect("valid");
        let response = app.clone().oneshot(request).await.expect("infallible");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_taken_in_run_later_and_its_answer_kept() {
        let (app, worker) = app(MemoryStore::new()).expect("valid");
        let start = tokio::time::Instant::now();
        let request = Request::post("/report").header("prefer", "respond-async").body(Body::empty()).expect("valid");
        let accepted = app.clone().oneshot(request).await.expect("infallible");
        assert_eq!(accepted.status(), 202);
        assert!(start.elapsed().is_zero(), "nobody waits for the backend");

        let job = accepted.headers()["location"].to_str().expect("text");
        let result = job.replace('?', "/result?");
        let (status, document) = get(&app, job, "").await;
        assert_eq!(status, 200);
        assert!(document.contains(r#""state":"queued""#), "{document}");
        assert_eq!(get(&app, &result, "").await.0, 202, "not yet");
        let without_token = job.split('?').next().expect("a path");
        assert_eq!(get(&app, without_token, "").await.0, 404, "it is nobody else's");

        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let worker = tokio::spawn(worker.run(async { _ = stopped.await }));
        assert_eq!(get(&app, &result, "wait=30").await, (200, "the report\n".to_owned()));
        assert!(start.elapsed() >= Duration::from_secs(10), "the backend has taken its time");

        drop(stop);
        let done = worker.await.expect("no panic");
        assert_eq!((done.completed, done.retried + done.released + done.lost), (1, 0));
        assert_eq!(get(&app, &result, "").await.1, "the report\n", "kept, also without the worker");
    }
}
