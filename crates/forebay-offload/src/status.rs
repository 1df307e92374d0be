//! The status document of a job, and the problems of the router.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::policy::Job;

/// Describes a job as JSON; `location` is its own URL, token included.
pub(crate) fn document(job: &Job, location: &str) -> Value {
    let (path, query) = location.split_once('?').map_or((location, None), |(path, query)| (path, Some(query)));
    let link = |tail: &str| match query {
        Some(query) => format!("{path}{tail}?{query}"),
        None => format!("{path}{tail}"),
    };
    let mut document = json!({
        "id": job.id.to_string(),
        "state": job.state.as_str(),
        "class": job.class.as_str(),
        "attempt": job.attempts,
        "max_attempts": job.max_attempts,
        "created_at": rfc3339(job.created),
        "expires_at": rfc3339(job.expires),
        "links": { "self": link(""), "result": link("/result"), "cancel": link("/cancel") },
    });
    let optional = [
        ("started_at", job.started.map(|at| rfc3339(at).into())),
        ("ended_at", job.ended.map(|at| rfc3339(at).into())),
        ("http_status", job.http_status.map(Value::from)),
        ("problem", job.cause.map(|cause| cause.as_str().into())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            document[name] = value;
        }
    }
    document
}

/// Makes a response of a JSON document.
pub(crate) fn json_response(status: StatusCode, document: &Value) -> Response<Bytes> {
    respond(status, "application/json", document)
}

/// Makes a problem document (RFC 9457).
pub(crate) fn problem(status: StatusCode, name: &str, detail: &str) -> Response<Bytes> {
    let document = json!({
        "type": format!("urn:forebay:problem:{name}"),
        "title": status.canonical_reason().unwrap_or("Refused"),
        "status": status.as_u16(),
        "detail": detail,
    });
    respond(status, "application/problem+json", &document)
}

fn respond(status: StatusCode, content_type: &'static str, document: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(document.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Writes milliseconds since 1970 as RFC 3339 in UTC.
fn rfc3339(ms: u64) -> String {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{:03}Z", of_day / 1_000 % 60, of_day % 1_000)
}

/// Turns days since 1970 into year, month, day (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`, here for days that are not negative).
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // counted from 0000-03-01
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153; // 0 = March
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + (month <= 2) as u64, month, day)
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_735_689_599_999), "2024-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert!(rfc3339(u64::MAX).ends_with('Z'));
    }
}
