use std::collections::HashMap;

use forebay_core::{Class, Principal, RequestHead};

/// Says how urgent a request may be at most. Closures over a [`RequestHead`] are classifiers too.
#[diagnostic::on_unimplemented(
    note = "a classifier is a closure `|head: &RequestHead<'_>| -> Class`, a `Tiers`, or your own `impl Classify`"
)]
pub trait Classify: Send + Sync + 'static {
    /// The most urgent class that this request may have; the caller may ask for a less urgent one.
    fn classify(&self, head: &RequestHead<'_>) -> Class;
}

impl<F: Fn(&RequestHead<'_>) -> Class + Send + Sync + 'static> Classify for F {
    fn classify(&self, head: &RequestHead<'_>) -> Class {
        self(head)
    }
}

/// The class by the caller's tier: a table from [`Principal`] (in the request extensions) to a class.
///
/// ```
/// use forebay_core::{Class, Principal};
/// use forebay_priority::Tiers;
///
/// let tiers = Tiers::new(Class::P3)                          // whoever is not in the table
///     .member(Principal::from_bytes("acme"), Class::P0);     // an enterprise customer
/// ```
#[derive(Debug, Clone)]
pub struct Tiers {
    members: HashMap<Principal, Class>,
    others: Class,
}

impl Tiers {
    /// An empty table: everybody has the class `others`.
    #[must_use]
    pub fn new(others: Class) -> Self {
        Self { members: HashMap::new(), others }
    }

    /// Gives `principal` a class.
    #[must_use]
    pub fn member(mut self, principal: Principal, class: Class) -> Self {
        self.members.insert(principal, class);
        self
    }
}

impl Classify for Tiers {
    fn classify(&self, head: &RequestHead<'_>) -> Class {
        let principal = head.extensions.get::<Principal>();
        principal.and_then(|principal| self.members.get(principal)).copied().unwrap_or(self.others)
    }
}
