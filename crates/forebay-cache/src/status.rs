use std::fmt;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What the cache did with a request: in the response extensions, and in words in the field `Cache-Status` (RFC 9211).
///
/// ```text
/// forebay; hit; ttl=42; detail=memory
/// forebay; fwd=uri-miss; stored
/// forebay; fwd=bypass
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatus {
    /// The answer is a stored one.
    pub hit: Option<Hit>,
    /// Why the request went on. Neither this nor `hit`: `only-if-cached` or an unreadable body was answered here.
    pub forward: Option<Forward>,
    /// The answer is being recorded. At the head of a stream nobody knows its end: it is kept if the body ends well.
    pub stored: bool,
}

/// A stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hit {
    /// How long it remains fresh.
    pub ttl: Duration,
    /// Where it was found: `memory`.
    pub tier: &'static str,
}

/// Why a request went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forward {
    /// Not a request that this cache answers.
    Bypass,
    /// The method is not one that is answered from a cache.
    Method,
    /// Nothing was stored for it.
    UriMiss,
    /// There are answers, none for these request fields.
    VaryMiss,
    /// An answer was there, no longer fresh.
    Stale,
    /// The request does not want a stored answer, or not one as old.
    Request,
}

impl Forward {
    /// The token of RFC 9211, section 2.2.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Request => "request",
        }
    }
}

impl CacheStatus {
    pub(crate) const fn hit(ttl: Duration) -> Self {
        Self { hit: Some(Hit { ttl, tier: "memory" }), forward: None, stored: false }
    }

    pub(crate) const fn forward(why: Forward, stored: bool) -> Self {
        Self { hit: None, forward: Some(why), stored }
    }

    pub(crate) const fn answered() -> Self {
        Self { hit: None, forward: None, stored: false }
    }

    /// Appends the member of the cache `name` to the field: the caches nearer to the origin stand first.
    pub(crate) fn write(self, name: &str, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(format!("{name}{self}")) {
            headers.append(CACHE_STATUS, value);
        }
    }
}

impl fmt::Display for CacheStatus {
    /// The parameters, each after a semicolon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(hit) = self.hit {
            write!(f, "; hit; ttl={}; detail={}", hit.ttl.as_secs(), hit.tier)?;
        }
        if let Some(forward) = self.forward {
            write!(f, "; fwd={}", forward.as_str())?;
        }
        if self.stored {
            f.write_str("; stored")?;
        }
        Ok(())
    }
}
