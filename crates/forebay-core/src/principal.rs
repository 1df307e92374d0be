use std::fmt;
use std::sync::Arc;

/// Who pays: an opaque tenant identity. A request extension, set by whatever authenticates.
///
/// It is the cache partition, the owner of a job and the key of fairness between tenants. It has no `Display`, and its
/// `Debug` shows nothing, so that it cannot reach a log by accident. What leaves the process (a cache key, a job id) is
/// always a keyed digest of [`as_bytes`](Self::as_bytes); job records alone keep the bytes.
///
/// Put in an identity (an account number), not a secret (an API key): whoever reads a job file reads it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(Arc<[u8]>);

impl Principal {
    /// The principal with this identity.
    #[must_use]
    pub fn from_bytes(identity: impl AsRef<[u8]>) -> Self {
        Self(Arc::from(identity.as_ref()))
    }

    /// The identity, for keyed digests and job records.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Principal(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_identity_also_inside_other_types() {
        let request = Some(vec![Principal::from_bytes("tenant-42")]);
        assert_eq!(format!("{request:?}"), "Some([Principal(..)])");
        assert!(!format!("{request:#?}").contains("42"));
    }
}
