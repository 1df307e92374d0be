//! Proves that slots, KV cache and the line are kept, that a client which leaves frees what it held wherever it was, and
//! that every fault does what it says.

mod support;

use std::time::Duration;

use bytes::Bytes;
use forebay_model_server::{ConfigBuilder, Faults, Handle, ModelServer};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::*;
use tokio::{task::JoinHandle, time::Instant};

/// One slot, in which a request with many tokens stays.
fn slow() -> ConfigBuilder {
    ModelServer::builder().slots(1).decode_tokens_per_second(1.0)
}

/// Sends in a task; aborting it closes the connection.
fn background(server: &Handle, request: &Value) -> JoinHandle<(u16, Bytes)> {
    let (address, request) = (server.address(), request.to_string());
    tokio::spawn(async move {
        let response = send(address, "POST", CHAT, request).await;
        (response.status().as_u16(), body(response).await.unwrap())
    })
}

async fn leave<T>(task: JoinHandle<T>) {
    task.abort();
    let _ = task.await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot_wherever_it_is() {
    let server = start(slow()).await;
    for streaming in [false, true] {
        let request = chat("x", json!({"stream": streaming, "min_tokens": 1000}));
        let before = server.stats().cancelled;
        let running = background(&server, &request);
        let stats = until(&server, |stats| stats.running == 1).await;
        assert!(stats.kv_tokens_used >= 1001);
        let waiting = background(&server, &request);
        until(&server, |stats| stats.waiting == 1).await;
        leave(waiting).await;
        until(&server, |stats| stats.waiting == 0 && stats.cancelled == before + 1 && stats.running == 1).await;
        leave(running).await;
        until(&server, |stats| stats.running == 0 && stats.cancelled == before + 2 && stats.kv_tokens_used == 0).await;
    }
    let stats = server.stats();
    assert_eq!((stats.received, stats.started, stats.completed), (4, 2, 0));
}

#[tokio::test]
async fn a_stream_left_over_http2_stops_too() {
    let server = start(slow()).await;
    let request = chat("x", json!({"stream": true, "min_tokens": 1000}));
    let mut response = send_h2(server.address(), CHAT, request.to_string()).await;
    assert!(response.frame().await.unwrap().unwrap().is_data());
    assert_eq!(server.stats().running, 1);
    drop(response);
    until(&server, |stats| stats.running == 0 && stats.cancelled == 1).await;
}

#[tokio::test]
async fn the_line_is_served_in_order_and_bounded() {
    let server = start(slow().max_waiting(3)).await;
    let first = background(&server, &chat("x", json!({"min_tokens": 1000})));
    until(&server, |stats| stats.running == 1).await;
    let mut line = Vec::new();
    for i in 0..3 {
        line.push(background(&server, &chat("x", json!({"stream": true, "min_tokens": 1000 + i}))));
        until(&server, |stats| stats.waiting == i + 1).await;
    }
    let response = send(server.address(), "POST", CHAT, chat("x", json!({})).to_string()).await;
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert!(text(response).await.contains("queue_full"));
    leave(first).await;
    for (i, task) in (0..).zip(line) {
        // The KV cache tells who runs: each asks for one token more than the one before.
        let stats = until(&server, |stats| stats.running == 1 && stats.waiting == 2 - i).await;
        assert_eq!(stats.kv_tokens_used, 1001 + i);
        leave(task).await;
    }
    let stats = until(&server, |stats| stats.running == 0).await;
    assert_eq!((stats.refused, stats.cancelled), (1, 4));
}

#[tokio::test]
async fn the_kv_cache_makes_requests_wait() {
    let server = start(slow().slots(9).kv_tokens(1500)).await;
    let request = chat("x", json!({"min_tokens": 999}));
    let first = background(&server, &request);
    until(&server, |stats| stats.running == 1 && stats.kv_tokens_used == 1000).await;
    let second = background(&server, &request);
    until(&server, |stats| stats.waiting == 1).await;
    assert_eq!(server.stats().running, 1);
    let page = get(&server, "/metrics").await.1;
    assert!(page.contains("vllm:kv_cache_usage_perc{model_name=\"sim-7b\"} 0.66"));
    assert!(page.contains("vllm:num_requests_waiting{model_name=\"sim-7b\"} 1.0"));
    leave(first).await;
    until(&server, |stats| stats.waiting == 0 && stats.running == 1).await;
    leave(second).await;
    until(&server, |stats| stats.kv_tokens_used == 0).await;
    let never = chat("x", json!({"min_tokens": 1500}));
    assert_eq!(post(&server, CHAT, &never).await.1["error"]["code"], "context_length_exceeded");
}

#[tokio::test]
async fn tokens_take_their_time_and_the_head_does_not() {
    let rates = ModelServer::builder().prefill_tokens_per_second(100.0).decode_tokens_per_second(100.0);
    let server = start(rates.prefix_cache_blocks(100)).await;
    let extra = json!({"stream": true, "min_tokens": 16, "max_tokens": 16});
    let request = chat(&"0123456789abcdef".repeat(8), extra).to_string(); // 32 tokens
    let begun = Instant::now();
    let mut response = send(server.address(), "POST", CHAT, request.clone()).await;
    assert_eq!(server.stats().tokens_generated, 0, "the head came with a token");
    response.frame().await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(320));
    body(response).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(320 + 150));
    assert_eq!(until(&server, |stats| stats.completed == 1).await.tokens_generated, 16);
    body(send(server.address(), "POST", CHAT, request).await).await.unwrap();
    assert!(server.metrics().contains("vllm:prefix_cache_hits_total{model_name=\"sim-7b\"} 32.0"));
}

#[tokio::test]
async fn every_fault_does_what_it_says() {
    for instant in [true, false] {
        let server = start(ModelServer::builder().instant(instant).decode_tokens_per_second(2000.0)).await;
        for streaming in [false, true] {
            let request = chat("x", json!({"stream": streaming, "min_tokens": 40, "max_tokens": 40}));
            let failed = server.stats().failed;
            server.faults(Faults { error_share: 1.0, ..Faults::default() });
            let (status, answer) = post(&server, CHAT, &request).await;
            assert_eq!((status.as_u16(), &answer["error"]["code"]), (500, &json!("injected_error")));

            server.faults(Faults { garbage_share: 1.0, ..Faults::default() });
            let response = send(server.address(), "POST", CHAT, request.to_string()).await;
            assert_eq!(response.status().as_u16(), 200);
            assert!(serde_json::from_slice::<Value>(&body(response).await.unwrap()).is_err());

            server.faults(Faults { truncate_share: 1.0, ..Faults::default() });
            for h2 in [false, true] {
                let mut response = if h2 {
                    send_h2(server.address(), CHAT, request.to_string()).await
                } else {
                    send(server.address(), "POST", CHAT, request.to_string()).await
                };
                assert_eq!(response.status().as_u16(), 200);
                assert!(!response.frame().await.unwrap().unwrap().data_ref().unwrap().is_empty());
                assert!(body(response).await.is_err(), "instant {instant}, streaming {streaming}, h2 {h2}");
            }
            until(&server, |stats| stats.failed == failed + 4 && stats.running == 0).await;

            server.faults(Faults { hang_share: 1.0, ..Faults::default() });
            let cancelled = server.stats().cancelled;
            let hanging = background(&server, &request);
            until(&server, |stats| stats.running == 1).await;
            leave(hanging).await;
            until(&server, |stats| stats.running == 0 && stats.cancelled == cancelled + 1).await;
        }
        server.faults(Faults::default());
        assert_eq!(post(&server, CHAT, &chat("x", json!({}))).await.0.as_u16(), 200);
    }
}

#[tokio::test]
async fn a_slow_start_is_503_until_it_is_over() {
    let server = start(ModelServer::builder().instant(true).slow_start(Duration::from_secs(3600))).await;
    assert_eq!(get(&server, "/health").await.0.as_u16(), 503);
    let response = send(server.address(), "POST", CHAT, chat("x", json!({})).to_string()).await;
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"3600".parse().unwrap()));
    assert_eq!(get(&server, "/metrics").await.0.as_u16(), 200);
    let server = start(ModelServer::builder().slow_start(Duration::from_millis(1))).await;
    let begun = Instant::now();
    while get(&server, "/health").await.0.as_u16() != 200 {
        assert!(begun.elapsed() < LONG);
    }
}

#[tokio::test]
async fn stopping_cuts_what_outlasts_the_grace() {
    let server = start(slow().shutdown_grace(Duration::from_millis(1))).await;
    let address = server.address();
    let response =
        send(address, "POST", CHAT, chat("x", json!({"stream": true, "min_tokens": 1000})).to_string()).await;
    tokio::time::timeout(LONG, server.stop()).await.unwrap();
    assert!(body(response).await.is_err());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
