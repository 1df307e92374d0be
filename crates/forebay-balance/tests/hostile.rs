//! Whatever an upstream asks for, a person configures or a client sends as an address: an answer or an error that says so,
//! never a panic.
//!
//! Many cases: `PROPTEST_CASES=1000000 cargo test --release -p forebay-balance --all-features --test hostile`

mod mutate;

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use forebay_balance::{Balance, Dns, Endpoint, EndpointState, GpuTable, HttpCheck, MetricsProbe};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use mutate::{damaged, damages};
use proptest::prelude::*;
use tokio::time::advance;
use tower::{ServiceExt as _, service_fn};

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(work)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..30),
        any::<u64>().prop_map(|seconds| seconds.to_string().into_bytes()),
        "[ \t]?[0-9]{1,40}[ \t]?".prop_map(String::into_bytes),
        damages(&["-", "+", ".", "e", " ", "18446744073709551616", "NaN", "\u{660}"])
            .prop_map(|damages| damaged(b"Fri, 31 Dec 1999 23:59:59 GMT", &damages)),
    ]
}

/// Two endpoints; one answers 429 and asks for a pause.
async fn pauses(value: HeaderValue) -> Vec<EndpointState> {
    let answer = |status: StatusCode, value: HeaderValue| {
        let answer = move |_: Request<()>| {
            let response = Response::builder().status(status).header("retry-after", value.clone());
            async move { Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).expect("a head")) }
        };
        service_fn(answer)
    };
    let (asks, good) = (answer(StatusCode::TOO_MANY_REQUESTS, value.clone()), answer(StatusCode::OK, value));
    let builder = Balance::builder()
        .endpoint(Endpoint::with_service("asks", asks))
        .endpoint(Endpoint::with_service("good", good));
    let (balance, handle) = builder.build_with_handle().expect("valid");
    let mut seen = Vec::new();
    drop(balance.oneshot(Request::new(())).await);
    for wait in [0, 299, 1] {
        advance(Duration::from_secs(wait)).await;
        seen.push(handle.snapshot()[0].state);
    }
    seen
}

/// Endpoints as people write them.
const URLS: [&str; 6] = [
    "http://10.0.0.1:8000",
    "http://models.default.svc/base/",
    "http://[2001:db8::1]:8000/v1",
    "https://example.com",
    "http://user:secret@host:1/?q#f",
    "http://{host}:9400/metrics",
];
const WORDS: &[&str] = &[
    "http", "https", "://", "/", "//", ":", "@", "[", "]", "::", "%", "%00", "?", "#", "é", " ", "\r\n", "..", "99999",
];

fn url() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,30}",
        "(http|https)://[a-z0-9.:@%\\[\\]-]{0,12}(/[ -~]{0,8})?",
        (prop::sample::select(&URLS[..]), damages(WORDS)).prop_map(|(url, damages)| String::from_utf8_lossy(&damaged(
            url.as_bytes(),
            &damages
        ))
        .into_owned()),
    ]
}

proptest! {
    #[test]
    fn retry_after_pauses_for_five_minutes_at_most(value in value()) {
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let text = value.to_str().map(str::trim).unwrap_or_default();
            let left = |date: SystemTime| date.duration_since(SystemTime::now()).unwrap_or_default().as_secs();
            let date = httpdate::parse_http_date(text).ok().map(left);
            let asked = text.parse::<u64>().ok().or(date);
            let states = run(pauses(value.clone()));
            // Without a number of seconds or a date, a second.
            let paused = |after: u64| if asked.unwrap_or(1) > after { EndpointState::Paused } else { EndpointState::Up };
            prop_assert_eq!(states, [paused(0), paused(299), EndpointState::Up]);
        }
    }

    #[test]
    fn an_address_is_taken_or_refused_with_its_name(url in url(), path in ".{0,12}") {
        run(async {
            let (alone, checked) = (Balance::http().endpoint(Endpoint::new(&url)), Balance::http());
            let error = alone.build().err().map(|error| error.to_string());
            let secret = url.contains(['@', '?']); // or could be: it is not told as it is
            prop_assert!(error.is_none_or(|error| error.contains(&format!("{url:?}")) != secret), "{}", url);
            let checked = checked
                .endpoint(Endpoint::new("http://127.0.0.1:1"))
                .discover(Dns::new(&url))
                .health(HttpCheck::new(&path))
                .probe(MetricsProbe::vllm(&path).at(&url));
            drop(checked.build());
            Ok(())
        })?;
    }

    /// What is taken is also spoken to; there is nobody.
    #[test]
    fn a_request_for_anywhere_comes_back(
        base in "(/[!-~]{0,6}){0,2}", target in ".{0,12}", host in prop::collection::vec(any::<u8>(), 0..12),
        options in any::<[bool; 3]>(),
    ) {
        let [http2, preserve_host, connect] = options;
        let endpoint = Endpoint::new(format!("http://127.0.0.1:1{base}")).http2(http2).preserve_host(preserve_host);
        let Ok(target) = target.parse::<Uri>() else { return Ok(()) };
        run(async {
            let Ok(balance) = Balance::http().endpoint(endpoint).build() else { return };
            let mut request = Request::new(Full::<Bytes>::default());
            *request.uri_mut() = target;
            *request.method_mut() = if connect { Method::CONNECT } else { Method::POST };
            if let Ok(host) = HeaderValue::from_bytes(&host) {
                request.headers_mut().insert("host", host.clone());
                request.headers_mut().insert("connection", host.clone());
                request.headers_mut().insert("te", host);
            }
            assert!(balance.oneshot(request).await.is_err(), "nobody listens there");
        });
    }

    #[test]
    fn any_name_of_a_gpu_has_a_weight_or_none(name in ".{0,40}", known in ".{0,3}") {
        let weight = GpuTable::seed().with(known.clone(), 9).weight(&format!("{name}{known}"));
        prop_assert!(known.is_empty() || weight.is_some());
    }
}
