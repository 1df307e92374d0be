//! Which header fields are stored with a job, and which the worker adds.

use http::{HeaderMap, HeaderName, header};

/// The job's id, on the request that a worker sends.
pub const JOB_ID: HeaderName = HeaderName::from_static("forebay-job-id");
/// The number of the attempt, from 1, on the request that a worker sends.
pub const JOB_ATTEMPT: HeaderName = HeaderName::from_static("forebay-job-attempt");
/// The fencing token of the attempt, on the request that a worker sends: it grows with each.
pub const JOB_TOKEN: HeaderName = HeaderName::from_static("forebay-job-token");

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Meant for one connection (RFC 9110, section 7.6.1), whatever `Connection` lists.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Takes out of a request's fields what is not stored: credentials, what was for one connection, what was for us.
pub(crate) fn strip_request(headers: &mut HeaderMap, keep: &[HeaderName]) {
    let ours = [JOB_ID, JOB_ATTEMPT, JOB_TOKEN];
    strip(headers, |name, listed| {
        // What would break the replay, or lie about who sent it, cannot be kept.
        if listed || HOP_BY_HOP.contains(name) || ours.contains(name) {
            return true;
        }
        let secret = *name == header::AUTHORIZATION || *name == header::COOKIE || name.as_str().starts_with("proxy-");
        let spent = *name == PREFER || *name == header::EXPECT;
        (secret || spent) && !keep.contains(name)
    });
}

/// Takes out of a response's fields what is not stored: what was for one connection, and cookies.
pub(crate) fn strip_response(headers: &mut HeaderMap, keep: &[HeaderName]) {
    strip(headers, |name, listed| {
        listed
            || HOP_BY_HOP.contains(name)
            || ((*name == header::SET_COOKIE || name.as_str().starts_with("proxy-")) && !keep.contains(name))
    });
}

fn strip(headers: &mut HeaderMap, goes: impl Fn(&HeaderName, bool) -> bool) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let gone: Vec<HeaderName> = headers.keys().filter(|name| goes(name, listed.contains(name))).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{strip_request, strip_response};

    fn fields(names: &[&'static str]) -> HeaderMap {
        names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x"))).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn credentials_and_connection_fields_are_not_stored() {
        let mut headers = fields(&[
            "authorization",
            "cookie",
            "proxy-authorization",
            "prefer",
            "expect",
            "keep-alive",
            "transfer-encoding",
            "forebay-job-id",
            "x-hop",
            "accept",
            "content-type",
        ]);
        headers.insert("connection", HeaderValue::from_static("close, X-Hop"));
        strip_request(&mut headers, &[]);
        assert_eq!(names(&headers), ["accept", "content-type"]);
    }

    #[test]
    fn what_is_kept_is_kept_but_for_what_lies() {
        let mut headers = fields(&["authorization", "forebay-job-token", "te"]);
        let keep = ["authorization", "forebay-job-token", "te"].map(HeaderName::from_static);
        strip_request(&mut headers, &keep);
        assert_eq!(names(&headers), ["authorization"]);
    }

    #[test]
    fn a_response_loses_its_cookies() {
        let mut headers = fields(&["set-cookie", "connection", "etag"]);
        strip_response(&mut headers, &[]);
        assert_eq!(names(&headers), ["etag"]);
    }
}
