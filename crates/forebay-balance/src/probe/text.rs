//! The text format of Prometheus and OpenMetrics, as it arrives.

use std::{borrow::Cow, mem};

/// The longest page that is read, 4 MiB: more is [`ParseError::TooLarge`].
pub const MAX_BYTES: usize = 4 << 20;

/// The longest line that is read, 64 KiB without its end: a longer one is skipped.
pub const MAX_LINE_BYTES: usize = 64 << 10;

/// Why a page could not be read at all. A single bad line is no error: it is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// More than [`MAX_BYTES`].
    #[error("the page is longer than {MAX_BYTES} bytes")]
    TooLarge,
    /// It begins with `<`: an error page, or the wrong path.
    #[error("an HTML page, not metrics")]
    Html,
    /// It begins as gzip does, though nobody asked for it.
    #[error("a compressed page: metrics are asked for with `accept-encoding: identity`")]
    Compressed,
    /// It contains a zero byte, as no text does: Prometheus' protobuf format, for example.
    #[error("a binary page, not the text format")]
    Binary,
    /// It has text, and not a line of it is a sample or a comment: a JSON document, for example.
    #[error("neither a sample nor a comment in it")]
    NotMetrics,
    /// Not JSON, not all of it, or not the document of this preset: an error page, or the wrong path.
    #[error("not the JSON document that the preset reads")]
    NotJson,
}

/// One sample, borrowed from its line.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sample<'a> {
    /// The name of the metric, colons included.
    pub name: &'a str,
    /// Labels and their values, unescaped, in the order of the line.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// The value as it stands, which may be NaN, negative or infinite.
    pub value: f64,
}

impl Sample<'_> {
    /// The value of a label, the first if it is there twice.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| &**value)
    }
}

/// Receives what a [`Parser`] finds.
pub trait Sink {
    /// Whether samples of this name are wanted; the labels of others are not even looked at.
    fn wants(&self, name: &str) -> bool;

    /// A wanted sample, in the order of the page. The same series may come twice: that is for the sink to judge.
    fn sample(&mut self, sample: &Sample<'_>);
}

/// Reads the text format from chunks of any size; how a page is cut never changes what is read.
///
/// Follows the [Prometheus text format 0.0.4] and, for exemplars and `# EOF`, [OpenMetrics 1.0]. It departs from them
/// to be lenient, since the page was written by others: types are not needed, a line that is no sample is skipped, an
/// unknown escape stays as it is. Metric names in quotes (Prometheus 3) are skipped, none that we know needs them.
///
/// It takes time in proportion to the page, and keeps no more than one line of at most [`MAX_LINE_BYTES`].
///
/// [Prometheus text format 0.0.4]: https://prometheus.io/docs/instrumenting/exposition_formats/
/// [OpenMetrics 1.0]: https://prometheus.io/docs/specs/om/open_metrics_spec/
#[derive(Debug)]
pub struct Parser<S> {
    sink: S,
    /// The line so far, if it began in an earlier chunk.
    line: Vec<u8>,
    /// The line is too long: nothing of it counts until it ends.
    skipping: bool,
    total: usize,
    /// Something other than white space was there.
    begun: bool,
    /// A sample or a comment was there.
    recognised: bool,
    failed: Option<ParseError>,
}

impl<S: Sink> Parser<S> {
    /// A parser at the beginning of a page.
    #[must_use]
    pub fn new(sink: S) -> Self {
        Self { sink, line: Vec::new(), skipping: false, total: 0, begun: false, recognised: false, failed: None }
    }

    /// Reads the next part of the page.
    ///
    /// # Errors
    ///
    /// [`ParseError`] once the page cannot be metrics or is too long; the rest of it need not be fetched. Every later
    /// call gives the same error.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ParseError> {
        let result = self.failed.map_or_else(|| self.feed(chunk), Err);
        self.failed = result.err();
        result
    }

    /// Ends the page, whose last line needs no end of its own, and gives the sink back. It cannot tell whether the page
    /// was cut off: whoever fetches it must.
    ///
    /// # Errors
    ///
    /// [`ParseError`], as from [`push`](Self::push), or if no line was a sample or a comment. An empty page is fine.
    pub fn finish(mut self) -> Result<S, ParseError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.end_line(&[]);
        if self.begun && !self.recognised { Err(ParseError::NotMetrics) } else { Ok(self.sink) }
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), ParseError> {
        // What fits is looked at first, so that the error does not depend on how the page was cut.
        let (mut rest, over) = chunk.split_at(chunk.len().min(MAX_BYTES - self.total));
        self.total += rest.len();
        if !self.begun
            && let Some(first) = rest.iter().find(|byte| !byte.is_ascii_whitespace())
        {
            self.begun = true;
            match first {
                b'<' => return Err(ParseError::Html),
                0x1f => return Err(ParseError::Compressed), // RFC 1952, section 2.3.1: ID1; text never begins so
                _ => {}
            }
        }
        if rest.contains(&0) {
            return Err(ParseError::Binary);
        }
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.end_line(&rest[..end]);
            rest = &rest[end + 1..];
        }
        self.keep(rest);
        if over.is_empty() { Ok(()) } else { Err(ParseError::TooLarge) }
    }

    fn keep(&mut self, part: &[u8]) {
        self.skipping |= self.line.len() + part.len() > MAX_LINE_BYTES;
        if self.skipping {
            self.line.clear();
        } else {
            self.line.extend_from_slice(part);
        }
    }

    fn end_line(&mut self, part: &[u8]) {
        if self.line.is_empty() && !self.skipping && part.len() <= MAX_LINE_BYTES {
            return self.read(part); // the common case: nothing is copied
        }
        self.keep(part);
        let mut line = mem::take(&mut self.line);
        self.read(&line);
        line.clear();
        (self.line, self.skipping) = (line, false);
    }

    fn read(&mut self, line: &[u8]) {
        let Ok(line) = str::from_utf8(line) else { return };
        let line = line.trim_ascii();
        if line.starts_with('#') {
            self.recognised = true;
            return;
        }
        let (name, rest) = split_name(line, |byte| byte == b':');
        let wanted = self.sink.wants(name);
        if wanted || !self.recognised {
            let Some(sample) = read_sample(name, rest) else { return };
            self.recognised = true;
            if wanted {
                self.sink.sample(&sample);
            }
        }
    }
}

/// The name at the beginning, and what comes after; the name is empty if there is none.
fn split_name(text: &str, also: impl Fn(u8) -> bool) -> (&str, &str) {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || also(byte);
    let end = text.bytes().position(|byte| !part(byte)).unwrap_or(text.len());
    text.split_at(if text.starts_with(|first: char| first.is_ascii_digit()) { 0 } else { end })
}

fn read_sample<'a>(name: &'a str, rest: &'a str) -> Option<Sample<'a>> {
    if name.is_empty() || !rest.starts_with(['{', ' ', '\t']) {
        return None;
    }
    let (labels, rest) = match rest.trim_ascii_start().strip_prefix('{') {
        Some(inside) => read_labels(inside)?,
        None => (Vec::new(), rest),
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?; // Rust reads what Go writes: NaN, +Inf, 1e+06
    match words.next() {
        None => {}
        Some(exemplar) if exemplar.starts_with('#') => {}
        Some(timestamp) => {
            timestamp.parse::<f64>().ok()?;
            if words.next().is_some_and(|word| !word.starts_with('#')) {
                return None;
            }
        }
    }
    Some(Sample { name, labels, value })
}

type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// The labels up to the closing brace, and what comes after it.
fn read_labels(mut rest: &str) -> Option<(Labels<'_>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = split_name(rest, |_| false);
        let quoted = after.trim_ascii_start().strip_prefix('=')?.trim_ascii_start().strip_prefix('"')?;
        let (value, after) = read_quoted(quoted)?;
        if name.is_empty() {
            return None;
        }
        labels.push((name, value));
        rest = after;
    }
}

/// The text up to the closing quote, unescaped, and what comes after it.
fn read_quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let first = text.find(['"', '\\'])?;
    let (mut value, mut rest) = (Cow::Borrowed(&text[..first]), &text[first..]);
    while let Some(after) = rest.strip_prefix('\\') {
        let escaped = after.chars().next()?;
        let value = value.to_mut();
        match escaped {
            'n' => value.push('\n'),
            '"' | '\\' => value.push(escaped),
            _ => value.extend(['\\', escaped]),
        }
        rest = &after[escaped.len_utf8()..];
        let next = rest.find(['"', '\\'])?;
        value.push_str(&rest[..next]);
        rest = &rest[next..];
    }
    Some((value, &rest[1..])) // it stands at the closing quote
}
