//! What each path answers.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::time::sleep_until;

use crate::{
    ChatRequest, CompletionRequest, EmbeddingRequest,
    answer::CREATED,
    body::Reply,
    embed::EmbedPlan,
    engine::{Engine, Run},
    error::ApiError,
    faults::Fault,
    metrics,
    plan::Plan,
    read,
    stats::add,
    stream::Sse,
    wire,
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const GARBAGE: &[u8] = b"\x15\x03<<<{\"choices\": [ this is not JSON";

/// Answers one request.
pub(crate) async fn answer(engine: Arc<Engine>, request: Request<Incoming>) -> Result<Response<Reply>, Infallible> {
    if !engine.config.log_requests {
        return Ok(route(&engine, request).await.unwrap_or_else(|error| refusal(&error)));
    }
    let line = format!("{} {}", request.method(), request.uri().path());
    let response = route(&engine, request).await.unwrap_or_else(|error| refusal(&error));
    eprintln!("{line} {}", response.status().as_u16());
    Ok(response)
}

async fn route(engine: &Arc<Engine>, request: Request<Incoming>) -> Result<Response<Reply>, ApiError> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let allow = match path {
        "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings" => "POST",
        "/v1/models" | "/health" | "/metrics" | "/stats" => "GET",
        _ if path.starts_with("/v1/models/") => "GET",
        _ => return Err(ApiError::no_route(head.method.as_str(), path)),
    };
    let allowed = if allow == "POST" {
        head.method == Method::POST
    } else {
        head.method == Method::GET || head.method == Method::HEAD
    };
    if !allowed {
        return Err(ApiError::wrong_method(head.method.as_str(), path, allow));
    }
    match path {
        "/metrics" => return Ok(text(&metrics::CONTENT_TYPE, metrics::render(engine))),
        "/stats" => return Ok(text(&JSON, wire::json(&engine.stats()))),
        _ => {}
    }
    if let Some(left) = engine.starting() {
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        return Err(ApiError::unavailable("starting", "the simulated model is still loading", seconds));
    }
    match path {
        "/health" => return Ok(Response::new(Reply::whole(Bytes::new()))),
        "/v1/models" => return Ok(text(&JSON, models(&engine.config.models))),
        _ => {}
    }
    if let Some(name) = path.strip_prefix("/v1/models/") {
        let name = unescape(name);
        known(engine, &name)?;
        return Ok(text(&JSON, wire::json(&Model::new(&name))));
    }
    let bytes = read::all(body, engine.config.max_body_bytes).await?;
    let (room, blocks) = (engine.config.kv_tokens, engine.has_prefix_cache());
    match path {
        "/v1/chat/completions" => {
            generate(engine, Plan::chat(&read::json::<ChatRequest>(&bytes)?, room, blocks)?).await
        }
        "/v1/completions" => {
            generate(engine, Plan::completion(&read::json::<CompletionRequest>(&bytes)?, room, blocks)?).await
        }
        _ => {
            let request = read::json::<EmbeddingRequest>(&bytes)?;
            embed(engine, &EmbedPlan::new(&request, room, engine.config.embedding_dimensions)?).await
        }
    }
}

async fn generate(engine: &Arc<Engine>, plan: Plan) -> Result<Response<Reply>, ApiError> {
    known(engine, &plan.model)?;
    let fault = begin(engine)?;
    let run = admit(engine, plan.prompt_tokens + plan.completion_tokens).await?;
    hang_if(fault).await;
    if fault == Some(Fault::Garbage) {
        run.fail();
        return Ok(text(&JSON, Bytes::from_static(GARBAGE)));
    }
    let pace = engine.pace(plan.prompt_tokens, &plan.blocks);
    if plan.stream {
        let sse = Sse::new(plan, run, pace, fault == Some(Fault::Truncate));
        let mut response = text(&HeaderValue::from_static("text/event-stream; charset=utf-8"), Bytes::new());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        *response.body_mut() = Reply::Stream(Box::new(sse));
        return Ok(response);
    }
    if let Some(pace) = pace {
        sleep_until(pace.at(plan.steps() - 1)).await;
    }
    run.prefilled(plan.prompt_tokens, pace.map(|pace| pace.first));
    let body = wire::whole(&plan);
    if fault == Some(Fault::Truncate) {
        return Ok(half(run, body));
    }
    run.generated(plan.completion_tokens);
    run.complete(plan.finish());
    Ok(text(&JSON, body))
}

async fn embed(engine: &Arc<Engine>, plan: &EmbedPlan) -> Result<Response<Reply>, ApiError> {
    known(engine, plan.model())?;
    let fault = begin(engine)?;
    let run = admit(engine, plan.tokens).await?;
    hang_if(fault).await;
    if fault == Some(Fault::Garbage) {
        run.fail();
        return Ok(text(&JSON, Bytes::from_static(GARBAGE)));
    }
    let blocks = if engine.has_prefix_cache() { plan.blocks() } else { Vec::new() };
    let pace = engine.pace(plan.tokens, &blocks);
    if let Some(pace) = pace {
        sleep_until(pace.first).await;
    }
    run.prefilled(plan.tokens, pace.map(|pace| pace.first));
    let body = plan.body();
    if fault == Some(Fault::Truncate) {
        return Ok(half(run, body));
    }
    run.complete(crate::FinishReason::Stop);
    Ok(text(&JSON, body))
}

/// Counts a good request and decides its fate.
fn begin(engine: &Engine) -> Result<Option<Fault>, ApiError> {
    add(&engine.counters.received, 1);
    let fault = engine.faults.next();
    if fault == Some(Fault::Error) {
        add(&engine.counters.failed, 1);
        return Err(ApiError::injected());
    }
    Ok(fault)
}

async fn admit(engine: &Arc<Engine>, tokens: u64) -> Result<Run, ApiError> {
    let admitted = engine.admit(tokens).await;
    admitted.map_err(|_| ApiError::unavailable("queue_full", "too many requests are waiting for the model", 1))
}

/// A hanging request keeps its slot until its client leaves.
async fn hang_if(fault: Option<Fault>) {
    if fault == Some(Fault::Hang) {
        std::future::pending::<()>().await;
    }
}

fn half(run: Run, body: Bytes) -> Response<Reply> {
    run.fail();
    let mut response = text(&JSON, Bytes::new());
    *response.body_mut() = Reply::half(body);
    response
}

fn known(engine: &Engine, model: &str) -> Result<(), ApiError> {
    let known = engine.config.models.iter().any(|name| name == model);
    known.then_some(()).ok_or_else(|| ApiError::model_not_found(model))
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

impl<'a> Model<'a> {
    const fn new(id: &'a str) -> Self {
        Self { id, object: "model", created: CREATED, owned_by: "forebay-simulator" }
    }
}

fn models(names: &[String]) -> Bytes {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'static str,
        data: Vec<Model<'a>>,
    }
    wire::json(&List { object: "list", data: names.iter().map(|name| Model::new(name)).collect() })
}

/// Undoes percent-encoding (RFC 3986, section 2.1): SDKs encode the slash of `org/model`. What is no escape stays.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digit = |i: usize| after.get(i).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0).zip(digit(1))) {
            (b'%', Some((high, low))) => {
                bytes.push((high * 16 + low) as u8); // two hexadecimal digits fit
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn text(kind: &HeaderValue, bytes: impl Into<Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::whole(bytes));
    response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    response
}

fn refusal(error: &ApiError) -> Response<Reply> {
    let mut response = text(&PROBLEM, error.body());
    *response.status_mut() = error.status;
    if let Some(seconds) = error.retry_after_seconds {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    if let Some(allow) = error.allow {
        let allow = if allow == "GET" { "GET, HEAD" } else { allow };
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    if error.status == StatusCode::PAYLOAD_TOO_LARGE {
        response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    #[test]
    fn escapes_are_undone_and_the_rest_stays() {
        assert_eq!(super::unescape("org%2Fmodel"), "org/model");
        assert_eq!(super::unescape("a%2"), "a%2");
        assert_eq!(super::unescape("%zz%"), "%zz%");
    }
}
