use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use forebay_core::{Class, Principal, RequestHead};
use http::header::AUTHORIZATION;

use crate::classify::{Classified, Classify};

/// What a group of customers is sold: how urgent they may be, and what they were promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Tier {
    /// The most urgent class.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_class"))]
    pub ceiling: Class,
    /// Within what time the answer begins.
    #[cfg_attr(feature = "serde", serde(default, with = "humantime_serde"))]
    pub sla: Option<Duration>,
}

impl Tier {
    /// At most this urgent, nothing promised.
    #[must_use]
    pub const fn new(ceiling: Class) -> Self {
        Self { ceiling, sla: None }
    }

    /// Promises that the answer begins within this time: such a request has the least urgent class that can keep it.
    #[must_use]
    pub const fn sla(mut self, sla: Duration) -> Self {
        self.sla = Some(sla);
        self
    }
}

impl From<Class> for Tier {
    fn from(ceiling: Class) -> Self {
        Self::new(ceiling)
    }
}

/// The class by the caller's tier: a table from who calls to what they were sold.
///
/// Who calls is the [`Principal`] in the request extensions, which your authentication sets; without one it is the API
/// key in `Authorization: Bearer` or `x-api-key`.
///
/// ```
/// use std::time::Duration;
/// use forebay_core::{Class, Principal};
/// use forebay_priority::{Tier, Tiers};
///
/// let tiers = Tiers::new(Class::P3)                                    // whoever is not in the table
///     .member(Principal::from_bytes("acme"), Class::P0)                // an enterprise customer
///     .member(Principal::from_bytes("initech"), Tier::new(Class::P1).sla(Duration::from_secs(4)))
///     .key("sk-globex-1", Principal::from_bytes("globex"), Class::P2); // one who is known by a key
/// ```
#[derive(Clone)]
pub struct Tiers {
    members: HashMap<Principal, Tier>,
    keys: HashMap<Vec<u8>, Principal>,
    others: Tier,
}

impl fmt::Debug for Tiers {
    /// Without keys and members.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiers")
            .field("members", &self.members.len())
            .field("others", &self.others)
            .finish_non_exhaustive()
    }
}

impl Tiers {
    /// An empty table: everybody has the tier `others`.
    #[must_use]
    pub fn new(others: impl Into<Tier>) -> Self {
        Self { members: HashMap::new(), keys: HashMap::new(), others: others.into() }
    }

    /// Gives `principal` a tier.
    #[must_use]
    pub fn member(mut self, principal: Principal, tier: impl Into<Tier>) -> Self {
        self.members.insert(principal, tier.into());
        self
    }

    /// Gives `principal`, who is known by an API key, a tier. The key itself never is an identity: it goes nowhere.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>, principal: Principal, tier: impl Into<Tier>) -> Self {
        self.keys.insert(key.into(), principal.clone());
        self.member(principal, tier)
    }

    fn by_key(&self, head: &RequestHead<'_>) -> Option<&Principal> {
        if self.keys.is_empty() {
            return None;
        }
        let bearer = head.headers.get(AUTHORIZATION).map(|value| value.as_bytes()).and_then(|value| {
            let (scheme, key) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key.trim_ascii())
        });
        let key = bearer.or_else(|| head.headers.get("x-api-key").map(|value| value.as_bytes()))?;
        self.keys.get(key)
    }
}

impl Classify for Tiers {
    fn classify(&self, head: &RequestHead<'_>) -> Classified {
        let known = head.extensions.get::<Principal>();
        let by_key = if known.is_none() { self.by_key(head) } else { None };
        let tier = known.or(by_key).and_then(|principal| self.members.get(principal)).unwrap_or(&self.others);
        let mut classified = Classified::new(tier.ceiling);
        (classified.sla, classified.principal) = (tier.sla, by_key.cloned());
        classified
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn of(tiers: &Tiers, request: &Request<()>) -> Classified {
        tiers.classify(&RequestHead::from(request))
    }

    #[test]
    fn r11_a_key_names_its_principal_and_a_principal_its_tier() {
        let globex = Principal::from_bytes("globex");
        let tiers =
            Tiers::new(Class::P3).key("sk-1", globex.clone(), Class::P1).member(Principal::from_bytes("a"), Class::P0);
        let mut request = Request::new(());
        assert_eq!(of(&tiers, &request), Classified::new(Class::P3));
        for (name, value) in [("authorization", "bearer sk-1"), ("x-api-key", "sk-1")] {
            let mut request = Request::new(());
            request.headers_mut().insert(name, value.parse().expect("a value"));
            assert_eq!(of(&tiers, &request), Classified::new(Class::P1).principal(globex.clone()));
            request.extensions_mut().insert(Principal::from_bytes("a"));
            assert_eq!(of(&tiers, &request), Classified::new(Class::P0), "authentication outside comes first");
        }
        for bad in ["Basic sk-1", "Bearer", "Bearer ", "Bearer sk-2", "sk-1"] {
            request.headers_mut().insert("authorization", bad.parse().expect("a value"));
            assert_eq!(of(&tiers, &request).ceiling, Class::P3, "{bad}");
        }
        assert!(!format!("{tiers:?}").contains("sk-1"));
    }
}
