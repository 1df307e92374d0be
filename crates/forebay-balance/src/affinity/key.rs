//! Keys: hashes that come out the same in all processes, and in none for two tenants.

use forebay_core::{AffinityKey, Principal};
use xxhash_rust::xxh3::Xxh3;

/// Where a key comes from. Part of what is hashed: the same value of another kind is another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// What a function of the user's made of the head.
    Made,
    Header(&'a str),
    Field(&'a str),
    Prompt,
}

/// The XXH3 hash of whose it is, where it comes from, and its value. Each part goes in with its length, so that no two
/// triples are hashed alike.
pub(super) fn key(principal: Option<&Principal>, kind: Kind<'_>, value: &[u8]) -> AffinityKey {
    let (kind, name) = match kind {
        Kind::Header(name) => (1, name),
        Kind::Field(name) => (2, name),
        Kind::Prompt => (3, ""),
        Kind::Made => (4, ""),
    };
    let mut hash = Xxh3::new();
    hash.update(&[kind, u8::from(principal.is_some())]);
    for part in [principal.map_or(&[][..], Principal::as_bytes), name.as_bytes(), value] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    AffinityKey(hash.digest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts_and_the_hash_is_fixed() {
        let (a, b) = (Principal::from_bytes("a"), Principal::from_bytes(""));
        let keys = [
            key(None, Kind::Field("user"), b"x"),
            key(Some(&a), Kind::Field("user"), b"x"),
            key(Some(&b), Kind::Field("user"), b"x"),
            key(None, Kind::Header("user"), b"x"),
            key(None, Kind::Field("use"), b"rx"),
            key(None, Kind::Field("user"), b"y"),
            key(None, Kind::Prompt, b""),
            key(None, Kind::Made, b""),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        // Gateways of different versions share a fleet: a change of these is a breaking one.
        assert_eq!(keys[..2], [AffinityKey(1_031_683_407_001_449_446), AffinityKey(7_327_785_389_909_298_760)]);
    }
}
