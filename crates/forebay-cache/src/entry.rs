use bytes::{Bytes, BytesMut};
use http::header::{AGE, CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};

use crate::policy::freshness::Freshness;

/// What a [`Memory`](crate::Memory) keeps: an answer, or the index of a resource's answers. Its inside is the cache's own.
#[derive(Debug)]
pub struct Entry {
    pub(crate) kind: Kind,
}

impl Entry {
    /// What the entry weighs, in bytes: body, fields, key, and 128 for what is around them.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let bytes = match &self.kind {
            Kind::Index(index) => index.names.iter().map(|name| name.as_str().len()).sum(),
            Kind::Answer(answer) => {
                let trailers = answer.trailers.as_ref().map_or(0, weight);
                weight(&answer.headers) + trailers + answer.frames.body.len() + 4 * answer.frames.ends.len()
            }
        };
        (bytes + 32 + 128) as u64
    }
}

fn weight(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum()
}

#[derive(Debug)]
pub(crate) enum Kind {
    Index(Index),
    Answer(Box<Answer>),
}

/// The answers of one resource: they are found under `nonce` and the values of `names`. Without the index none is found,
/// and a new one has a new nonce: so dropping it drops them all.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) nonce: u64,
    pub(crate) names: Vec<HeaderName>,
    /// The end of the longest-lived answer, unix ms.
    pub(crate) until: u64,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) frames: Frames,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) freshness: Freshness,
}

/// A body in the frames that it came in, in one buffer of its own: a recorded slice would keep a whole read buffer alive.
#[derive(Debug)]
pub(crate) struct Frames {
    pub(crate) body: Bytes,
    ends: Box<[u32]>,
}

impl Frames {
    pub(crate) fn new(frames: &[Bytes]) -> Self {
        let mut body = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
        let mut ends = Vec::with_capacity(frames.len());
        for frame in frames {
            body.extend_from_slice(frame);
            ends.push(u32::try_from(body.len()).unwrap_or(u32::MAX)); // `max_entry` is far below
        }
        Self { body: body.freeze(), ends: ends.into() }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where frame `at` begins.
    pub(crate) fn start(&self, at: usize) -> usize {
        at.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |&end| end as usize)
    }

    pub(crate) fn frame(&self, at: usize) -> Option<Bytes> {
        let end = *self.ends.get(at)? as usize;
        Some(self.body.slice(self.start(at)..end))
    }
}

const HOP_BY_HOP: [HeaderName; 7] = [
    HeaderName::from_static("connection"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("te"),
    HeaderName::from_static("transfer-encoding"),
    HeaderName::from_static("upgrade"),
];
/// Fields of the one exchange, not of the answer.
const ONCE: [HeaderName; 4] =
    [SET_COOKIE, AGE, HeaderName::from_static("cache-status"), HeaderName::from_static("x-request-id")];

/// The fields to keep: not those of the connection, nor those of the one exchange.
pub(crate) fn kept_fields(headers: &HeaderMap, received: u64) -> HeaderMap {
    let mut kept = headers.clone();
    for value in headers.get_all("connection").iter().filter_map(|value| value.to_str().ok()) {
        for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            kept.remove(name);
        }
    }
    for name in HOP_BY_HOP.iter().chain(&ONCE) {
        kept.remove(name);
    }
    let limits: Vec<_> = kept.keys().filter(|name| name.as_str().starts_with("x-ratelimit-")).cloned().collect();
    for name in limits {
        kept.remove(name);
    }
    if !kept.contains_key(DATE) {
        // RFC 9110, section 6.6.1: a cache adds the date of receipt.
        let date = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(received);
        if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(date)) {
            kept.insert(DATE, date);
        }
    }
    kept
}

/// Adds `Content-Length` where the length is the whole of the content.
pub(crate) fn add_length(headers: &mut HeaderMap, length: usize, trailers: bool) {
    if !trailers {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}
