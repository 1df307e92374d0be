//! Refusals as problem documents (RFC 9457) with the member that OpenAI's clients read:
//! `{"type","title","status","detail","error":{"message","type","param","code"}}`.

use http::StatusCode;
use serde::Serialize;

/// An error answer before it is one.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) kind: &'static str,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
    pub(crate) retry_after_seconds: Option<u64>,
    pub(crate) allow: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, kind, param: None, code: None, retry_after_seconds: None, allow: None }
    }

    pub(crate) fn invalid(param: impl Into<Option<String>>, message: impl Into<String>) -> Self {
        Self { param: param.into(), ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message) }
    }

    pub(crate) fn missing(param: &str) -> Self {
        let message = format!("missing required parameter: '{param}'");
        Self { code: Some("missing_required_parameter"), ..Self::invalid(param.to_owned(), message) }
    }

    pub(crate) fn bad_value(param: &str, message: &str) -> Self {
        Self { code: Some("invalid_value"), ..Self::invalid(param.to_owned(), format!("'{param}' {message}")) }
    }

    pub(crate) fn too_long(room: u64, prompt: u64, output: u64) -> Self {
        let message = format!(
            "this model's maximum context length is {room} tokens, but {prompt} prompt and {output} output tokens were \
             requested"
        );
        Self { code: Some("context_length_exceeded"), ..Self::invalid(None, message) }
    }

    pub(crate) fn model_not_found(model: &str) -> Self {
        let message = format!("the model `{model}` does not exist");
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        Self { param: Some("model".to_owned()), code: Some("model_not_found"), ..error }
    }

    pub(crate) fn no_route(method: &str, path: &str) -> Self {
        let message = format!("unknown request URL: {method} {path}");
        Self { code: Some("unknown_url"), ..Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message) }
    }

    pub(crate) fn wrong_method(method: &str, path: &str, allow: &'static str) -> Self {
        let message = format!("{path} answers to {allow}, not to {method}");
        let error = Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message);
        Self { code: Some("method_not_allowed"), allow: Some(allow), ..error }
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the request body is larger than {limit} bytes");
        let error = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message);
        Self { code: Some("request_too_large"), ..error }
    }

    pub(crate) fn unavailable(code: &'static str, message: &str, retry_after_seconds: u64) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message);
        Self { code: Some(code), retry_after_seconds: Some(retry_after_seconds), ..error }
    }

    pub(crate) fn injected() -> Self {
        let message = "the simulator was told to fail this request";
        Self { code: Some("injected_error"), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message) }
    }

    /// Renders the body.
    pub(crate) fn body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            title: &'a str,
            status: u16,
            detail: &'a str,
            error: Detail<'a>,
        }
        #[derive(Serialize)]
        struct Detail<'a> {
            message: &'a str,
            #[serde(rename = "type")]
            kind: &'a str,
            param: Option<&'a str>,
            code: Option<&'a str>,
        }
        let detail = Detail { message: &self.message, kind: self.kind, param: self.param.as_deref(), code: self.code };
        let body = Body {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.message,
            error: detail,
        };
        serde_json::to_vec(&body).unwrap_or_default() // strings and a number: cannot fail
    }
}
