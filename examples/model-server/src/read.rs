//! Reads request bodies: bounded, and with errors that name the field.

use std::{future::poll_fn, pin::Pin};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Bodies and fields beyond which a bad field is not searched for.
const SEARCHED: (usize, usize) = (64 << 10, 32);

/// Reads the whole body, unless it is longer than `limit`.
pub(crate) async fn all(mut body: Incoming, limit: usize) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(ApiError::too_large(limit));
    }
    let (mut first, mut more) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| ApiError::invalid(None, "the request body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + more.len() + data.len() > limit {
            return Err(ApiError::too_large(limit));
        }
        if first.is_empty() {
            first = data; // most bodies are one frame: no copy
        } else {
            more.extend_from_slice(&data);
        }
    }
    if more.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + more.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&more);
    Ok(whole.freeze())
}

/// Reads a request from its JSON.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{') {
        return Err(ApiError::invalid(None, "the request body is not a JSON object")); // serde takes arrays for structs
    }
    let error = match serde_json::from_slice(bytes) {
        Ok(request) => return Ok(request),
        Err(error) => error,
    };
    if !error.is_data() {
        return Err(ApiError::invalid(None, format!("the request body is not valid JSON: {error}")));
    }
    Err(ApiError::invalid(bad_field::<T>(bytes, &error), format!("the request body has a bad value: {error}")))
}

/// Finds the field without which the request would be good: serde does not say.
fn bad_field<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    if let Some(name) = text.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next()) {
        return Some(name.to_owned());
    }
    if bytes.len() > SEARCHED.0 {
        return None;
    }
    let fields: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    let is_bad = |field: &&String| {
        let only = Map::from_iter([((*field).clone(), fields[*field].clone())]);
        serde_json::from_value::<T>(Value::Object(only)).is_err() // every field alone would do: all are optional
    };
    fields.keys().take(SEARCHED.1).find(is_bad).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChatRequest;

    #[test]
    fn errors_name_the_field() {
        let param = |text: &str| json::<ChatRequest>(text.as_bytes()).unwrap_err().param;
        assert_eq!(param(r#"{"model":"a","max_tokens":"x"}"#).as_deref(), Some("max_tokens"));
        assert_eq!(param(r#"{"model":"a","model":"b"}"#).as_deref(), Some("model"));
        assert_eq!(param(r#"{"messages":[{"role":5}]}"#).as_deref(), Some("messages"));
        assert_eq!(param(r#"{"model":"a""#), None);
        assert_eq!(param("[]"), None);
    }
}
