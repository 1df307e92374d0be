//! By when a request must be answered: `grpc-timeout` and a header in milliseconds, as times from now.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

/// The least time that the headers allow. What is malformed, doubled with different values or negative means none.
pub(crate) fn of_headers(headers: &HeaderMap, millis: Option<&HeaderName>) -> Option<Duration> {
    let grpc = single(headers, &GRPC_TIMEOUT).and_then(grpc_timeout);
    let own = millis.and_then(|name| single(headers, name)).and_then(milliseconds);
    grpc.into_iter().chain(own).min()
}

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let first = headers.get(name)?;
    headers.get_all(name).iter().all(|value| value == first).then(|| first.as_bytes())
}

/// One to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount = number(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(amount.saturating_mul(3600)),
        b'M' => Duration::from_secs(amount.saturating_mul(60)),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Digits alone; more than fit are as many as fit.
fn milliseconds(value: &[u8]) -> Option<Duration> {
    number(value).map(Duration::from_millis)
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r13_good_timeouts_are_read_and_bad_ones_mean_none() {
        let grpc = |text: &str| grpc_timeout(text.as_bytes());
        assert_eq!(grpc("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!([grpc("0n"), grpc("7m")], [Some(Duration::ZERO), Some(Duration::from_millis(7))]);
        for bad in ["", "S", "5X", "5", "999999999S", "-1S", "+1S", "1.5S", "1e3S", " 1S", "NaNS", "１S"] {
            assert_eq!(grpc(bad), None, "{bad:?}");
        }
        let millis = |text: &str| milliseconds(text.as_bytes());
        assert_eq!(millis("18446744073709551616000"), Some(Duration::from_millis(u64::MAX)));
        for bad in ["", "-1", "NaN", "1e9", "1.5", " 1", "1 ", "0x10", "∞"] {
            assert_eq!(millis(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_least_wins_and_contradictions_are_ignored() {
        let name = HeaderName::from_static("x-timeout-ms");
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT.clone(), "2S".parse().expect("a value"));
        headers.insert(name.clone(), "500".parse().expect("a value"));
        assert_eq!(of_headers(&headers, Some(&name)), Some(Duration::from_millis(500)));
        assert_eq!(of_headers(&headers, None), Some(Duration::from_secs(2)));
        headers.append(name.clone(), "9".parse().expect("a value"));
        assert_eq!(of_headers(&headers, Some(&name)), Some(Duration::from_secs(2)));
    }
}
