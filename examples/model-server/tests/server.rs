//! Proves over real sockets: answers are the promised ones, whole, streamed and over HTTP/2; bad input is refused by
//! name; metrics have their names.

mod support;

use forebay_model_server::{
    ChatRequest, CompletionRequest, ModelServer, completion_answers, embedding, expected_body, expected_text,
};
use http::StatusCode;
use serde_json::{Value, json};
use support::*;

fn instant() -> forebay_model_server::ConfigBuilder {
    ModelServer::builder().instant(true)
}

#[tokio::test]
async fn two_servers_answer_byte_for_byte_as_promised() {
    let (a, b) = (start(instant()).await, start(ModelServer::builder().decode_tokens_per_second(1e6)).await);
    let request = chat("why dams?", json!({"max_tokens": 20, "n": 2}));
    let promised = expected_body(&serde_json::from_value(request.clone()).unwrap()).unwrap();
    for server in [&a, &b] {
        let response = send(server.address(), "POST", CHAT, request.to_string()).await;
        assert_eq!(response.headers()["content-length"], promised.len().to_string());
        assert_eq!(body(response).await.unwrap(), promised);
    }
    let (_, answer) = post(&a, CHAT, &request).await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][1]["message"]["role"], "assistant");
    let usage = &answer["usage"];
    assert_eq!(
        usage["total_tokens"],
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );
}

#[tokio::test]
async fn a_stream_says_what_the_whole_says() {
    for server in [start(instant()).await, start(ModelServer::builder().decode_tokens_per_second(3000.0)).await] {
        let request = chat("rivers", json!({"stream": true, "stream_options": {"include_usage": true}}));
        let response = send(server.address(), "POST", CHAT, request.to_string()).await;
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        let events = events(&text(response).await);
        let typed: ChatRequest = serde_json::from_value(request.clone()).unwrap();
        assert_eq!(streamed_text(&events), expected_text(&typed));
        let (_, whole) = post(&server, CHAT, &chat("rivers", json!({}))).await;
        assert_eq!(whole["choices"][0]["message"]["content"], expected_text(&typed));
        let (last, rest) = events.split_last().unwrap();
        assert_eq!((&last["usage"], &last["choices"]), (&whole["usage"], &json!([])));
        assert_eq!(rest.last().unwrap()["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"]);
        assert!(rest.iter().all(|event| event["usage"] == Value::Null && event["id"] == whole["id"]));
        let tokens =
            rest.iter().filter(|e| e["choices"][0]["delta"]["content"].as_str().is_some_and(|c| !c.is_empty()));
        assert_eq!(tokens.count() as u64, whole["usage"]["completion_tokens"].as_u64().unwrap());
        assert_eq!(until(&server, |stats| stats.running == 0).await.completed, 2);
    }
}

#[tokio::test]
async fn completions_answer_each_prompt() {
    let server = start(instant()).await;
    let request = json!({"model": "sim-7b", "prompt": ["one", "two"], "min_tokens": 100, "max_tokens": 100});
    let (status, answer) = post(&server, "/v1/completions", &request).await;
    let promised: CompletionRequest = serde_json::from_value(request.clone()).unwrap();
    let promised = completion_answers(&promised);
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["usage"]["completion_tokens"], 200);
    let mut streaming = request;
    streaming["stream"] = json!(true);
    let response = send(server.address(), "POST", "/v1/completions", streaming.to_string()).await;
    let events = events(&text(response).await);
    for (i, promised) in promised.iter().enumerate() {
        assert_eq!(answer["choices"][i]["text"], promised.text());
        let choices = events.iter().map(|event| &event["choices"][0]).filter(|choice| choice["index"] == i);
        assert_eq!(choices.map(|choice| choice["text"].as_str().unwrap()).collect::<String>(), promised.text());
    }
}

#[tokio::test]
async fn http2_is_served_on_the_same_port() {
    let server = start(ModelServer::builder().decode_tokens_per_second(3000.0)).await;
    let request = chat("h2", json!({"stream": true}));
    let response = send_h2(server.address(), CHAT, request.to_string()).await;
    assert_eq!(response.version(), http::Version::HTTP_2);
    let typed: ChatRequest = serde_json::from_value(request).unwrap();
    assert_eq!(streamed_text(&events(&text(response).await)), expected_text(&typed));
}

#[tokio::test]
async fn embeddings_are_the_same_as_floats_and_base64() {
    let server = start(instant()).await;
    let ask =
        |format: &str| json!({"model": "sim-7b", "input": ["a", "b"], "encoding_format": format, "dimensions": 7});
    let (_, floats) = post(&server, "/v1/embeddings", &ask("float")).await;
    let (_, base64) = post(&server, "/v1/embeddings", &ask("base64")).await;
    for (i, input) in ["a", "b"].into_iter().enumerate() {
        let floats: Vec<f32> = serde_json::from_value(floats["data"][i]["embedding"].clone()).unwrap();
        assert_eq!(floats, embedding("sim-7b", input, 7));
        let bytes = decode(base64["data"][i]["embedding"].as_str().unwrap());
        let decoded: Vec<_> = bytes.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
        assert_eq!(decoded, floats);
    }
    let (_, tokens) = post(&server, "/v1/embeddings", &json!({"model": "sim-7b", "input": [1, 2, 3]})).await;
    assert_eq!(tokens["usage"]["prompt_tokens"], 3);
    assert_eq!(tokens["data"][0]["embedding"].as_array().unwrap().len(), 256);
}

fn decode(base64: &str) -> Vec<u8> {
    let digit = |c| "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".find(c).unwrap() as u32;
    let digits: Vec<u32> = base64.trim_end_matches('=').chars().map(digit).collect();
    let bytes = digits.chunks(4).flat_map(|chunk| {
        let bits = chunk.iter().enumerate().fold(0, |bits, (i, digit)| bits | digit << (18 - 6 * i));
        bits.to_be_bytes()[1..chunk.len()].to_vec()
    });
    bytes.collect()
}

#[tokio::test]
async fn bad_input_is_refused_by_name() {
    let server = start(instant().model("sim-7b").model("org/big").max_body_bytes(1000).kv_tokens(5000)).await;
    let long = "x".repeat(2000);
    let good = |extra| chat("x", extra).to_string();
    let (messages, role) = (
        json!({"model": "sim-7b"}).to_string(),
        json!({"model": "sim-7b", "messages": [{"content": "a"}]}).to_string(),
    );
    let completion = |prompt: Value| json!({"model": "sim-7b", "prompt": prompt}).to_string();
    let input = |input: Value| json!({"model": "sim-7b", "input": input}).to_string();
    let table: Vec<(&str, String, u16, Value, Value)> = vec![
        (CHAT, "{".into(), 400, Value::Null, Value::Null),
        (CHAT, String::new(), 400, Value::Null, Value::Null),
        (CHAT, "[1]".into(), 400, Value::Null, Value::Null),
        (CHAT, r#"{"model":"a","model":"b"}"#.into(), 400, json!("model"), Value::Null),
        (
            CHAT,
            r#"{"messages":[{"role":"user","content":"a"}]}"#.into(),
            400,
            json!("model"),
            json!("missing_required_parameter"),
        ),
        (CHAT, messages, 400, json!("messages"), json!("missing_required_parameter")),
        (CHAT, role, 400, json!("messages[0].role"), json!("missing_required_parameter")),
        (CHAT, good(json!({"messages": []})), 400, json!("messages"), json!("invalid_value")),
        (CHAT, good(json!({"max_tokens": "9"})), 400, json!("max_tokens"), Value::Null),
        (CHAT, good(json!({"max_tokens": 0})), 400, json!("max_tokens"), json!("invalid_value")),
        (CHAT, good(json!({"max_completion_tokens": -1})), 400, json!("max_completion_tokens"), Value::Null),
        (CHAT, good(json!({"min_tokens": 5, "max_tokens": 4})), 400, json!("min_tokens"), json!("invalid_value")),
        (CHAT, good(json!({"n": 17})), 400, json!("n"), json!("invalid_value")),
        (CHAT, good(json!({"temperature": 3})), 400, json!("temperature"), json!("invalid_value")),
        (CHAT, good(json!({"min_tokens": 4_000_000_000_u32})), 400, Value::Null, json!("context_length_exceeded")),
        (CHAT, good(json!({"model": "other"})), 404, json!("model"), json!("model_not_found")),
        (CHAT, good(json!({"user": long})), 413, Value::Null, json!("request_too_large")),
        ("/v1/completions", completion(json!({})), 400, json!("prompt"), json!("invalid_value")),
        ("/v1/completions", completion(Value::Null), 400, json!("prompt"), json!("missing_required_parameter")),
        ("/v1/embeddings", input(json!([[]])), 400, json!("input"), json!("invalid_value")),
        (
            "/v1/embeddings",
            json!({"model": "sim-7b", "input": "a", "encoding_format": "x"}).to_string(),
            400,
            json!("encoding_format"),
            json!("invalid_value"),
        ),
        ("/v1/nothing", String::new(), 404, Value::Null, json!("unknown_url")),
        ("/v1/models", String::new(), 405, Value::Null, json!("method_not_allowed")),
    ];
    for (path, request, status, param, code) in table {
        let response = send(server.address(), "POST", path, request.clone()).await;
        assert_eq!(response.status().as_u16(), status, "{path} {request}");
        let answer: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(
            (&answer["error"]["param"], &answer["error"]["code"]),
            (&param, &code),
            "{path} {request}: {answer}"
        );
        assert!(answer["error"]["message"].is_string() && answer["error"]["type"].is_string());
    }
    let response = send(server.address(), "GET", CHAT, "").await;
    assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"POST".parse().unwrap()));
    assert_eq!(server.stats().received, 0);
    let (_, models) = get(&server, "/v1/models").await;
    let models: Value = serde_json::from_str(&models).unwrap();
    assert_eq!((&models["data"][0]["id"], &models["data"][1]["id"]), (&json!("sim-7b"), &json!("org/big")));
    assert_eq!(get(&server, "/v1/models/org%2Fbig").await.0, StatusCode::OK);
    assert_eq!(get(&server, "/v1/models/none").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn metrics_have_the_names_of_vllm_and_dcgm() {
    let server = start(ModelServer::builder().model("a\"b").memory_pressure(0.25).gpu_memory_mib(1000)).await;
    let request = json!({"model": "a\"b", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2});
    assert_eq!(post(&server, CHAT, &request).await.0, StatusCode::OK);
    let page = get(&server, "/metrics").await.1;
    let value = |series: &str| {
        let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {series}")).rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    for name in ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "num_preemptions_total"] {
        assert_eq!(value(&format!("vllm:{name}{{model_name=\"a\\\"b\"}}")), 0.0);
    }
    assert_eq!(value("vllm:generation_tokens_total{model_name=\"a\\\"b\"}"), 2.0);
    assert_eq!(value("vllm:prompt_tokens_total{model_name=\"a\\\"b\"}"), 1.0);
    assert_eq!(value("vllm:request_success_total{finished_reason=\"length\",model_name=\"a\\\"b\"}"), 1.0);
    assert_eq!(value("vllm:time_to_first_token_seconds_bucket{le=\"+Inf\",model_name=\"a\\\"b\"}"), 1.0);
    assert!(value("vllm:e2e_request_latency_seconds_sum{model_name=\"a\\\"b\"}") > 0.0);
    let dcgm = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(&format!("{name}{{gpu=\"0\",UUID=\"GPU-"))).unwrap();
        assert!(line.contains("modelName=\"NVIDIA H100 80GB HBM3\""));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!((dcgm("DCGM_FI_DEV_FB_USED"), dcgm("DCGM_FI_DEV_FB_FREE")), (250.0, 750.0));
    assert_eq!(dcgm("DCGM_FI_DEV_XID_ERRORS"), 0.0);
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(page.contains(&format!("# TYPE {family} ")) && page.contains(&format!("# HELP {family} ")), "{line}");
    }
    server.memory_pressure(1.0);
    server.xid(79);
    let page = server.metrics();
    assert!(page.lines().any(|line| line.starts_with("DCGM_FI_DEV_FB_FREE{") && line.ends_with(" 0")));
    assert!(page.lines().any(|line| line.starts_with("DCGM_FI_DEV_XID_ERRORS{") && line.ends_with(" 79")));
}
