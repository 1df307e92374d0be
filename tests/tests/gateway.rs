//! The gateway on real input: real prompts and arrivals come through whole, a client that leaves frees its slot, and bad
//! input gets the right status and leaks nothing.

use std::time::Duration;

use bytes::Bytes;
use forebay_core::Class;
use forebay_gateway::{Config, Upstream};
use forebay_model_server::{ChatRequest, Faults, ModelServer, expected_body};
use forebay_priority::QueueLength;
use forebay_tests::Stack;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

type Http = Client<HttpConnector, Full<Bytes>>;

fn client() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

fn chat(url: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("{url}/v1/chat/completions"))
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .expect("valid")
}

async fn ask(http: &Http, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let (head, body) = http.request(request).await.expect("an answer").into_parts();
    Response::from_parts(head, body.collect().await.expect("a whole body").to_bytes())
}

fn wide(seats: usize) -> Config {
    let mut config = Config::default();
    config.priority.limit = Some(seats.into());
    config.access_log = false;
    config
}

fn fast(slots: usize) -> forebay_model_server::Config {
    ModelServer::builder()
        .model("sim-7b")
        .slots(slots as _)
        .kv_tokens(100_000_000)
        .prefill_tokens_per_second(1e7)
        .decode_tokens_per_second(2e4)
        .build()
        .expect("valid")
}

fn json(value: &serde_json::Value) -> (String, Bytes) {
    let text = value.to_string();
    let request: ChatRequest = serde_json::from_str(&text).expect("a chat request");
    (text, expected_body(&request).expect("a good request"))
}

#[tokio::test(flavor = "multi_thread")]
async fn eighty_two_turn_conversations_come_through_as_the_model_server_says() {
    let stack = Stack::start(vec![fast(16), fast(8), fast(4)], wide(64)).await;
    let http = client();
    let mut asked = 0;
    for line in include_str!("../data/mt_bench_question.jsonl").lines() {
        let question: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let mut messages = Vec::new();
        for turn in question["turns"].as_array().expect("turns") {
            messages.push(serde_json::json!({"role": "user", "content": turn}));
            let (text, expected) = json(&serde_json::json!({"model": "sim-7b", "messages": messages}));
            let answer = ask(&http, chat(&stack.url, text)).await;
            assert_eq!((answer.status().as_u16(), answer.body()), (200, &expected));
            let answer: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
            messages.push(answer["choices"][0]["message"].clone());
            asked += 1;
        }
    }
    assert_eq!(asked, 160);
}

/// The first ten minutes of a production trace, sixty times as fast: arrivals, input and output lengths.
#[tokio::test(flavor = "multi_thread")]
async fn ten_minutes_of_a_real_trace_lose_nothing() {
    let stack = Stack::start(vec![fast(256), fast(256), fast(256)], wide(768)).await;
    let http = client();
    let started = tokio::time::Instant::now();
    let mut exchanges = tokio::task::JoinSet::new();
    for (i, line) in include_str!("../data/azure_conv_first10min.csv").lines().skip(1).enumerate() {
        let numbers: Vec<u64> = line.split(',').map(|number| number.parse().expect("a number")).collect();
        let [at, input, output] = numbers[..] else { panic!("three columns: {line}") };
        tokio::time::sleep_until(started + Duration::from_millis(at) / 60).await;
        let prompt = format!("{i} {}", "word ".repeat(input as usize)); // four characters a token, about
        let (text, expected) = json(&serde_json::json!({
            "model": "sim-7b", "messages": [{"role": "user", "content": prompt}],
            "min_tokens": output, "max_tokens": output, "ignore_eos": true,
        }));
        let (http, request) = (http.clone(), chat(&stack.url, text));
        exchanges.spawn(async move {
            let answer = ask(&http, request).await;
            assert_eq!(answer.status(), 200, "{:?}", answer.body());
            assert_eq!(answer.body(), &expected, "the answer is the model server's own");
        });
    }
    let mut done = 0;
    while let Some(exchange) = exchanges.join_next().await {
        exchange.expect("every request is answered");
        done += 1;
    }
    assert_eq!(done, 2867);
    let endpoints = stack.gateway.balance().snapshot();
    assert_eq!(endpoints.iter().map(|endpoint| endpoint.success).sum::<u64>(), done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_mid_stream_frees_the_slot_within_100_ms() {
    let slow = ModelServer::builder().model("sim-7b").slots(1).decode_tokens_per_second(50.0).build().expect("valid");
    let stack = Stack::start(vec![slow], wide(1)).await;
    let http = client();
    let text = r#"{"model":"sim-7b","stream":true,"max_tokens":100000,"ignore_eos":true,"messages":[{"role":"user","content":"x"}]}"#;
    let mut body = http.request(chat(&stack.url, text)).await.expect("a head").into_body();
    body.frame().await.expect("a frame").expect("data");
    assert_eq!(stack.servers[0].stats().running, 1);
    drop(body);
    let left = tokio::time::Instant::now();
    while stack.servers[0].stats().running > 0 || stack.gateway.priority().snapshot().classes[2].in_flight > 0 {
        assert!(left.elapsed() < Duration::from_secs(10), "the slot is never freed");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(left.elapsed() < Duration::from_millis(100), "freed after {:?}", left.elapsed());
    assert_eq!(stack.servers[0].stats().cancelled, 1);
}

#[tokio::test]
async fn half_a_head_does_not_hold_its_connection_for_ever() {
    let stack = Stack::start(vec![fast(1)], wide(1)).await;
    let mut stream = TcpStream::connect(stack.url.trim_start_matches("http://")).await.expect("it listens");
    // Once the first is answered, the half of the second has been read, too.
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTTP/1.1\r\nho").await.expect("sent");
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).await.expect("an answer");
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer[..read]));
    let mut waited = 0;
    loop {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(5)).await;
        tokio::time::resume();
        waited += 5;
        match tokio::time::timeout(Duration::from_millis(20), stream.read(&mut answer)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(_)) => {} // it may say why
            Err(_) => assert!(waited < 300, "it is still open"),
        }
    }
    assert!(waited > 60, "closed after {waited} s: who is slow has his time");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_get_the_right_status_and_the_next_request_works() {
    let stack = Stack::start(vec![fast(4)], wide(4)).await;
    let http = client();
    let good = r#"{"model":"sim-7b","messages":[{"role":"user","content":"x"}]}"#;
    for (body, status, named) in [
        ("", 400, ""),
        ("hello", 400, "JSON"),
        ("{\"model\":", 400, "JSON"),
        ("{\"model\":\"sim-7b\",\"model\":\"sim-7b\",\"messages\":[]}", 400, "model"),
        ("{\"model\":\"nobody\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", 404, "nobody"),
        ("{\"model\":\"sim-7b\"}", 400, "messages"),
    ] {
        let answer = ask(&http, chat(&stack.url, body)).await;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        assert_eq!(answer.status(), status, "{body}: {text}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{body}: {text}");
        let problem: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(named)), "{body}: {text}");
        assert_eq!(ask(&http, chat(&stack.url, good)).await.status(), 200);
    }
    for name in ["p9", "P3", "urgent", "", "p0, p1"] {
        let mut request = chat(&stack.url, good);
        request.headers_mut().insert("x-priority", name.parse().expect("a value"));
        assert_eq!(ask(&http, request).await.status(), 200, "{name:?}");
    }
    let classes = stack.gateway.priority().snapshot().classes;
    assert_eq!((classes[0].offered, classes[1].offered), (0, 0), "nobody rose above P2 by a header");
    let mut request = chat(&stack.url, good);
    request.headers_mut().insert("x-filler", "a".repeat(64 << 10).parse().expect("a value"));
    assert_eq!(ask(&http, request).await.status(), 200, "64 KiB of header are carried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_deterministic_question_is_answered_without_the_backend() {
    let stack = Stack::start(vec![fast(4)], wide(4)).await;
    let http = client();
    for stream in [false, true] {
        let text = format!(
            r#"{{"model":"sim-7b","temperature":0,"stream":{stream},"messages":[{{"role":"user","content":"x"}}]}}"#
        );
        let served = stack.servers[0].stats().received;
        let first = ask(&http, chat(&stack.url, text.clone())).await;
        let again = ask(&http, chat(&stack.url, text)).await;
        assert_eq!((first.status().as_u16(), first.body()), (200, again.body()));
        let status = again.headers()["cache-status"].to_str().expect("ASCII");
        assert!(status.contains("hit"), "{status}");
        assert_eq!(stack.servers[0].stats().received, served + 1);
    }
    let sampled = r#"{"model":"sim-7b","messages":[{"role":"user","content":"x"}]}"#;
    for _ in 0..2 {
        let answer = ask(&http, chat(&stack.url, sampled)).await;
        assert!(!answer.headers()["cache-status"].to_str().expect("ASCII").contains("hit"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_accepted_at_once_and_its_answer_is_the_model_servers_own() {
    let stack = Stack::start(vec![fast(4)], wide(4)).await;
    let http = client();
    let (text, expected) =
        json(&serde_json::json!({"model": "sim-7b", "messages": [{"role": "user", "content": "x"}]}));
    let mut request = chat(&stack.url, text);
    request.headers_mut().insert("prefer", "respond-async".parse().expect("a value"));
    let accepted = ask(&http, request).await;
    assert_eq!(accepted.status(), 202, "{:?}", accepted.body());
    let location = accepted.headers()["location"].to_str().expect("ASCII").to_owned();
    let (path, token) = location.split_once('?').expect("a token, as there is no principal");
    let get = |target: String| Request::get(format!("{}{target}", stack.url)).body(Full::default()).expect("valid");
    let mut wait = get(format!("{path}/result?{token}"));
    wait.headers_mut().insert("prefer", "wait=20".parse().expect("a value"));
    let result = ask(&http, wait).await;
    assert_eq!((result.status().as_u16(), result.body()), (200, &expected));
    assert_eq!(ask(&http, get(path.to_owned())).await.status(), 404, "without the token there is no such job");
}

/// An upstream that reads a request's head, says its piece and closes; `None`: it closes at once, with a reset.
async fn broken_upstream(piece: Option<&'static [u8]>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let read = stream.read(&mut [0; 16]).await; // the rest stays unread: closing is then a reset
            if let (Ok(_), Some(piece)) = (read, piece) {
                while let Ok(Ok(1..)) =
                    tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 4096])).await
                {}
                let _ = stream.write_all(piece).await;
            }
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_that_reset_or_answer_garbage_are_a_bad_gateway() {
    let garbage: &[u8] = b"\x16\x03\x01 this is no HTTP\r\n\r\n";
    let half: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-le";
    let lies: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello";
    for (name, piece) in
        [("reset", None), ("garbage", Some(garbage)), ("half a head", Some(half)), ("lies", Some(lies))]
    {
        let mut config = wide(4);
        config.upstreams.push(Upstream::new(broken_upstream(piece).await, 1));
        let stack = Stack::start(Vec::new(), config).await;
        let good = r#"{"model":"sim-7b","messages":[{"role":"user","content":"a secret"}]}"#;
        for _ in 0..3 {
            let answer = ask(&client(), chat(&stack.url, good)).await;
            let text = String::from_utf8_lossy(answer.body()).into_owned();
            assert_eq!((answer.status().as_u16(), name), (502, name), "{text}");
            assert_eq!(answer.headers()["content-type"], "application/problem+json", "{name}");
            assert!(text.contains("urn:forebay:problem:upstream-failed"), "{name}: {text}");
            assert!(!text.contains("secret") && !text.contains("127.0.0.1"), "{name} leaks: {text}");
        }
        assert!(stack.gateway.priority().snapshot().classes.iter().all(|class| class.in_flight == 0), "{name}");
        assert!(stack.gateway.balance().snapshot().iter().all(|endpoint| endpoint.in_flight == 0), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r21_what_a_full_queue_refuses_becomes_a_job_and_is_answered_later() {
    let slow = ModelServer::builder().model("sim-7b").slots(1).decode_tokens_per_second(200.0).build().expect("valid");
    let mut config = wide(1);
    config.priority.overflow = vec!["p2".into()];
    let stack = Stack::start(vec![slow], config).await;
    stack.gateway.priority().update_class(Class::P2, |class| class.queue = QueueLength::Fixed(1)).expect("valid");
    let http = client();
    let mut asked = tokio::task::JoinSet::new();
    for i in 0..6 {
        let text = format!(
            r#"{{"model":"sim-7b","max_tokens":20,"min_tokens":20,"ignore_eos":true,"messages":[{{"role":"user","content":"{i}"}}]}}"#
        );
        let (http, request) = (http.clone(), chat(&stack.url, text));
        asked.spawn(async move { ask(&http, request).await });
    }
    let answers = asked.join_all().await;
    let jobs: Vec<_> = answers.iter().filter(|answer| answer.status() == 202).collect();
    assert!(!jobs.is_empty() && answers.iter().all(|answer| [200, 202].contains(&answer.status().as_u16())));
    for job in jobs {
        let location = job.headers()["location"].to_str().expect("text").replace('?', "/result?");
        let request = Request::get(format!("{}{location}", stack.url)).header("prefer", "wait=30");
        let answer = ask(&http, request.body(Full::default()).expect("valid")).await;
        assert_eq!(answer.status(), 200, "{:?}", answer.body());
        assert!(String::from_utf8_lossy(answer.body()).contains("chat.completion"));
    }
    assert!(stack.gateway.priority().snapshot().classes.iter().all(|class| class.in_flight == 0 && class.queued == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_the_backlog_of_full_backends_waits_in_the_priority_queue() {
    let server =
        || ModelServer::builder().model("sim-7b").slots(1).decode_tokens_per_second(200.0).build().expect("valid");
    let fleet = Stack::start(vec![server(), server()], wide(1)).await; // for its servers alone
    let servers = &fleet.servers;
    let mut config = wide(64);
    for (weight, server) in [(2, &servers[0]), (1, &servers[1])] {
        let mut upstream = Upstream::new(server.url(), weight);
        upstream.max_concurrency = Some(1);
        config.upstreams.push(upstream);
    }
    let stack = Stack::start(Vec::new(), config).await;
    let mut asked = tokio::task::JoinSet::new();
    for i in 0..12 {
        let text = format!(
            r#"{{"model":"sim-7b","max_tokens":10,"min_tokens":10,"ignore_eos":true,"messages":[{{"role":"user","content":"{i}"}}]}}"#
        );
        let request = chat(&stack.url, text);
        asked.spawn(async move { ask(&client(), request).await.status() });
    }
    let mut waited = 0;
    while let Some(status) = asked.join_next().await {
        assert_eq!(status.expect("no panic"), 200, "nobody is told that the backends are full");
        waited = waited.max(stack.gateway.priority().snapshot().classes[2].waiting);
        let endpoints = stack.gateway.balance().snapshot();
        assert!(endpoints.iter().all(|endpoint| endpoint.in_flight <= 1), "{endpoints:?}");
    }
    assert!(waited > 0, "the backlog stood where order is kept");
    assert!(stack.gateway.balance().snapshot().iter().all(|endpoint| endpoint.in_flight == 0));
}

/// Sends raw bytes, and returns all that comes back.
async fn raw(url: &str, parts: &[&[u8]], finish: bool) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.expect("the gateway listens");
    for part in parts {
        if stream.write_all(part).await.is_err() {
            break; // it has answered and closed already
        }
    }
    if finish {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read @ 1..)) = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut buffer)).await {
        answer.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_end_and_bodies_cut_short_are_told_so() {
    let stack = Stack::start(vec![fast(4)], wide(4)).await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let huge = format!("{head}content-length: 104857600\r\n\r\n");
    let answer = raw(&stack.url, &[huge.as_bytes()], false).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("urn:forebay:problem:too-large"), "{answer}");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let mut chunk = b"100000\r\n".to_vec();
    chunk.extend(vec![b'a'; 1 << 20]);
    chunk.extend(b"\r\n");
    let parts: Vec<&[u8]> = std::iter::once(chunked.as_bytes()).chain(std::iter::repeat_n(&chunk[..], 9)).collect();
    let answer = raw(&stack.url, &parts, false).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let cut = format!("{head}content-length: 100\r\n\r\n{{\"model\"");
    let answer = raw(&stack.url, &[cut.as_bytes()], true).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    let good = r#"{"model":"sim-7b","messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(ask(&client(), chat(&stack.url, good)).await.status(), 200);
    assert!(stack.gateway.priority().snapshot().classes.iter().all(|class| class.in_flight == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_that_refuse_hang_or_fail_hang_nobody() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let mut config = wide(8);
    config.answer_timeout_seconds = 1;
    config.upstreams.push(Upstream::new(format!("http://{free}"), 9)); // nobody listens there
    let stack = Stack::start(vec![fast(4)], config).await;
    let http = client();
    let good = r#"{"model":"sim-7b","messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(ask(&http, chat(&stack.url, good)).await.status(), 200, "a refused connection goes to another");
    let faults = |set: fn(&mut Faults)| {
        let mut faults = Faults::default();
        set(&mut faults);
        stack.servers[0].faults(faults);
    };
    faults(|faults| faults.hang_share = 1.0);
    let hung = ask(&http, chat(&stack.url, good)).await;
    assert_eq!(hung.status(), 504);
    assert!(String::from_utf8_lossy(hung.body()).contains("deadline-exceeded"));
    faults(|faults| faults.error_share = 1.0);
    assert_eq!(ask(&http, chat(&stack.url, good)).await.status(), 500, "a status passes as it is");
    faults(|_| ());
    assert_eq!(ask(&http, chat(&stack.url, good)).await.status(), 200);
    let missing =
        ask(&http, Request::get(format!("{}/nowhere", stack.url)).body(Full::default()).expect("valid")).await;
    assert_eq!(missing.status(), 404);
    assert!(stack.gateway.priority().snapshot().classes.iter().all(|class| class.in_flight == 0 && class.queued == 0));
    assert!(stack.gateway.balance().snapshot().iter().all(|endpoint| endpoint.in_flight == 0));
}
