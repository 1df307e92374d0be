use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use forebay_core::ConfigError;

use crate::policy::complete::Shape;
use crate::shared::Shared;
use crate::{CacheHandle, CacheLayer, Memory};

/// Members of a question that change who pays or how it is handled, not what is answered.
pub(crate) const SKIPPED: [&str; 5] = ["user", "metadata", "store", "service_tier", "prompt_cache_key"];

/// A path whose POSTs are questions in JSON, to be answered again from the cache.
#[derive(Debug, Clone)]
pub struct JsonRoute {
    path: String,
    pub(crate) shape: Shape,
    pub(crate) fresh_for: Duration,
    pub(crate) sampled: bool,
}

impl JsonRoute {
    fn new(path: impl Into<String>, shape: Shape) -> Self {
        Self { path: path.into(), shape, fresh_for: Duration::from_secs(3600), sampled: false }
    }

    /// Chat completions. Deterministic are questions with `temperature` 0 or a `seed`; complete are answers in which each
    /// choice ended with `finish_reason` `stop`, and streams that ended with `[DONE]` besides.
    ///
    /// `path` is what the layer sees in the URI: inside axum's `nest` that is without the prefix.
    pub fn openai_chat(path: impl Into<String>) -> Self {
        Self::new(path, Shape::Choices)
    }

    /// Text completions: the same rules as for chat.
    pub fn openai_completions(path: impl Into<String>) -> Self {
        Self::new(path, Shape::Choices)
    }

    /// Embeddings: always deterministic.
    pub fn openai_embeddings(path: impl Into<String>) -> Self {
        Self::new(path, Shape::Embeddings)
    }

    /// How long an answer is fresh; 1 hour unless set.
    #[must_use]
    pub const fn fresh_for(mut self, time: Duration) -> Self {
        self.fresh_for = time;
        self
    }

    /// Also answers questions that leave the answer to chance: the first answer is then everyone's.
    #[must_use]
    pub const fn allow_sampled(mut self) -> Self {
        self.sampled = true;
        self
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Builds a [`CacheLayer`].
#[must_use]
pub struct CacheBuilder<M> {
    name: String,
    secret: Option<Vec<u8>>,
    memory: M,
    max_entry: usize,
    routes: Vec<JsonRoute>,
}

impl<M> fmt::Debug for CacheBuilder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, routes) = (&self.name, &self.routes);
        f.debug_struct("CacheBuilder").field("name", name).field("routes", routes).finish_non_exhaustive()
    }
}

#[cfg(feature = "moka")]
impl CacheBuilder<crate::MokaStore> {
    /// How much the memory may hold, in bytes; 256 MiB unless set.
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        self.memory(crate::MokaStore::new(max_bytes))
    }
}

impl<M: Memory> CacheBuilder<M> {
    pub(crate) fn new(memory: M) -> Self {
        Self { name: "forebay".to_owned(), secret: None, memory, max_entry: 4 << 20, routes: Vec::new() }
    }

    /// The name in `Cache-Status`, a token; `forebay` unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// What keys are made from, at least 16 bytes; random unless set. Processes that share entries need the same.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// Another memory.
    pub fn memory<N: Memory>(self, memory: N) -> CacheBuilder<N> {
        let Self { name, secret, memory: _, max_entry, routes } = self;
        CacheBuilder { name, secret, memory, max_entry, routes }
    }

    /// The largest body that is stored, in bytes; 4 MiB unless set. Larger ones pass unhindered.
    pub fn max_entry(mut self, max_entry: usize) -> Self {
        self.max_entry = max_entry;
        self
    }

    /// Answers the POSTs of one more path.
    pub fn json(mut self, route: JsonRoute) -> Self {
        self.routes.push(route);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// All that cannot work: a name that is no token, a short secret, sizes out of range, a path twice.
    pub fn build(self) -> Result<CacheLayer<M>, ConfigError> {
        self.build_with_handle().map(|(layer, _)| layer)
    }

    /// The layer, and the handle that shows and steers it.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_with_handle(self) -> Result<(CacheLayer<M>, CacheHandle), ConfigError> {
        let mut problems = Vec::new();
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
        if !(self.name.starts_with(|c: char| c.is_ascii_alphabetic()) && self.name.bytes().all(token)) {
            problems.push(format!("name is {:?}: a token that begins with a letter", self.name));
        }
        if let Some(secret) = self.secret.as_ref().filter(|secret| secret.len() < 16) {
            problems.push(format!("secret has {} bytes: at least 16", secret.len()));
        }
        let max_bytes = self.memory.max_bytes();
        if max_bytes == 0 {
            problems.push("memory has 0 bytes: at least 1".to_owned());
        }
        if self.max_entry == 0 || self.max_entry > u32::MAX as usize || self.max_entry as u64 > max_bytes {
            let most = max_bytes.min(u32::MAX.into());
            problems.push(format!("max_entry is {}: 1 to {most}, the bytes of the memory", self.max_entry));
        }
        for (at, route) in self.routes.iter().enumerate() {
            if !route.path.starts_with('/') {
                problems.push(format!("json[{at}].path is {:?}: begins with '/'", route.path));
            }
            if self.routes[..at].iter().any(|other| other.path == route.path) {
                problems.push(format!("json[{at}].path is {:?}: each path once", route.path));
            }
            if route.fresh_for.is_zero() {
                problems.push(format!("json[{at}].fresh_for is 0 s: more than 0"));
            }
        }
        ConfigError::check(problems)?;
        let secret = self.secret.unwrap_or_else(random);
        let shared = Arc::new(Shared::new(self.name, &secret, self.memory, self.max_entry, self.routes));
        let handle = CacheHandle { control: Arc::<Shared<M>>::clone(&shared) };
        Ok((CacheLayer { shared }, handle))
    }
}

/// std seeds its hashers from the system's random source, once a thread: what comes out of SipHash under that key serves
/// as a secret of one process.
fn random() -> Vec<u8> {
    (0_u8..4).flat_map(|at| RandomState::new().hash_one(at).to_le_bytes()).collect()
}
