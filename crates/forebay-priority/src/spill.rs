use forebay_core::{Class, NoOverflow, Reason, Rejection};

/// An overflow hook, and whose refusals it is asked about.
#[derive(Debug, Clone)]
pub(crate) struct Spill<O = NoOverflow> {
    hook: O,
    classes: u16,
}

impl Spill {
    pub(crate) const NONE: Self = Self { hook: NoOverflow, classes: 0 };
}

impl<O> Spill<O> {
    pub(crate) fn new(hook: O, classes: impl IntoIterator<Item = Class>) -> Self {
        let classes = classes.into_iter().fold(0, |set, class| set | 1 << class.index());
        Self { hook, classes }
    }

    /// The hook, if it is to be asked: never where the answer would be worthless.
    pub(crate) fn hook(&self, class: Class, why: &Rejection) -> Option<&O> {
        let asked = self.classes & 1 << class.index() != 0 && why.reason != Reason::DeadlineExceeded;
        asked.then_some(&self.hook)
    }
}
