use http::{HeaderMap, Method, Uri, header};

use crate::{
    headers::IDEMPOTENCY_KEY,
    policy::{KeyTag, OwnerTag},
};

/// The longest key, in characters.
const MAX_LEN: usize = 255;

/// The `Idempotency-Key` field is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyInvalid;

/// Reads the key of a request (draft-ietf-httpapi-idempotency-key-header): quoted, or bare as many send it.
pub(crate) fn read(headers: &HeaderMap) -> Result<Option<String>, KeyInvalid> {
    let mut fields = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(KeyInvalid); // which of the two?
    }
    let text = field.to_str().map_err(|_| KeyInvalid)?.trim();
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => text.to_owned(),
    };
    check(&key)?;
    Ok(Some(key))
}

/// Says whether the text may be a key: 1 to 255 visible ASCII characters.
pub(crate) fn check(key: &str) -> Result<(), KeyInvalid> {
    let fits = (1..=MAX_LEN).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(()) } else { Err(KeyInvalid) }
}

/// Makes the key's identity: within its principal, or among those who have none.
pub(crate) fn tag(owner: Option<OwnerTag>, key: &str) -> KeyTag {
    let owner = owner.map(|owner| owner.as_u128().to_le_bytes());
    KeyTag::of(&[b"forebay key", owner.as_ref().map_or(b"", |owner| &owner[..]), key.as_bytes()])
}

/// Makes the identity of what is sent under a key.
pub(crate) fn fingerprint(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> KeyTag {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    KeyTag::of(&[b"forebay request", method.as_str().as_bytes(), target.as_bytes(), content_type, body])
}

/// The rest of an sf-string (RFC 8941, section 3.3.3) after its first quote; parameters are not known.
fn unquote(quoted: &str) -> Result<String, KeyInvalid> {
    let mut key = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    loop {
        match chars.next() {
            Some('"') if chars.as_str().is_empty() => return Ok(key),
            Some('\\') => match chars.next() {
                Some(c @ ('"' | '\\')) => key.push(c),
                _ => return Err(KeyInvalid),
            },
            None | Some('"') => return Err(KeyInvalid),
            Some(c) => key.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{KeyInvalid, read};

    fn key(fields: &[&str]) -> Result<Option<String>, KeyInvalid> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append("idempotency-key", HeaderValue::from_str(field).unwrap());
        }
        read(&headers)
    }

    #[test]
    fn quoted_and_bare_are_the_same_key() {
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&["\"8e03978e\""]), key(&["8e03978e"]));
        assert_eq!(key(&[r#""a\"b\\""#]), Ok(Some(r#"a"b\"#.to_owned())));
        assert_eq!(key(&["x".repeat(255).as_str()]), Ok(Some("x".repeat(255))));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for field in ["", "\"\"", "\"", "\"abc", "\"a\"b", "a b", "\"a\\c\"", "x".repeat(256).as_str()] {
            assert_eq!(key(&[field]), Err(KeyInvalid), "{field}");
        }
        assert_eq!(key(&["a", "a"]), Err(KeyInvalid));
    }
}
