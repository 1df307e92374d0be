//! Finds the key of a request in what has arrived of its body.

use std::sync::Arc;

use forebay_core::{AffinityKey, Principal};

use super::blocks::{Blocks, PrefixBlocks};
use super::config::Wanted;
use super::key::{Kind, key};
use super::scan::{Scanner, Visit};

/// Stands behind each string and number of a prompt, so that `["ab"]` and `["a", "b"]` differ: no byte of UTF-8.
const SEPARATOR: &[u8] = &[0xff];

/// What the body so far says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing certain yet.
    More,
    /// All that is looked at: [`Finder::found`] is final.
    Enough,
    /// It is no JSON: there is no key.
    Nothing,
}

/// Reads a body as it arrives, up to a bound.
#[derive(Debug)]
pub(super) struct Finder {
    scanner: Scanner,
    sight: Sight,
    /// Bytes that are still looked at.
    left: usize,
}

impl Finder {
    pub(super) fn new(wanted: Arc<Wanted>, principal: Option<Principal>) -> Self {
        let left = wanted.max_peek;
        let blocks = Blocks::new(key(principal.as_ref(), Kind::Prompt, b"").0);
        let prompt = if wanted.prompt.is_empty() { Prompt::Ended } else { Prompt::Awaited };
        let sight = Sight { wanted, principal, member: None, value: Vec::new(), field: None, prompt, blocks };
        Self { scanner: Scanner::new(), sight, left }
    }

    /// Looks at the next piece of the body. O(n).
    pub(super) fn look(&mut self, data: &[u8]) -> Look {
        let seen = data.len().min(self.left);
        // An empty piece counts as well, so that their number is bounded.
        self.left -= seen.max(1).min(self.left);
        if self.scanner.feed(&data[..seen], &mut self.sight).is_err() {
            Look::Nothing
        } else if self.left == 0 || self.scanner.is_complete() || self.sight.is_done() {
            Look::Enough
        } else {
            Look::More
        }
    }

    /// The key, and the blocks of the prompt.
    pub(super) fn found(&self) -> (Option<AffinityKey>, Option<PrefixBlocks>) {
        let hashes = self.sight.blocks.hashes();
        // The first block alone is a system prompt that everybody shares. The second hash covers both.
        let prompt = hashes.get(1).copied().map(AffinityKey);
        (self.sight.field.or(prompt), (!hashes.is_empty()).then(|| PrefixBlocks::new(hashes)))
    }
}

/// What was seen.
#[derive(Debug)]
struct Sight {
    wanted: Arc<Wanted>,
    principal: Option<Principal>,
    /// The member that is being read.
    member: Option<Member>,
    value: Vec<u8>,
    field: Option<AffinityKey>,
    prompt: Prompt,
    blocks: Blocks,
}

/// Which of the wanted fields, by its number; or the prompt.
#[derive(Debug, Clone, Copy)]
enum Member {
    Field(usize),
    Prompt,
}

// Awaited => Begun at the first member that holds a prompt, Begun => Ended after it
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prompt {
    Awaited,
    Begun,
    Ended,
}

impl Visit for Sight {
    fn member(&mut self, name: &[u8]) -> bool {
        let is = |wanted: &String| wanted.as_bytes() == name;
        self.member = match self.wanted.fields.iter().position(is) {
            Some(which) if self.field.is_none() => Some(Member::Field(which)),
            _ if self.prompt == Prompt::Awaited && self.wanted.prompt.iter().any(is) => {
                self.prompt = Prompt::Begun;
                Some(Member::Prompt)
            }
            _ => None,
        };
        self.value.clear();
        self.member.is_some()
    }

    fn text(&mut self, piece: &[u8], nested: bool) {
        match self.member {
            Some(Member::Prompt) => self.blocks.push(piece),
            Some(Member::Field(_)) if !nested => self.value.extend_from_slice(piece),
            _ => {}
        }
    }

    fn scalar(&mut self, nested: bool) {
        match self.member {
            Some(Member::Prompt) => self.blocks.push(SEPARATOR),
            Some(Member::Field(which)) if !nested && !self.value.is_empty() => {
                let name = self.wanted.fields.get(which).map_or("", String::as_str);
                self.field = Some(key(self.principal.as_ref(), Kind::Field(name), &self.value));
            }
            _ => {}
        }
    }

    fn member_end(&mut self) {
        if matches!(self.member.take(), Some(Member::Prompt)) {
            self.prompt = Prompt::Ended;
        }
    }

    fn is_done(&self) -> bool {
        let field = self.field.is_some() || self.wanted.fields.is_empty();
        field && (self.prompt == Prompt::Ended || self.blocks.is_full())
    }
}
