use std::{fmt, str::FromStr};

use forebay_core::Principal;
use uuid::Uuid;

/// Names a job: a UUIDv7, made by whoever enqueues it, so that a repeated enqueue finds the first.
///
/// It is guessable, and therefore no right to see the job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u128);

impl JobId {
    /// Makes a new id from the wall clock and 74 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::now_v7().as_u128())
    }

    /// Makes the id with these 128 bits.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    /// Returns the 128 bits of the id.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_u128(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads the one form that [`Display`](fmt::Display) writes: 36 characters, lower case, hyphens.
impl FromStr for JobId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // One spelling a job: `uuid` would also read braces, urns and upper case.
        let id = Uuid::try_parse(text).map(|id| Self(id.as_u128())).map_err(|_| InvalidId)?;
        if id.to_string() == text { Ok(id) } else { Err(InvalidId) }
    }
}

/// The text is no job id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a job id: expected a lower-case hyphenated UUID")]
pub struct InvalidId;

/// Stands for a principal in the index: 128 bits of the BLAKE3 digest of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerTag(u128);

impl OwnerTag {
    /// The owner whom nobody is: of records whose principal was lost.
    pub const NOBODY: Self = Self(0);

    /// Makes the tag of a principal.
    #[must_use]
    pub fn of(principal: &Principal) -> Self {
        Self(tag(&[b"forebay principal", principal.as_bytes()]))
    }

    /// Makes the tag with these 128 bits.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    /// Returns the 128 bits of the tag.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Debug for OwnerTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerTag(..)")
    }
}

/// Stands for an idempotency key, or for the fingerprint of the request sent with it: 128 bits of a BLAKE3 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyTag(u128);

impl KeyTag {
    /// Makes the tag of these parts; each is framed by its length, so no two lists of parts look alike.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        Self(tag(parts))
    }

    /// Makes the tag with these 128 bits.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    /// Returns the 128 bits of the tag.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

fn tag(parts: &[&[u8]]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut bits = [0; 16];
    bits.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_what_it_writes_and_nothing_else() {
        let id = JobId::random();
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        for other in
            [text.to_uppercase(), format!("{{{text}}}"), text.replace('-', ""), text[1..].into(), String::new()]
        {
            assert_eq!(other.parse::<JobId>(), Err(InvalidId), "{other}");
        }
    }

    #[test]
    fn parts_are_framed() {
        assert_ne!(KeyTag::of(&[b"ab", b"c"]), KeyTag::of(&[b"a", b"bc"]));
    }
}
