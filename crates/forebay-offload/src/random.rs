use uuid::Uuid;

/// Makes a secret of 32 bytes from 244 bits of the operating system's randomness.
pub(crate) fn secret() -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for _ in 0..2 {
        hasher.update(Uuid::new_v4().as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Makes a random number for a nonce.
pub(crate) fn nonce() -> u128 {
    Uuid::new_v4().as_u128()
}

/// Makes a random number for spreading pauses.
#[allow(clippy::cast_possible_truncation)] // the low half of a version 4 UUID has no fixed bit past its top two
pub(crate) fn jitter() -> u32 {
    nonce() as u32
}
