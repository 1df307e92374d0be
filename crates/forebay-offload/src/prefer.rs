use http::{HeaderMap, HeaderValue};

use crate::headers::PREFER;

/// Bytes of all `Prefer` fields of a request that are looked at; a longer one is as good as none.
const MAX_BYTES: usize = 4_096;

/// What a client prefers (RFC 7240), as far as it concerns us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Preferences {
    /// `respond-async` (section 4.1).
    pub(crate) respond_async: bool,
    /// `wait=N`, in seconds (section 4.3).
    pub(crate) wait_s: Option<u64>,
}

impl Preferences {
    /// Reads all `Prefer` fields; a preference given twice counts as given first (section 2).
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        let mut seen_wait = false;
        for (name, value) in preferences(headers).map(split) {
            if name.eq_ignore_ascii_case("respond-async") {
                // It has no value; an empty one is the same as none (section 2).
                found.respond_async |= value.is_none_or(|value| value == "\"\"" || value.is_empty());
            } else if name.eq_ignore_ascii_case("wait") && !seen_wait {
                seen_wait = true;
                found.wait_s = value.and_then(seconds);
            }
        }
        found
    }
}

/// Takes the preferences that a job has honoured out of the `Prefer` fields.
pub(crate) fn remove_applied(headers: &mut HeaderMap) {
    if !headers.contains_key(PREFER) {
        return;
    }
    let applied = |name: &str| name.eq_ignore_ascii_case("respond-async") || name.eq_ignore_ascii_case("wait");
    let rest: Vec<&str> = preferences(headers).filter(|preference| !applied(split(preference).0)).collect();
    let rest = (!rest.is_empty()).then(|| HeaderValue::from_str(&rest.join(", "))).and_then(Result::ok);
    headers.remove(PREFER);
    if let Some(rest) = rest {
        headers.insert(PREFER, rest);
    }
}

/// `preference [ BWS ";" parameters ]`, trimmed, one by one.
fn preferences(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let bytes: usize = headers.get_all(PREFER).iter().map(HeaderValue::len).sum();
    let fields = headers.get_all(PREFER).iter().filter(move |_| bytes <= MAX_BYTES);
    fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| outside_quotes(field, ','))
        .map(str::trim)
        .filter(|preference| !preference.is_empty())
}

/// `token [ BWS "=" BWS word ]`, without parameters.
fn split(preference: &str) -> (&str, Option<&str>) {
    let main = outside_quotes(preference, ';').next().unwrap_or_default();
    match main.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (main.trim(), None),
    }
}

fn seconds(value: &str) -> Option<u64> {
    let digits = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // Too many digits for 64 bits still mean "very long".
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Splits at `separator` where it stands outside of quoted strings (RFC 9110, section 5.6.4).
fn outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let literal = std::mem::take(&mut escaped);
        match c {
            _ if literal => false,
            '\\' if quoted => {
                escaped = true;
                false
            }
            '"' => {
                quoted = !quoted;
                false
            }
            _ => c == separator && !quoted,
        }
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{Preferences, remove_applied};

    fn headers(fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append("prefer", HeaderValue::from_str(field).unwrap());
        }
        headers
    }

    fn read(fields: &[&str]) -> (bool, Option<u64>) {
        let found = Preferences::of(&headers(fields));
        (found.respond_async, found.wait_s)
    }

    #[test]
    fn the_forms_of_rfc_7240() {
        assert_eq!(read(&["respond-async, wait=100"]), (true, Some(100)));
        assert_eq!(read(&["respond-async", "wait=100"]), (true, Some(100)));
        assert_eq!(read(&["Respond-Async; foo=\"a,b\" , WAIT = \"10\""]), (true, Some(10)));
        assert_eq!(read(&["priority=5, lenient; respond-async"]), (false, None));
        assert_eq!(read(&["foo=\"respond-async, \\\" wait=1\", return=minimal"]), (false, None));
        assert_eq!(read(&["respond-async=\"\""]), (true, None));
        assert_eq!(read(&["wait=10, wait=20"]), (false, Some(10)));
    }

    #[test]
    fn nonsense_is_ignored() {
        for field in
            ["wait=-1", "wait", "wait=", "wait=1.5", "wait=\"", "respond-async=yes", ",,;=;,", "x\"respond-async"]
        {
            assert_eq!(read(&[field]), (false, None), "{field}");
        }
        assert_eq!(read(&["wait=x, wait=5"]), (false, None));
        assert_eq!(read(&["wait=99999999999999999999999"]), (false, Some(u64::MAX)));
        assert_eq!(read(&[&format!("{}respond-async", ",".repeat(8_192))]), (false, None));
    }

    #[test]
    fn only_the_applied_goes() {
        let mut some = headers(&["respond-async, return=minimal", "wait=5; x=1, handling=lenient"]);
        remove_applied(&mut some);
        assert_eq!(some["prefer"], "return=minimal, handling=lenient");
        let mut all = headers(&["respond-async"]);
        remove_applied(&mut all);
        assert!(!all.contains_key("prefer"));
    }
}
