use std::collections::HashMap;

use forebay_core::{Class, Principal};
use forebay_priority::Tiers;
use http::{HeaderMap, header};

use crate::config::Config;

/// Knows the API keys. It keeps digests only, so that the time of a look-up says nothing about a key.
#[derive(Debug, Clone)]
pub struct Keys {
    tenants: HashMap<[u8; 32], Principal>,
}

/// The caller showed no key, or none that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthError {
    /// There is no key in the request.
    Missing,
    /// The key is unknown.
    Unknown,
}

impl Keys {
    /// The keys of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let digest = |key: &str| *blake3::hash(key.as_bytes()).as_bytes();
        let tenant = |tenant: &str| Principal::from_bytes(tenant);
        Self { tenants: config.keys.iter().map(|key| (digest(&key.key), tenant(&key.tenant))).collect() }
    }

    /// Who sent this: the bearer token of `Authorization`, or `X-Api-Key`. `None` if the gateway has no keys at all.
    ///
    /// # Errors
    ///
    /// The gateway has keys and the request shows none of them.
    pub fn principal(&self, headers: &HeaderMap) -> Result<Option<Principal>, AuthError> {
        if self.tenants.is_empty() {
            return Ok(None);
        }
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().as_bytes())
        });
        let key =
            bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes())).ok_or(AuthError::Missing)?;
        let tenant = self.tenants.get(blake3::hash(key).as_bytes()).ok_or(AuthError::Unknown)?;
        Ok(Some(tenant.clone()))
    }
}

/// The class of each tenant, by its tier; a tenant with several keys has the most urgent of them.
#[must_use]
pub fn tiers(config: &Config) -> Tiers {
    let mut classes: HashMap<&str, Class> = HashMap::new();
    for key in &config.keys {
        let class: Class = config.tiers.get(&key.tier).and_then(|class| class.parse().ok()).unwrap_or_default();
        classes.entry(&key.tenant).and_modify(|known| *known = class.min(*known)).or_insert(class);
    }
    classes
        .into_iter()
        .fold(Tiers::new(Class::default()), |tiers, (tenant, class)| tiers.member(Principal::from_bytes(tenant), class))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let text = "tiers = { gold = 'p0' }\n[[keys]]\ntenant = 'acme'\ntier = 'gold'\nkey = 'acme-key-1'";
        Keys::new(&Config::parse(text).expect("valid"))
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().expect("a name"), value.parse().expect("a value"))])
    }

    #[test]
    fn a_known_key_is_its_tenant_in_either_header() {
        let acme = Ok(Some(Principal::from_bytes("acme")));
        for (name, value) in [
            ("authorization", "Bearer acme-key-1"),
            ("authorization", "bearer acme-key-1"),
            ("x-api-key", "acme-key-1"),
        ] {
            assert_eq!(keys().principal(&headers(name, value)), acme, "{value}");
        }
    }

    #[test]
    fn any_other_is_refused() {
        assert_eq!(keys().principal(&HeaderMap::new()), Err(AuthError::Missing));
        for value in ["Bearer acme-key-2", "Bearer ", "Bearer acme-key-1x", "Bearer ACME-KEY-1"] {
            assert_eq!(keys().principal(&headers("authorization", value)), Err(AuthError::Unknown), "{value}");
        }
        assert_eq!(keys().principal(&headers("authorization", "Basic YTpi")), Err(AuthError::Missing));
    }

    #[test]
    fn without_keys_everybody_is_let_in_as_nobody() {
        let open = Keys::new(&Config::default());
        assert_eq!(open.principal(&headers("authorization", "Bearer whatever")), Ok(None));
    }
}
