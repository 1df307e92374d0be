use std::fmt;

use bytes::Bytes;
use forebay_core::{AffinityKey, Principal};
use http::{HeaderMap, Method, StatusCode, Uri, Version};

/// The request of a job, as it will be run.
#[derive(Clone)]
#[non_exhaustive]
pub struct StoredRequest {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// Its HTTP version.
    pub version: Version,
    /// Its header fields, without those that are not stored.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Who pays.
    pub principal: Option<Principal>,
    /// What it belongs together with.
    pub affinity: Option<AffinityKey>,
}

impl StoredRequest {
    /// Makes a request with an empty body for this target.
    #[must_use]
    pub fn new(method: Method, uri: Uri) -> Self {
        Self {
            method,
            uri,
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            principal: None,
            affinity: None,
        }
    }

    /// Returns how many bytes it takes in a store, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let target = self.uri.path_and_query().map_or(0, |target| target.as_str().len());
        let principal = self.principal.as_ref().map_or(0, |principal| principal.as_bytes().len());
        (target + principal + headers_len(&self.headers) + self.body.len()) as u64
    }
}

/// The answer to a job.
#[derive(Clone)]
#[non_exhaustive]
pub struct StoredResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields, without those that are not stored.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl StoredResponse {
    /// Makes an answer without header fields.
    #[must_use]
    pub fn new(status: StatusCode, body: Bytes) -> Self {
        Self { status, headers: HeaderMap::new(), body }
    }

    /// Returns how many bytes it takes in a store, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (headers_len(&self.headers) + self.body.len()) as u64
    }
}

fn headers_len(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

// Bodies and header values may hold secrets: they are never shown.
impl fmt::Debug for StoredRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRequest")
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for StoredResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredResponse")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
