use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_core::{AffinityKey, ConfigError, RequestHead};
use http::HeaderName;

use super::key::{Kind, key};
use super::layer::{AffinityHandle, AffinityLayer, Shared};
use super::scan::MAX_NAME;

/// The fields that name a session or its user, unless others are set.
const FIELDS: [&str; 3] = ["session_id", "user", "prompt_cache_key"];
/// The fields that hold a prompt.
const PROMPT: [&str; 3] = ["messages", "prompt", "input"];
/// The most that can be set to be read of a body, in bytes.
const MAX_PEEK: usize = 1 << 20;

/// What is looked for in a body.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) fields: Vec<String>,
    pub(super) prompt: Vec<String>,
    pub(super) max_peek: usize,
}

/// Makes a key of the head of a request.
#[derive(Clone)]
pub(super) struct KeyFn(Arc<DynKeyFn>);

type DynKeyFn = dyn Fn(&RequestHead<'_>) -> Option<AffinityKey> + Send + Sync;

impl KeyFn {
    pub(super) fn key(&self, head: &RequestHead<'_>) -> Option<AffinityKey> {
        (self.0)(head)
    }
}

impl fmt::Debug for KeyFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFn")
    }
}

/// Collects the settings of an [`AffinityLayer`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until built"]
pub struct AffinityLayerBuilder {
    key_by: Option<KeyFn>,
    headers: Vec<String>,
    wanted: Wanted,
    timeout: Duration,
}

impl AffinityLayerBuilder {
    pub(super) const fn new() -> Self {
        let wanted = Wanted { fields: Vec::new(), prompt: Vec::new(), max_peek: 64 << 10 };
        Self { key_by: None, headers: Vec::new(), wanted, timeout: Duration::from_secs(5) }
    }

    /// Takes the key from whatever this makes of a request's head, such as a part of its path, the batch in its extensions
    /// or two fields together; `None`, or nothing in it: from elsewhere. It goes before all other sources.
    ///
    /// The value is hashed as one of a header is, with the `Principal`: two tenants never share a key. It runs for each
    /// request that has no key yet, so it should be quick.
    ///
    /// ```
    /// use forebay_balance::affinity::AffinityLayer;
    /// use forebay_core::RequestHead;
    ///
    /// # fn main() -> Result<(), forebay_core::ConfigError> {
    /// // /v1/threads/{thread}/runs: a thread stays where its KV cache is
    /// let thread = |head: &RequestHead<'_>| {
    ///     let rest = head.uri.path().strip_prefix("/v1/threads/")?;
    ///     Some(rest.split('/').next()?.to_owned())
    /// };
    /// let layer = AffinityLayer::builder().key_by(thread).header("x-session-id").build()?;
    /// # drop(layer);
    /// # Ok(())
    /// # }
    /// ```
    pub fn key_by<V: AsRef<[u8]>>(
        mut self,
        value: impl Fn(&RequestHead<'_>) -> Option<V> + Send + Sync + 'static,
    ) -> Self {
        self.key_by = Some(KeyFn(Arc::new(move |head| {
            let value = value(head)?;
            let bytes = value.as_ref();
            (!bytes.is_empty()).then(|| key(head.extensions.get(), Kind::Made, bytes))
        })));
        self
    }

    /// Takes the key from this header field, and does not look at the body of a request that has it.
    ///
    /// Of several headers the first to be set goes first.
    pub fn header(mut self, name: impl Into<String>) -> Self {
        self.headers.push(name.into());
        self
    }

    /// Takes the key from the first of these members of a JSON object whose value is a number or a string that is not
    /// empty: first in the order of the body, as the rest of it may never be seen.
    pub fn fields(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.wanted.fields = names.into_iter().map(Into::into).collect();
        self
    }

    /// As [`fields`](Self::fields), with `session_id`, `user` and `prompt_cache_key`.
    pub fn session_fields(self) -> Self {
        self.fields(FIELDS)
    }

    /// Takes the key from the first two blocks of the prompt, if no field gives one, and sets
    /// [`PrefixBlocks`](super::PrefixBlocks). The prompt is all text in the first of the members `messages`, `prompt`
    /// and `input`.
    pub fn prompt(self) -> Self {
        self.prompt_fields(PROMPT)
    }

    /// As [`prompt`](Self::prompt), with the prompt in the first of these members.
    pub fn prompt_fields(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.wanted.prompt = names.into_iter().map(Into::into).collect();
        self
    }

    /// How much of a body is looked at, in bytes: 1 to 1 MiB, 64 KiB unless set. A request in the layer holds that much,
    /// and what the last frame has over it.
    pub const fn max_peek(mut self, max_peek: usize) -> Self {
        self.wanted.max_peek = max_peek;
        self
    }

    /// How long a body is waited for: more than 0, 5 s unless set. After that it goes on without a key.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// All that cannot work: nothing to look for, bad names, a bound or time out of range.
    pub fn build(self) -> Result<AffinityLayer, ConfigError> {
        self.build_with_handle().map(|(layer, _)| layer)
    }

    /// Makes the layer, and the handle that shows what it does.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_with_handle(self) -> Result<(AffinityLayer, AffinityHandle), ConfigError> {
        let Self { key_by, headers, wanted, timeout } = self;
        let mut problems = Vec::new();
        let none = headers.is_empty() && wanted.fields.is_empty() && wanted.prompt.is_empty();
        if none && key_by.is_none() {
            problems.push("key_by, header, fields and prompt are empty: set at least one".to_owned());
        }
        let parsed: Vec<_> = headers.iter().filter_map(|name| HeaderName::try_from(name).ok()).collect();
        if parsed.len() < headers.len() {
            problems.push(format!("header is {headers:?}: names of header fields"));
        }
        for (field, names) in [("fields", &wanted.fields), ("prompt_fields", &wanted.prompt)] {
            if names.iter().any(|name| name.is_empty() || name.len() >= MAX_NAME) {
                problems.push(format!("{field} is {names:?}: names of 1 to {} bytes", MAX_NAME - 1));
            }
        }
        if !(1..=MAX_PEEK).contains(&wanted.max_peek) {
            problems.push(format!("max_peek is {}: 1 to {MAX_PEEK} bytes", wanted.max_peek));
        }
        if timeout.is_zero() {
            problems.push("timeout is 0 s: more than 0".to_owned());
        }
        ConfigError::check(problems)?;
        let shared = Arc::new(Shared::new(key_by, parsed, wanted, timeout));
        Ok((AffinityLayer::over(Arc::clone(&shared)), AffinityHandle::over(shared)))
    }
}
