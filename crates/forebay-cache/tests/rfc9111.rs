//! Plain GET and HEAD: freshness on a paused clock, directives of both sides, variants, invalidation.
#![cfg(feature = "moka")]

mod kit;

use std::time::Duration;

use http::Method;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use kit::{Kit, get, kit, reply, text, with};

fn counting(control: &'static str) -> Kit {
    kit(move |n, _| text(&[("cache-control", control)], n.to_string()))
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_given_again_until_it_is_stale() {
    let kit = counting("max-age=10");
    assert_eq!(kit.ask(get("/a", &[])).await, ("0".into(), "forebay; fwd=uri-miss; stored".into()));
    tokio::time::advance(Duration::from_millis(8500)).await;
    let hit = kit.head(get("/a", &[])).await;
    assert_eq!(
        (&hit.headers()["age"], &hit.headers()["content-length"]),
        (&"8".parse().unwrap(), &"1".parse().unwrap())
    );
    assert_eq!(hit.headers()["cache-status"], "forebay; hit; ttl=1; detail=memory");
    assert_eq!(hit.into_body().size_hint().exact(), Some(1));
    assert_eq!(kit.ask(get("/a", &[("cache-control", "max-age=5")])).await.1, "forebay; fwd=request; stored");
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(kit.ask(get("/a", &[])).await, ("2".into(), "forebay; fwd=stale; stored".into()));
    assert_eq!(kit.handle.snapshot().hits, 1);
}

#[tokio::test]
async fn requests_may_insist() {
    let kit = counting("max-age=10");
    let missing = kit.head(get("/a", &[("cache-control", "only-if-cached")])).await;
    assert_eq!((missing.status().as_u16(), &missing.headers()["cache-status"]), (504, &"forebay".parse().unwrap()));
    assert!(missing.into_body().is_end_stream());
    assert_eq!(kit.ask(get("/a", &[("cache-control", "no-store")])).await.1, "forebay; fwd=request");
    assert_eq!(kit.ask(get("/a", &[("pragma", "no-cache")])).await.0, "1");
    assert_eq!(kit.ask(get("/a", &[("cache-control", "no-cache")])).await.0, "2");
    assert_eq!(kit.ask(get("/a", &[("cache-control", "min-fresh=60")])).await.0, "3");
    assert_eq!(kit.ask(get("/a", &[("cache-control", "only-if-cached")])).await.0, "3");
}

#[tokio::test]
async fn head_is_served_from_get_and_stores_nothing() {
    let kit = counting("max-age=10");
    let head = || {
        let mut request = get("/a", &[]);
        *request.method_mut() = Method::HEAD;
        request
    };
    assert_eq!(kit.ask(head()).await.1, "forebay; fwd=uri-miss");
    kit.ask(get("/a", &[])).await;
    let hit = kit.head(head()).await;
    assert_eq!(hit.headers()["content-length"], "1");
    assert!(hit.into_body().is_end_stream());
    assert_eq!(kit.ask(get("/a", &[])).await.0, "1");
}

#[tokio::test]
async fn variants_are_kept_side_by_side() {
    let kit = kit(|n, _| text(&[("cache-control", "max-age=10"), ("vary", "Accept, X-Size")], n.to_string()));
    let ask = |accept: &'static str| kit.ask(get("/a", &[("accept", accept)]));
    assert_eq!(ask("x").await.0, "0");
    assert_eq!(ask("y").await, ("1".into(), "forebay; fwd=vary-miss; stored".into()));
    assert_eq!((ask("x").await.0, ask("y").await.0), ("0".into(), "1".into()));
}

#[tokio::test]
async fn unsafe_methods_invalidate_also_what_is_on_its_way() {
    let kit = kit(|n, request| {
        let mut reply = text(&[("cache-control", "max-age=10")], n.to_string());
        if request.headers().contains_key("x-fail") {
            *reply.status_mut() = http::StatusCode::BAD_REQUEST;
        }
        reply
    });
    let post = || {
        let mut request = get("/a", &[]);
        *request.method_mut() = Method::POST;
        request
    };
    kit.ask(get("/a", &[])).await;
    assert_eq!(kit.ask(with(post(), "x-fail", "1")).await.1, "forebay; fwd=method");
    assert_eq!(kit.ask(get("/a", &[])).await.0, "0", "an error changes nothing");
    kit.ask(post()).await;
    let late = kit.head(get("/a", &[])).await; // begun before …
    kit.ask(post()).await;
    late.into_body().collect().await.unwrap(); // … and ended after the change
    assert_eq!(kit.ask(get("/a", &[])).await.0, "5");
    kit.handle.purge_all();
    assert_eq!(kit.ask(get("/a", &[])).await.0, "6");
    kit.handle.set_enabled(false);
    assert_eq!(kit.ask(get("/a", &[])).await, ("7".into(), "forebay; fwd=bypass".into()));
}

#[tokio::test]
async fn connection_fields_are_not_repeated() {
    let fields =
        [("cache-control", "max-age=9"), ("connection", "x-hop"), ("x-hop", "1"), ("age", "3"), ("x-kept", "1")];
    let kit = kit(move |_, _| reply(&fields, vec![]));
    kit.ask(get("/a", &[])).await;
    let hit = kit.head(get("/a", &[])).await;
    for name in ["connection", "x-hop"] {
        assert!(!hit.headers().contains_key(name), "{name}");
    }
    assert_eq!((hit.headers().get_all("age").iter().count(), &hit.headers()["age"]), (1, &"3".parse().unwrap()));
    assert!(hit.headers().contains_key("x-kept") && hit.headers().contains_key("date"));
}
