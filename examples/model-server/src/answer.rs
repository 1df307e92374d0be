//! The deterministic text: word pieces drawn from a hash.

/// The `created` time in every answer, in seconds since the Unix epoch: a constant, so that bodies compare equal.
pub const CREATED: u64 = 1_700_000_000;

/// Least and greatest number of tokens of an answer that nothing limits.
const NATURAL: (u64, u64) = (8, 64);

/// Word pieces, a power of two of them; all plain ASCII that JSON need not escape.
const PIECES: [&str; 64] = [
    " water",
    " the",
    " of",
    " and",
    " river",
    " gate",
    " a",
    " to",
    " turbine",
    " slow",
    " stream",
    " in",
    " rises",
    " dam",
    " over",
    " under",
    " basin",
    " holds",
    " pressure",
    " lake",
    " spill",
    " way",
    " level",
    " falls",
    " rain",
    " is",
    " still",
    " deep",
    " channel",
    " sluice",
    " opens",
    " closes",
    " when",
    " power",
    " flows",
    " before",
    " after",
    " surge",
    " intake",
    " screen",
    " debris",
    " clear",
    " head",
    " tail",
    " race",
    " pump",
    " stores",
    " night",
    " day",
    " demand",
    " supply",
    " meets",
    " ing",
    "s",
    "ed",
    ",",
    ".",
    " at",
    " rest",
    " by",
    " measure",
    " quiet",
    " long",
    " bank",
];

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The simulated model was done, or met a `stop` text.
    Stop,
    /// The token limit cut it.
    Length,
}

impl FinishReason {
    /// Its name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// What the server answers to one prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pieces: Vec<&'static str>,
    finish: FinishReason,
}

impl Answer {
    /// Returns the whole text.
    #[must_use]
    pub fn text(&self) -> String {
        self.pieces.concat()
    }

    /// Returns the number of tokens.
    #[must_use]
    pub fn completion_tokens(&self) -> u64 {
        self.pieces.len() as u64
    }

    /// Returns why it ended.
    #[must_use]
    pub const fn finish_reason(&self) -> FinishReason {
        self.finish
    }

    /// Returns its tokens in order, each a piece of the text.
    #[must_use]
    pub fn pieces(&self) -> &[&'static str] {
        &self.pieces
    }
}

/// Counts a prompt's tokens as this server does: a quarter of its characters, rounded up, at least one.
#[must_use]
pub fn prompt_tokens(text: &str) -> u64 {
    (text.chars().count() as u64).div_ceil(4).max(1)
}

/// What bounds the length of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) min: Option<u64>,
    pub(crate) max: Option<u64>,
    pub(crate) ignore_eos: bool,
}

impl Limits {
    /// How many tokens the answer with this hash has before any `stop` text, and why it ends there.
    pub(crate) fn length(self, hash: u64) -> (u64, FinishReason) {
        let natural = NATURAL.0 + mix(hash) % (NATURAL.1 - NATURAL.0 + 1);
        let end = natural.max(self.min.unwrap_or(0));
        match self.max {
            Some(max) if self.ignore_eos || end > max => (max, FinishReason::Length),
            _ => (end, FinishReason::Stop),
        }
    }
}

/// Draws the answer. O(tokens), and O(tokens · stops) with `stop` texts.
pub(crate) fn draw(hash: u64, limits: Limits, stops: &[String]) -> Answer {
    let (length, finish) = limits.length(hash);
    let mut random = Random(hash);
    let pieces = (0..length).map(|i| {
        let piece = PIECES[(random.next() >> 58) as usize];
        if i == 0 { piece.trim_start() } else { piece }
    });
    let mut answer = Answer { pieces: pieces.collect(), finish };
    if !stops.is_empty() {
        cut_at_stop(&mut answer, stops);
    }
    answer
}

/// Ends the answer before the first of the `stop` texts, as the API does: the text itself is not returned.
fn cut_at_stop(answer: &mut Answer, stops: &[String]) {
    let text = answer.text();
    let found = stops.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop.as_str())).min();
    let Some(mut room) = found else { return };
    answer.finish = FinishReason::Stop;
    let mut kept = 0;
    for piece in &mut answer.pieces {
        if room == 0 {
            break;
        }
        *piece = &piece[..room.min(piece.len())]; // pieces are ASCII: every index is a boundary
        room -= piece.len();
        kept += 1;
    }
    answer.pieces.truncate(kept);
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): one finaliser call per number.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// The finaliser of SplitMix64.
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a over the parts, with the length of each, then mixed: stable across processes and versions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn part(self, bytes: &[u8]) -> Self {
        self.bytes(bytes).bytes(&(bytes.len() as u64).to_le_bytes())
    }

    pub(crate) fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self
    }

    pub(crate) const fn finish(self) -> u64 {
        mix(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_need_no_escaping() {
        for piece in PIECES {
            assert_eq!(serde_json::to_string(piece).unwrap(), format!("\"{piece}\""));
        }
    }

    #[test]
    fn length_obeys_the_limits() {
        let limits = |min, max, ignore_eos| Limits { min, max, ignore_eos };
        for hash in 0..500 {
            let (natural, finish) = limits(None, None, false).length(hash);
            assert!((8..=64).contains(&natural) && finish == FinishReason::Stop);
            assert_eq!(limits(None, Some(3), false).length(hash), (3, FinishReason::Length));
            assert_eq!(limits(None, Some(natural), false).length(hash), (natural, FinishReason::Stop));
            assert_eq!(limits(Some(200), Some(200), false).length(hash).0, 200);
            assert_eq!(limits(None, Some(99), true).length(hash), (99, FinishReason::Length));
            assert_eq!(limits(Some(100), None, false).length(hash), (100, FinishReason::Stop));
        }
    }

    #[test]
    fn a_longer_answer_begins_with_the_shorter() {
        let max = |max| draw(7, Limits { min: Some(max), max: Some(max), ignore_eos: false }, &[]).text();
        assert!(max(50).starts_with(&max(20)));
        assert_ne!(draw(7, Limits::default(), &[]).text(), draw(8, Limits::default(), &[]).text());
    }

    #[test]
    fn stop_texts_are_cut_out_wherever_they_are() {
        let whole = draw(3, Limits::default(), &[]).text();
        for at in 0..whole.len() {
            let stop = &whole[at..(at + 4).min(whole.len())];
            let answer = draw(3, Limits::default(), &["never".into(), String::new(), stop.into()]);
            assert_eq!(answer.text(), whole[..whole.find(stop).unwrap()]);
            assert_eq!(answer.finish_reason(), FinishReason::Stop);
        }
    }

    #[test]
    fn prompts_count_a_quarter_of_their_characters() {
        assert_eq!([prompt_tokens(""), prompt_tokens("abcd"), prompt_tokens("abcde")], [1, 1, 2]);
        assert_eq!(prompt_tokens("ääää"), 1);
    }

    #[test]
    fn hashes_separate_their_parts() {
        let hash = |a: &[u8], b: &[u8]| Hash::new().part(a).part(b).finish();
        assert_ne!(hash(b"ab", b"c"), hash(b"a", b"bc"));
    }
}
