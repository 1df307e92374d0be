//! Load reports in JSON give the values that a person reads, and bad ones give errors or nothing: never an idle server.
//!
//! Many cases: `PROPTEST_CASES=1000000 cargo test --release -p forebay-balance --test json_input --features client`

mod mutate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use forebay_balance::probe::{LoadReport, MAX_BYTES, ParseError, Preset};
use forebay_balance::{Balance, Endpoint, MetricsProbe};
use mutate::{damaged, damages, pieces};
use proptest::prelude::*;
use proptest::sample::Index;
use tokio::net::TcpListener;
use tokio::time::timeout;

const SGLANG: &[u8] = include_bytes!("data/metrics/sglang_loads.json");
const SGLANG_START: &[u8] = include_bytes!("data/metrics/sglang_loads_start.json");
const VLLM: &[u8] = br#"{"server_load": 3}"#;
const LLAMA_CPP: &[u8] = include_bytes!("data/metrics/llamacpp_slots.json");

fn presets() -> [Preset; 3] {
    [Preset::sglang_loads(), Preset::vllm_load(), Preset::llama_cpp_slots()]
}

fn load(running: Option<u32>, waiting: Option<u32>, kv_used: Option<f32>) -> LoadReport {
    let mut report = LoadReport::default();
    (report.running, report.waiting, report.kv_used) = (running, waiting, kv_used);
    report
}

#[test]
fn r22_sglang_says_what_runs_and_waits_in_all_ranks() {
    let sglang = Preset::sglang_loads();
    assert_eq!(sglang.read(SGLANG), Ok(load(Some(32), Some(3), Some(0.73))));
    let old = br#"{"dp_rank_count": 1, "loads": [{"dp_rank": 0, "num_running_reqs": 5, "num_waiting_reqs": 2,
        "num_total_reqs": 7, "token_usage": 0.05}], "aggregate": {"total_running_reqs": 5, "total_waiting_reqs": 2}}"#;
    assert_eq!(sglang.read(old), Ok(load(Some(5), Some(2), Some(0.05))));
}

#[test]
fn r22_a_rank_that_has_not_reported_yet_is_not_idle() {
    let started = Preset::sglang_loads().read(SGLANG_START).expect("its document");
    assert_eq!((started.running, started.waiting, started.requests()), (None, None, None));
    let none = br#"{"loads": [], "aggregate": {"total_running_reqs": 0, "total_waiting_reqs": 0, "total_reqs": 0}}"#;
    assert_eq!(Preset::sglang_loads().read(none), Ok(LoadReport::default()));
}

#[test]
fn r22_vllm_says_all_that_it_has_and_zero_also_when_it_does_not_count() {
    let read = |page: &str| Preset::vllm_load().read(page.as_bytes());
    assert_eq!(Preset::vllm_load().read(VLLM), Ok(load(Some(3), Some(0), None)));
    assert_eq!(read(r#"{"server_load": 0}"#), Ok(LoadReport::default()), "not idle");
    assert_eq!(read(r#"{"server_load": 0.0}"#), Ok(LoadReport::default()));
    assert_eq!(read("{}"), Ok(LoadReport::default()));
}

#[test]
fn r22_llama_cpp_says_which_slots_are_busy() {
    let read = |page: &str| Preset::llama_cpp_slots().read(page.as_bytes());
    assert_eq!(Preset::llama_cpp_slots().read(LLAMA_CPP), Ok(load(Some(2), Some(0), None)));
    assert_eq!(read(r#"[{"is_processing": false}]"#), Ok(load(Some(0), Some(0), None)), "this one is idle");
    assert_eq!(read(r#"[{"is_processing": true}, {"state": 0}]"#).map(|load| load.requests()), Ok(None), "older");
    assert_eq!(read(r#"[{"is_processing": 0}]"#).map(|load| load.requests()), Ok(None));
    assert_eq!(read("[]"), Ok(LoadReport::default()));
}

#[test]
fn r18_what_cannot_be_true_is_unknown() {
    for value in
        ["-1", "-0.5", "1000001", "1e300", "18446744073709551616", "null", "\"3\"", "true", "[3]", r#"{"a": 3}"#]
    {
        let vllm = format!(r#"{{"server_load": {value}}}"#);
        assert_eq!(Preset::vllm_load().read(vllm.as_bytes()), Ok(LoadReport::default()), "{value}");
        let good = r#"{"num_running_reqs": 1, "num_waiting_reqs": 1, "token_usage": 0.5, "max_running_requests": 9}"#;
        let rank = format!(r#"{{"num_running_reqs": {value}, "num_waiting_reqs": 1, "token_usage": {value}}}"#);
        let sglang = format!(r#"{{"loads": [{good}, {rank}, {good}]}}"#);
        let report = Preset::sglang_loads().read(sglang.as_bytes()).expect("its document");
        assert_eq!(report, load(None, Some(3), Some(0.5)), "{value}: a part is unknown, so the sum is");
        let slots = format!(r#"[{{"is_processing": true}}, {{"is_processing": {value}}}]"#);
        if value != "true" {
            let report = Preset::llama_cpp_slots().read(slots.as_bytes()).expect("its document");
            assert_eq!(report.requests(), None, "{value}");
        }
    }
    let many = [r#"{"num_running_reqs": 600000, "num_waiting_reqs": 0}"#; 2].join(",");
    let report = Preset::sglang_loads().read(format!(r#"{{"loads": [{many}]}}"#).as_bytes()).expect("its document");
    assert_eq!(report, load(None, Some(0), None), "an absurd sum");
}

#[test]
fn what_is_not_the_document_is_an_error() {
    let pages: [&[u8]; 14] = [
        b"",
        b"<html>",
        b"404 page not found",
        b"vllm:num_requests_running 3\n",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
        b"\xff\xfe",
        b"null",
        b"3",
        br#"{"server_load": NaN}"#,
        br#"{"server_load": Infinity}"#,
        br#"{"server_load": 1e999}"#,
        br#"{"server_load": 3"#,
        br#"{"server_load": 3} {"server_load": 0}"#,
        br#"{"server_load": 3, "server_load": 0}"#,
    ];
    for page in pages {
        let text = String::from_utf8_lossy(page);
        assert_eq!(Preset::vllm_load().read(page), Err(ParseError::NotJson), "{text}");
        assert_eq!(Preset::llama_cpp_slots().read(page), Err(ParseError::NotJson), "{text}");
        assert_eq!(Preset::sglang_loads().read(page), Err(ParseError::NotJson), "{text}");
    }
    assert_eq!(Preset::vllm_load().read(b"[3]"), Err(ParseError::NotJson), "values without names");
    assert_eq!(Preset::llama_cpp_slots().read(b"[[false]]"), Err(ParseError::NotJson));
    assert_eq!(Preset::sglang_loads().read(br#"{"loads": [[0, 0, 0.0, 8]]}"#), Err(ParseError::NotJson));
    assert_eq!(Preset::sglang_loads().read(br#"{"loads": null}"#), Err(ParseError::NotJson));
    assert_eq!(Preset::sglang_loads().read(br#"{"error": "no"}"#), Err(ParseError::NotJson));
    assert_eq!(Preset::llama_cpp_slots().read(br#"{"error": {"code": 501}}"#), Err(ParseError::NotJson));
    assert_eq!(Preset::vllm().read(VLLM), Err(ParseError::NotMetrics), "another preset");
}

/// A part of a report would look like less load.
#[test]
fn a_document_that_is_cut_off_says_nothing() {
    for (preset, page) in presets().iter().zip([SGLANG, VLLM, LLAMA_CPP]) {
        let page = page.trim_ascii_end();
        for end in 0..page.len() {
            assert_eq!(preset.read(&page[..end]), Err(ParseError::NotJson), "{end} bytes");
        }
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let mut page = VLLM.to_vec();
    page.resize(MAX_BYTES, b' ');
    assert_eq!(Preset::vllm_load().read(&page).expect("as long as may be").running, Some(3));
    page.push(b' ');
    assert_eq!(Preset::vllm_load().read(&page), Err(ParseError::TooLarge));
    let mut reader = Preset::llama_cpp_slots().reader();
    let pushed = (0..1600).take_while(|_| reader.push(&[b'['; 64 << 10]).is_ok()).count();
    assert_eq!(pushed, 64, "100 MiB are not even asked for");
    assert_eq!(reader.push(b"]"), Err(ParseError::TooLarge), "and it stays so");
    assert_eq!(reader.finish(), Err(ParseError::TooLarge));
    for preset in presets() {
        assert_eq!(preset.read(&vec![b'['; MAX_BYTES]), Err(ParseError::NotJson));
        let deep = format!(r#"{{"server_load": {}"#, r#"{"a":"#.repeat(100_000));
        assert_eq!(preset.read(deep.as_bytes()), Err(ParseError::NotJson));
    }
    let slots = format!("[{}{{}}]", "{},".repeat(MAX_BYTES / 3 - 2));
    let report = Preset::llama_cpp_slots().read(slots.as_bytes()).expect("slots");
    assert_eq!((report.running, report.requests()), (None, None), "a million of slots that say nothing");
}

#[test]
fn r20_rows_without_labels_are_not_selected_but_devices_leave_requests_alone() {
    for (preset, page) in presets().into_iter().zip([SGLANG, VLLM, LLAMA_CPP]) {
        assert_eq!(preset.clone().select("model", "m").read(page), Ok(LoadReport::default()));
        assert_eq!(preset.clone().select("gpu", "0").read(page), preset.read(page));
    }
}

/// A server of vLLM's `/load`.
async fn server() -> (String, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let load = Arc::clone(&count);
    let page = move || {
        let load = load.load(SeqCst);
        async move { format!(r#"{{"server_load":{load}}}"#) }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async { axum::serve(listener, Router::new().route("/load", get(page))).await });
    (url, count)
}

#[tokio::test]
async fn r22_a_balancer_hears_the_load_and_takes_silence_for_what_the_others_have() {
    let ((one, load), (other, _)) = (server().await, server().await);
    let (_balance, handle) = Balance::http()
        .endpoint(Endpoint::new(&one))
        .endpoint(Endpoint::new(&other))
        .probe(MetricsProbe::new(Preset::vllm_load(), "/load").interval(Duration::from_millis(5)))
        .build_with_handle()
        .expect("valid");
    for says in [7, 3] {
        load.store(says, SeqCst);
        let is = |load: f64| (load - f64::from(says)).abs() < 0.01;
        timeout(Duration::from_secs(30), async {
            while !handle.snapshot().iter().all(|endpoint| is(endpoint.load)) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the one that says 0 is not taken to be idle");
    }
}

proptest! {
    #[test]
    fn a_damaged_document_never_panics_and_chunks_make_no_difference(
        which in 0..3_usize, damages in damages(&["{", "}", "[", "]", ",", ":", "\"", "-", "1e9", "null", "\\u0000"]),
        cuts in prop::collection::vec(any::<Index>(), 0..10),
    ) {
        let (preset, page) = (&presets()[which], damaged([SGLANG, VLLM, LLAMA_CPP][which], &damages));
        let mut reader = preset.reader();
        for piece in pieces(&page, &cuts) {
            reader.push(piece).expect("short");
        }
        prop_assert_eq!(reader.finish(), preset.read(&page));
    }

    #[test]
    fn random_bytes_never_panic(page in prop::collection::vec(any::<u8>(), 0..500)) {
        for preset in presets() {
            prop_assert_eq!(preset.read(&page).unwrap_or_default().requests(), None);
        }
    }
}
