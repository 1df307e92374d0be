/// The longest pause between two attempts that a `Retry-After` can ask for.
const MAX_ASKED_MS: u64 = 3_600_000;

/// Returns the pause before the next attempt, in milliseconds.
///
/// After the k-th failure the cap is `min(300 s, 1 s * 2^(k-1))`; the pause lies in its upper half, at a place that
/// `jitter` picks (0 is the lower end, `u32::MAX` the upper), and is at least `asked_ms`, of which an hour counts.
/// Half of the cap is fixed ("equal jitter": M. Brooker, "Exponential Backoff And Jitter", 2015), so that a
/// failing backend has a sure pause.
#[must_use]
pub fn backoff_ms(failures: u32, asked_ms: u64, jitter: u32) -> u64 {
    let cap = 1_000u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX).min(300_000);
    // `checked_shl` only refuses shifts past the width; from 2^54 seconds on bits would fall out at the top.
    let cap = if failures > 9 { 300_000 } else { cap };
    let half = cap / 2;
    let random = (half * u64::from(jitter)) >> 32;
    (half + random).max(asked_ms.min(MAX_ASKED_MS))
}

#[cfg(test)]
mod tests {
    use super::backoff_ms;

    #[test]
    fn it_doubles_up_to_five_minutes() {
        assert_eq!(backoff_ms(1, 0, 0), 500);
        assert_eq!(backoff_ms(2, 0, 0), 1_000);
        assert_eq!(backoff_ms(9, 0, 0), 128_000);
        for failures in [10, 11, 54, 64, u32::MAX] {
            assert_eq!(backoff_ms(failures, 0, 0), 150_000, "{failures}");
        }
        assert_eq!(backoff_ms(0, 0, 0), 500);
    }

    #[test]
    fn jitter_stays_under_the_cap_and_the_backend_is_heard() {
        assert!((999..1_000).contains(&backoff_ms(1, 0, u32::MAX)));
        assert_eq!(backoff_ms(1, 20_000, 0), 20_000);
        assert_eq!(backoff_ms(1, u64::MAX, 0), 3_600_000);
    }
}
