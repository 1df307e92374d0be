//! Keys: keyed digests over tagged, length-prefixed fields. No id can be guessed, no token is kept.

use std::fmt;

use forebay_core::{Principal, RequestHead};
use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName};

/// The name of an entry: a keyed digest of all that the answer may depend on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Key({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// Fields that frameworks and proxies let override the URI that the backend sees.
const URI_FIELDS: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, HeaderName::from_static("x-api-key")];
/// Fields that choose the account or the dialect at an OpenAI-compatible backend.
const JSON_FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    HeaderName::from_static("openai-beta"),
];

/// Makes keys from one secret.
pub(crate) struct Keyer {
    secret: [u8; 32],
}

impl fmt::Debug for Keyer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyer(..)")
    }
}

impl Keyer {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self { secret: blake3::derive_key("forebay-cache 2026 cache key v1", secret) }
    }

    fn digest(&self, kind: &str) -> Digest {
        let mut digest = Digest(blake3::Hasher::new_keyed(&self.secret));
        digest.add(kind.as_bytes());
        digest
    }

    /// The resource, whoever asks: what an unsafe method invalidates. `None`: it is not clear which resource it is.
    pub(crate) fn resource(&self, head: &RequestHead<'_>) -> Option<Key> {
        let mut digest = self.digest("resource");
        let scheme = head.uri.scheme_str().unwrap_or("http");
        digest.add(scheme.as_bytes());
        digest.add(authority(head, scheme)?.as_bytes());
        digest.add(head.uri.path().as_bytes());
        digest.add(head.uri.query().map_or(&[0], str::as_bytes)); // no query is not an empty query
        digest.fields(head.headers, &URI_FIELDS);
        Some(digest.key())
    }

    /// Whose answer it is: of a principal, or else (`credentials`) of whoever holds the same credentials.
    pub(crate) fn partition(&self, head: &RequestHead<'_>, credentials: bool) -> Key {
        match head.extensions.get::<Principal>() {
            Some(principal) => {
                let mut digest = self.digest("principal");
                digest.add(principal.as_bytes());
                digest.key()
            }
            None => {
                let mut digest = self.digest("shared");
                if credentials {
                    digest.fields(head.headers, &CREDENTIALS);
                }
                digest.key()
            }
        }
    }

    /// One JSON question to a resource.
    pub(crate) fn question(&self, resource: &Key, partition: &Key, head: &RequestHead<'_>, canonical: &str) -> Key {
        let mut digest = self.digest("json");
        digest.add(&resource.0);
        digest.add(&partition.0);
        digest.add(head.method.as_str().as_bytes());
        digest.fields(head.headers, &JSON_FIELDS);
        digest.add(canonical.as_bytes());
        digest.key()
    }

    /// One answer among those of an index entry, which `nonce` names.
    pub(crate) fn variant(
        &self,
        primary: &Key,
        nonce: u64,
        partition: &Key,
        names: &[HeaderName],
        headers: &HeaderMap,
    ) -> Key {
        let mut digest = self.digest("variant");
        digest.add(&primary.0);
        digest.add(&nonce.to_le_bytes());
        digest.add(&partition.0);
        for name in names {
            digest.add(name.as_str().as_bytes());
            // Combined and trimmed: a list on two lines is the list on one (RFC 9111, section 4.1).
            for item in headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b',')) {
                digest.add(item.trim_ascii());
            }
            digest.end();
        }
        digest.key()
    }
}

struct Digest(blake3::Hasher);

impl Digest {
    fn add(&mut self, field: &[u8]) {
        self.0.update(&[1]);
        self.0.update(&(field.len() as u64).to_le_bytes());
        self.0.update(field);
    }

    /// The end of a list.
    fn end(&mut self) {
        self.0.update(&[0]);
    }

    fn fields(&mut self, headers: &HeaderMap, names: &[HeaderName]) {
        for name in names {
            headers.get_all(name).iter().for_each(|value| self.add(value.as_bytes()));
            self.end();
        }
    }

    fn key(&self) -> Key {
        Key(*self.0.finalize().as_bytes())
    }
}

/// Lower case, without a default port. `None`: there are two, or one with user information.
fn authority(head: &RequestHead<'_>, scheme: &str) -> Option<String> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return None;
    }
    let host = match host {
        Some(host) => Some(clean(host.to_str().ok()?, scheme)?),
        None => None,
    };
    let uri = match head.uri.authority() {
        Some(authority) => Some(clean(authority.as_str(), scheme)?),
        None => None,
    };
    match (uri, host) {
        (Some(uri), Some(host)) if uri != host => None,
        (Some(name), _) | (None, Some(name)) => Some(name),
        (None, None) => Some(String::new()),
    }
}

fn clean(authority: &str, scheme: &str) -> Option<String> {
    if authority.contains(['@', ',', ' ']) {
        return None;
    }
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    Some(authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase())
}
