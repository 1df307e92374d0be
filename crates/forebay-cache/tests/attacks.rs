//! Nobody gets what is not theirs, and nothing ambiguous, partial or personal is stored.
#![cfg(feature = "moka")]

mod kit;

use bytes::Bytes;
use forebay_cache::{CacheLayer, JsonRoute};
use forebay_core::testing::Step;
use http::Request;
use http_body_util::Full;
use kit::{CHAT, DONE, Kit, by, chat, get, kit, kit_with, reply, stop, text, with};

const ASK: &str = r#"{"model":"m","temperature":0,"messages":["hi"]}"#;

fn chats() -> Kit {
    kit(|n, _| stop(n))
}

#[tokio::test]
async fn one_tenant_never_gets_the_answer_of_another() {
    assert!(chats().shared(chat(ASK), chat(ASK)).await);
    assert!(chats().shared(by(chat(ASK), "a"), by(chat(ASK), "a")).await);
    assert!(!chats().shared(by(chat(ASK), "a"), by(chat(ASK), "b")).await);
    assert!(!chats().shared(by(chat(ASK), "a"), chat(ASK)).await);
    for name in ["authorization", "cookie", "x-api-key", "openai-organization"] {
        assert!(chats().shared(with(chat(ASK), name, "a"), with(chat(ASK), name, "a")).await, "{name}");
        assert!(!chats().shared(with(chat(ASK), name, "a"), with(chat(ASK), name, "b")).await, "{name}");
        assert!(!chats().shared(with(chat(ASK), name, "a"), chat(ASK)).await, "{name}");
    }
    assert!(!chats().shared(with(chat(ASK), "cookie", "a"), with(chat(ASK), "x-api-key", "a")).await);
    let page = || kit(|n, _| text(&[("cache-control", "max-age=9")], n.to_string()));
    assert!(!page().shared(by(get("/me", &[]), "a"), by(get("/me", &[]), "b")).await);
    assert!(!page().shared(get("/me", &[("authorization", "a")]), get("/me", &[("authorization", "a")])).await);
    assert!(!page().shared(get("/me", &[("cookie", "a")]), get("/me", &[("cookie", "a")])).await);
}

#[tokio::test]
async fn the_resource_is_the_one_that_was_asked_for() {
    let kit = || kit(|n, _| text(&[("cache-control", "max-age=9")], n.to_string()));
    assert!(kit().shared(get("/a", &[("host", "A.test:80")]), get("http://a.test/a", &[])).await);
    for (name, value) in
        [("host", "b.test"), ("x-forwarded-host", "evil"), ("x-original-url", "/x"), ("x-rewrite-url", "/x")]
    {
        let plain = get("/a", if name == "host" { &[("host", "a.test")] } else { &[] });
        assert!(!kit().shared(get("/a", &[(name, value)]), plain).await, "{name}");
    }
    let two = || get("/a", &[("host", "a"), ("host", "b")]);
    assert!(!kit().shared(two(), two()).await);
    assert!(!kit().shared(get("/a", &[]), get("/a?", &[])).await);
    for (name, value) in [("x-http-method-override", "POST"), ("range", "bytes=0-1"), ("if-none-match", "\"a\"")] {
        assert_eq!(kit().ask(get("/a", &[(name, value)])).await.1, "forebay; fwd=bypass", "{name}");
    }
    let fat = || get("/a", &[]).map(|_| Full::new(Bytes::from("x")));
    assert!(!kit().shared(fat(), fat()).await);
}

#[tokio::test]
async fn equal_questions_meet_and_others_do_not() {
    let ask = |more: &str| chat(format!("{{\"temperature\":0{more}}}"));
    for (a, b) in [
        (r#","n":1"#, r#", "n" : 1.0"#),
        (r#","q":"A\/é""#, r#","q":"\u0041/\u00e9""#),
        (r#","user":"a""#, r#","user":"b""#),
    ] {
        assert!(chats().shared(ask(a), ask(b)).await, "{a} {b}");
    }
    for (a, b) in [
        (r#","n":9007199254740993"#, r#","n":9007199254740992"#),
        (r#","stream":true"#, r#","stream":false"#),
        (r#","unknown":1"#, ""),
        (r#","q":"a""#, r#","q":"A""#),
        (r#","q":"1""#, r#","q":1"#),
    ] {
        assert!(!chats().shared(ask(a), ask(b)).await, "{a} {b}");
    }
    let deep = format!("{{\"temperature\":0,\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
    for odd in [
        r#"{"temperature":0,"a":1,"a":1}"#,
        r#"{"temperature":0,"user":1,"user":2}"#,
        "\u{feff}{\"temperature\":0}",
        r#"{"temperature":0}{}"#,
        r#"{"temperature":0,"a":"\ud800"}"#,
        r#"{"temperature":0,"a":1e1000001}"#,
        r#"{"temperature":0.1}"#,
        r#"{"temperature":null,"seed":null}"#,
        r#"{"seed":"1"}"#,
        r#"[{"temperature":0}]"#,
        "",
        &deep,
    ] {
        let (body, status) = chats().ask(chat(odd.to_owned())).await;
        assert_eq!((body.is_empty(), status.as_str()), (false, "forebay; fwd=bypass"), "{odd}");
    }
    assert!(chats().shared(chat(r#"{"seed":7}"#), chat(r#"{"seed":7}"#)).await);
    assert!(
        !chats().shared(with(chat(ASK), "content-encoding", "gzip"), with(chat(ASK), "content-encoding", "gzip")).await
    );
    let plain = || Request::post(CHAT).body(Full::new(Bytes::from(ASK))).unwrap();
    assert!(!chats().shared(plain(), plain()).await);
    let sampled = || {
        let route = JsonRoute::openai_chat("/c").allow_sampled();
        let mut request = chat(r#"{"temperature":1}"#);
        *request.uri_mut() = "/c".parse().unwrap();
        (kit_with(CacheLayer::builder().json(route), |n, _| stop(n)), request)
    };
    let ((kit, a), (_, b)) = (sampled(), sampled());
    assert!(kit.shared(a, b).await);
}

#[tokio::test]
async fn incomplete_or_personal_answers_are_not_stored() {
    let json = [("content-type", "application/json")];
    let sse = [("content-type", "text/event-stream")];
    for answer in [
        || text(&json_type(), r#"{"choices":[{"finish_reason":"length"}]}"#),
        || text(&json_type(), r#"{"choices":[{"finish_reason":"sto"#),
        || text(&[], r#"{"choices":[{"finish_reason":"stop"}]}"#),
        || text(&[json_type()[0], ("cache-control", "no-store")], r#"{"choices":[{"finish_reason":"stop"}]}"#),
        || text(&[json_type()[0], ("cache-control", "private")], r#"{"choices":[{"finish_reason":"stop"}]}"#),
        || text(&[json_type()[0], ("vary", "*")], r#"{"choices":[{"finish_reason":"stop"}]}"#),
        || text(&[json_type()[0], ("content-encoding", "gzip")], r#"{"choices":[{"finish_reason":"stop"}]}"#),
        || text(&[json_type()[0], ("content-length", "99")], r#"{"choices":[{"finish_reason":"stop"}]}"#),
    ] {
        assert!(!kit(move |_, _| answer()).shared(chat(ASK), chat(ASK)).await);
    }
    for cut in 0..DONE.len() - 2 {
        assert!(!kit(move |_, _| text(&sse, &DONE.as_bytes()[..cut])).shared(chat(ASK), chat(ASK)).await, "{cut}");
    }
    assert!(kit(move |_, _| text(&sse, DONE)).shared(chat(ASK), chat(ASK)).await);
    let cookie = kit(move |n, _| {
        let mut reply = stop(n);
        reply.headers_mut().insert("set-cookie", "id=1".parse().unwrap());
        reply
    });
    cookie.ask(chat(ASK)).await;
    assert!(!cookie.head(chat(ASK)).await.headers().contains_key("set-cookie"));
    for fields in [vec![("vary", "*")], vec![("set-cookie", "a=b")], vec![("cache-control", "private")]] {
        let fields: Vec<_> = fields.into_iter().chain([("cache-control", "max-age=9")]).collect();
        let kit = kit(move |_, _| text(&fields, "x"));
        assert!(!kit.shared(get("/a", &[]), get("/a", &[])).await);
    }
    let partial = kit(move |n, _| {
        let mut reply = text(&[json[0], ("cache-control", "max-age=9")], n.to_string());
        *reply.status_mut() = http::StatusCode::PARTIAL_CONTENT;
        reply
    });
    assert!(!partial.shared(get("/a", &[]), get("/a", &[])).await);
}

fn json_type() -> [(&'static str, &'static str); 1] {
    [("content-type", "application/json")]
}

#[tokio::test]
async fn large_bodies_pass_whole() {
    let echo = || {
        kit(|_, request| {
            use http_body::Body as _;
            text(&[("content-type", "application/json")], request.body().size_hint().exact().unwrap().to_string())
        })
    };
    let large = format!("{{\"temperature\":0,\"a\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(echo().ask(chat(large.clone())).await, (large.len().to_string(), "forebay; fwd=bypass".into()));
    let announced = with(chat(large.clone()), "content-length", &large.len().to_string());
    assert_eq!(echo().ask(announced).await.0, large.len().to_string());

    let small = kit_with(CacheLayer::builder().max_entry(8), |_, _| {
        reply(&[("cache-control", "max-age=9")], (0..4).map(|_| Step::Data("12345".into())).collect())
    });
    assert_eq!(small.ask(get("/a", &[])).await.0.len(), 20);
    assert_eq!(small.handle.snapshot().stored, 0);
}

#[tokio::test]
async fn a_name_cannot_break_out_of_the_field() {
    for name in ["", "a\r\nb", "a; hit", "1"] {
        assert!(CacheLayer::builder().name(name).build().is_err(), "{name:?}");
    }
    let error =
        CacheLayer::builder().secret("short").max_entry(0).json(JsonRoute::openai_chat("x")).build().unwrap_err();
    assert_eq!(error.problems().len(), 3);
}

#[tokio::test]
async fn other_protocols_pass_untouched() {
    let kit = chats();
    let mut grpc = chat(ASK);
    grpc.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
    assert_eq!(kit.ask(grpc).await.1, "");
    assert_eq!(kit.ask(get("/ws", &[("upgrade", "websocket")])).await.1, "");
}
