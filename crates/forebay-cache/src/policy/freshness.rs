//! How long an answer is fresh, and whether it may be kept at all: RFC 9111.

use std::time::{Duration, SystemTime};

use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, COOKIE, DATE, EXPIRES, HeaderMap, HeaderName, LAST_MODIFIED, PRAGMA, SET_COOKIE,
    VARY,
};

/// The most fields of `Vary` that are followed; more make an answer uncacheable.
const MAX_VARY: usize = 16;
/// The longest heuristic lifetime.
const HEURISTIC_MS: u64 = 24 * 3600 * 1000;
/// The longest time that a directive can name, in seconds (RFC 9111, section 1.2.2).
const MAX_SECONDS: u64 = 1 << 31;
/// Targeted fields (RFC 9213) take the place of `Cache-Control`; until they are understood, their answers pass.
const TARGETED: [HeaderName; 2] =
    [HeaderName::from_static("forebay-cache-control"), HeaderName::from_static("cdn-cache-control")];

/// The directives of `Cache-Control` that matter here, of either side. Times are in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Directives {
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) private: bool,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<u64>,
    pub(crate) s_maxage: Option<u64>,
    pub(crate) min_fresh: Option<u64>,
}

impl Directives {
    /// Reads all lines of the field. A time that is no time is 0; of two times the shorter counts; `no-cache="field"` and
    /// `private="field"` count as the whole.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            let mut quoted = false;
            let items = line.as_bytes().split(|&byte| {
                quoted ^= byte == b'"';
                byte == b',' && !quoted
            });
            items.for_each(|item| found.read(item));
        }
        found
    }

    fn read(&mut self, item: &[u8]) {
        let Ok(item) = std::str::from_utf8(item) else { return };
        let (name, value) = item.split_once('=').map_or((item, None), |(name, value)| (name, Some(value)));
        let seconds = || {
            let value = value.unwrap_or_default().trim().trim_matches('"');
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            if digits { value.parse().unwrap_or(MAX_SECONDS).min(MAX_SECONDS) } else { 0 }
        };
        let shorter = |known: Option<u64>| Some(known.map_or_else(seconds, |known| known.min(seconds())));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = true,
            "private" => self.private = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => self.max_age = shorter(self.max_age),
            "s-maxage" => self.s_maxage = shorter(self.s_maxage),
            "min-fresh" => self.min_fresh = Some(self.min_fresh.unwrap_or(0).max(seconds())),
            _ => {}
        }
    }

    /// The directives of a request, where `Pragma: no-cache` stands in for an absent `Cache-Control`.
    pub(crate) fn of_request(headers: &HeaderMap) -> Self {
        let mut found = Self::of(headers);
        if !headers.contains_key(CACHE_CONTROL) {
            found.no_cache =
                headers.get(PRAGMA).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"no-cache"));
        }
        found
    }

    /// Whether a request with these directives takes an answer of this age (both in ms).
    pub(crate) fn takes(&self, age: u64, lifetime: u64) -> bool {
        let young = self.max_age.is_none_or(|max| age <= max * 1000);
        young && lifetime.saturating_sub(age) >= self.min_fresh.unwrap_or(0) * 1000
    }
}

/// When an answer was as good as born, and how long it is fresh from then; both in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freshness {
    pub(crate) born: u64,
    pub(crate) lifetime: u64,
}

impl Freshness {
    pub(crate) const fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.born)
    }

    pub(crate) const fn left(&self, now: u64) -> u64 {
        self.lifetime.saturating_sub(self.age(now))
    }
}

/// The freshness of a 200 to a GET, or `None` if a shared cache must not keep it (RFC 9111, sections 3 and 4.2). Answers
/// that set a cookie, or were asked for with one, are treated like those to `Authorization`: only `public` or `s-maxage`
/// lets them be kept, which is stricter than the RFC.
pub(crate) fn of_get(request: &HeaderMap, response: &HeaderMap, sent: u64, received: u64) -> Option<Freshness> {
    let control = Directives::of(response);
    if control.no_store
        || control.no_cache
        || control.private
        || TARGETED.iter().any(|name| response.contains_key(name))
    {
        return None;
    }
    let shared = control.public || control.s_maxage.is_some();
    if request.contains_key(AUTHORIZATION) && !shared && !control.must_revalidate {
        return None; // RFC 9111, section 3.5
    }
    if (request.contains_key(COOKIE) || response.contains_key(SET_COOKIE)) && !shared {
        return None;
    }
    let date = time(response, &DATE).unwrap_or(received);
    let lifetime = match control.s_maxage.or(control.max_age) {
        Some(seconds) => seconds * 1000,
        None if response.contains_key(EXPIRES) => time(response, &EXPIRES)?.saturating_sub(date),
        None => (date.saturating_sub(time(response, &LAST_MODIFIED)?) / 10).min(HEURISTIC_MS),
    };
    // RFC 9111, section 4.2.3.
    let field = match response.get(AGE) {
        Some(age) => age.to_str().ok()?.trim().parse::<u64>().ok()?.min(MAX_SECONDS) * 1000,
        None => 0,
    };
    let age = received.saturating_sub(date).max(field + received.saturating_sub(sent));
    let freshness = Freshness { born: received.saturating_sub(age), lifetime };
    (freshness.left(received) > 0).then_some(freshness)
}

/// The freshness of a complete answer to a JSON question. `Cache-Control: no-cache`, which event streams carry out of
/// habit, does not matter to a route that was opted in; `no-store` does, and `private` where nobody is known to own it.
pub(crate) fn of_json(response: &HeaderMap, fresh_for: Duration, owned: bool, received: u64) -> Option<Freshness> {
    let control = Directives::of(response);
    let keep = !control.no_store && (owned || !control.private);
    keep.then(|| Freshness { born: received, lifetime: u64::try_from(fresh_for.as_millis()).unwrap_or(u64::MAX) })
}

/// The fields that the answer depends on, sorted; `None`: on all, or on too many.
pub(crate) fn vary(response: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for item in response.get_all(VARY).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b',')) {
        let item = item.trim_ascii();
        if !item.is_empty() {
            names.push(HeaderName::from_bytes(item).ok().filter(|_| item != b"*")?);
        }
    }
    normal(names)
}

/// Sorted, each once, and not too many.
pub(crate) fn normal(mut names: Vec<HeaderName>) -> Option<Vec<HeaderName>> {
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    (names.len() <= MAX_VARY).then_some(names)
}

/// A date field, in unix ms.
fn time(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let time = httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn date(ms: u64) -> String {
        httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
    }

    fn get(request: &[(&str, &str)], response: &[(&str, &str)]) -> Option<u64> {
        let map = |fields: &[(&str, &str)]| {
            fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        of_get(&map(request), &map(response), NOW, NOW).map(|freshness| freshness.left(NOW) / 1000)
    }

    #[test]
    fn lifetime_comes_from_the_strongest_source() {
        let (now, later, old) = (date(NOW), date(NOW + 50_000), date(NOW - 1_000_000));
        let cc = |value| get(&[], &[("cache-control", value), ("expires", &later)]);
        assert_eq!(cc("s-maxage=7, max-age=9"), Some(7));
        assert_eq!(cc("Max-Age=\"9\""), Some(9));
        assert_eq!(cc("max-age=9, max-age=5"), Some(5));
        assert_eq!(cc("max-age=99999999999999999999"), Some(MAX_SECONDS));
        assert_eq!(cc("max-age=banana"), None);
        assert_eq!(cc("ext=\"max-age=1, no-store\", max-age=3"), Some(3));
        assert_eq!(get(&[], &[("date", &now), ("expires", &later)]), Some(50));
        assert_eq!(get(&[], &[("date", &now), ("expires", "0"), ("last-modified", &old)]), None);
        assert_eq!(get(&[], &[("date", &now), ("last-modified", &old)]), Some(100));
        assert_eq!(get(&[], &[("date", &now)]), None);
        assert_eq!(get(&[], &[("cache-control", "max-age=9"), ("age", "4")]), Some(5));
        assert_eq!(get(&[], &[("cache-control", "max-age=60"), ("date", &date(NOW - 20_000)), ("age", "4")]), Some(40));
        assert_eq!(get(&[], &[("cache-control", "max-age=9"), ("age", "9")]), None);
    }

    #[test]
    fn what_a_shared_cache_must_not_keep() {
        for refused in ["no-store", "no-cache", "private", "no-cache=\"x\"", "private=\"set-cookie\""] {
            assert_eq!(get(&[], &[("cache-control", "max-age=9"), ("cache-control", refused)]), None, "{refused}");
        }
        for (field, side) in [("authorization", true), ("cookie", true), ("set-cookie", false)] {
            for (control, kept) in [("max-age=9", false), ("public, max-age=9", true), ("s-maxage=9", true)] {
                let (mut request, mut response) = (vec![], vec![("cache-control", control)]);
                if side { &mut request } else { &mut response }.push((field, "a=b"));
                assert_eq!(get(&request, &response).is_some(), kept, "{field} {control}");
            }
        }
        assert_eq!(get(&[], &[("cache-control", "max-age=9"), ("cdn-cache-control", "no-store")]), None);
    }
}
