//! Who may see a job: its principal, or for a job without one whoever holds its capability token.

use forebay_core::Principal;

use crate::policy::{Job, JobId, OwnerTag};

/// Makes the capability token of a job: its id under the queue's secret, 64 hexadecimal digits.
pub(crate) fn token(secret: &[u8; 32], id: JobId) -> String {
    digest(secret, id).to_hex().to_string()
}

/// Says whether this caller may see the job.
pub(crate) fn may_see(job: &Job, principal: Option<&Principal>, token: Option<&str>, secret: &[u8; 32]) -> bool {
    match (job.owner, principal) {
        (Some(owner), Some(principal)) => owner == OwnerTag::of(principal),
        (Some(_), None) => false,
        // A digest compares in constant time.
        (None, _) => token
            .and_then(|token| blake3::Hash::from_hex(token).ok())
            .is_some_and(|token| token == digest(secret, job.id)),
    }
}

fn digest(secret: &[u8; 32], id: JobId) -> blake3::Hash {
    blake3::keyed_hash(secret, &id.as_u128().to_be_bytes())
}
