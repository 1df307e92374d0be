//! Clients that do not read what they asked for: over the shared HTTP/2 connection they hold up nobody else.

use axum::Router;
use axum::routing::get as on_get;
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

mod http_kit;
use http_kit::{balance, get, idle, soon};

#[tokio::test]
async fn those_who_do_not_read_hold_up_nobody_else() {
    const LONG: usize = 8 << 20;
    let app = Router::new()
        .route("/long", on_get(|| async { vec![0_u8; LONG] }))
        .route("/short", on_get(|| async { vec![0_u8; 100_000] }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async { axum::serve(listener, app).await });
    let (balance, handle) = balance(&[(&url, 1)], true);
    let mut unread = Vec::new();
    for _ in 0..100 {
        unread.push(soon(balance.clone().oneshot(get("/long"))).await.expect("a head"));
        // After each one: a connection's window may be full already.
        let response = soon(balance.clone().oneshot(get("/short"))).await.expect("a head");
        assert_eq!(soon(response.into_body().collect()).await.expect("whole").to_bytes().len(), 100_000);
    }
    // Whoever reads after all gets all of it.
    let late = unread.pop().expect("a hundred").into_body();
    assert_eq!(soon(late.collect()).await.expect("whole").to_bytes().len(), LONG);
    drop(unread);
    idle(&handle).await;
}
