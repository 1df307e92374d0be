//! Canonical JSON: two bodies that mean the same give the same text, two that differ never do.
//!
//! Members are ordered as in RFC 8785, strings are decoded and written with the fewest escapes, and numbers are exact
//! decimals of what was written: `1`, `1.0` and `10e-1` are one number, while integers beyond 2^53, which RFC 8785 would
//! round as doubles, stay apart. Whatever two parsers might read differently has no canonical form: the cache lets it
//! pass.
//!
//! ```
//! use forebay_cache::canon::{Ambiguous, canonical};
//!
//! let a = canonical(br#"{"model": "m", "n": 1.0, "user": "u7"}"#, &["user"])?;
//! let b = canonical(br#"{"n":10e-1,"\u006dodel":"m"}"#, &["user"])?;
//! assert_eq!(a.text(), r#"{"model":"m","n":1}"#);
//! assert_eq!(a.text(), b.text());
//! assert_eq!(canonical(br#"{"n":1,"n":2}"#, &[]).unwrap_err(), Ambiguous::Duplicate);
//! # Ok::<(), Ambiguous>(())
//! ```

use std::ops::Range;

/// The deepest nesting that has a canonical form.
pub const MAX_DEPTH: usize = 64;
const MAX_EXPONENT: i64 = 1_000_000;

/// Why a text has no canonical form. Not an error of the request: it passes, uncached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ambiguous {
    /// Not JSON, or more than one value, or a byte order mark before it.
    Syntax,
    /// Not UTF-8, or half of a surrogate pair.
    Encoding,
    /// A member name twice in one object.
    Duplicate,
    /// More than [`MAX_DEPTH`] levels.
    Depth,
    /// An exponent beyond a million.
    Number,
}

/// The canonical form of a JSON text.
#[derive(Debug, Clone)]
pub struct Canonical {
    text: String,
    members: Vec<(String, Range<usize>)>,
}

impl Canonical {
    /// The canonical text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The canonical value of a member of the outermost object, unless it was left out.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.members.iter().find(|(member, _)| member == name)?;
        self.text.get(value.clone())
    }

    /// Whether the text is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.text.starts_with('{')
    }
}

/// The canonical form of `text`, without the members of the outermost object that are named in `skip`.
///
/// O(n log n) in time for n bytes at a bounded depth, O(n) in memory.
///
/// # Errors
///
/// When parsers might disagree on what the text means.
pub fn canonical(text: &[u8], skip: &[&str]) -> Result<Canonical, Ambiguous> {
    let text = std::str::from_utf8(text).map_err(|_| Ambiguous::Encoding)?;
    let mut walk = Walk { text, at: 0, out: String::with_capacity(text.len()), skip, members: Vec::new() };
    walk.space();
    walk.value(0)?;
    walk.space();
    if walk.at < text.len() {
        return Err(Ambiguous::Syntax);
    }
    Ok(Canonical { text: walk.out, members: walk.members })
}

struct Walk<'a> {
    text: &'a str,
    at: usize,
    out: String,
    skip: &'a [&'a str],
    members: Vec<(String, Range<usize>)>,
}

impl<'a> Walk<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, byte: u8) -> Result<(), Ambiguous> {
        if self.eat(byte) { Ok(()) } else { Err(Ambiguous::Syntax) }
    }

    fn value(&mut self, depth: usize) -> Result<(), Ambiguous> {
        match self.peek() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => Err(Ambiguous::Depth),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => {
                let string = self.string()?;
                write_string(&mut self.out, &string);
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let rest = &self.text[self.at..];
                let word = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word));
                let word = word.ok_or(Ambiguous::Syntax)?;
                self.at += word.len();
                self.out.push_str(word);
                Ok(())
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Ambiguous> {
        self.at += 1;
        self.out.push('[');
        self.space();
        if !self.eat(b']') {
            loop {
                self.space();
                self.value(depth + 1)?;
                self.space();
                if self.eat(b']') {
                    break;
                }
                self.need(b',')?;
                self.out.push(',');
            }
        }
        self.out.push(']');
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), Ambiguous> {
        self.at += 1;
        let start = self.out.len();
        let mut members: Vec<(String, Range<usize>)> = Vec::new();
        self.space();
        if !self.eat(b'}') {
            loop {
                self.space();
                let name = self.string()?;
                self.space();
                self.need(b':')?;
                self.space();
                let from = self.out.len() - start;
                self.value(depth + 1)?;
                members.push((name, from..self.out.len() - start));
                self.space();
                if self.eat(b'}') {
                    break;
                }
                self.need(b',')?;
            }
        }
        members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16())); // RFC 8785, section 3.2.3
        if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Ambiguous::Duplicate);
        }
        if depth == 0 {
            members.retain(|(name, _)| !self.skip.contains(&name.as_str()));
        }
        let values = self.out.split_off(start);
        self.out.push('{');
        for (at, (name, value)) in members.iter_mut().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            write_string(&mut self.out, name);
            self.out.push(':');
            let from = self.out.len();
            self.out.push_str(&values[value.clone()]);
            *value = from..self.out.len();
        }
        self.out.push('}');
        if depth == 0 {
            self.members = members;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<String, Ambiguous> {
        self.need(b'"')?;
        let mut string = String::new();
        loop {
            let from = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            string.push_str(&self.text[from..self.at]); // stops at ASCII only, so never inside a character
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escape()?),
                _ => return Err(Ambiguous::Syntax),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Ambiguous> {
        let kind = self.text.as_bytes().get(self.at + 1).copied();
        self.at += 2;
        Ok(match kind {
            Some(plain @ (b'"' | b'\\' | b'/')) => plain.into(),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let mut code = self.hex()?;
                if (0xd800..0xdc00).contains(&code) {
                    if !(self.eat(b'\\') && self.eat(b'u')) {
                        return Err(Ambiguous::Encoding);
                    }
                    let low = self.hex()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(Ambiguous::Encoding);
                    }
                    code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                char::from_u32(code).ok_or(Ambiguous::Encoding)?
            }
            _ => return Err(Ambiguous::Syntax),
        })
    }

    fn hex(&mut self) -> Result<u32, Ambiguous> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(Ambiguous::Syntax)?;
        self.at += 4;
        digits.iter().try_fold(0, |code, &digit| {
            let digit = char::from(digit).to_digit(16).ok_or(Ambiguous::Syntax)?;
            Ok(code << 4 | digit)
        })
    }

    fn digits(&mut self) -> Result<&'a str, Ambiguous> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if from == self.at { Err(Ambiguous::Syntax) } else { Ok(&self.text[from..self.at]) }
    }

    /// Writes the number as `[-]digits[e exponent]`, without zeros at either end of the digits.
    fn number(&mut self) -> Result<(), Ambiguous> {
        let negative = self.eat(b'-');
        let whole = self.digits()?;
        if whole.len() > 1 && whole.starts_with('0') {
            return Err(Ambiguous::Syntax);
        }
        let fraction = if self.eat(b'.') { self.digits()? } else { "" };
        let mut exponent = 0;
        if self.eat(b'e') || self.eat(b'E') {
            let minus = self.eat(b'-');
            if !minus {
                self.eat(b'+');
            }
            let size = self.digits()?.trim_start_matches('0');
            let size: i64 = if size.is_empty() { 0 } else { size.parse().map_err(|_| Ambiguous::Number)? };
            if size > MAX_EXPONENT {
                return Err(Ambiguous::Number);
            }
            exponent = if minus { -size } else { size };
        }
        let digits = [whole, fraction].concat();
        let kept = digits.trim_end_matches('0');
        exponent += (digits.len() - kept.len()) as i64 - fraction.len() as i64;
        let kept = kept.trim_start_matches('0');
        if kept.is_empty() {
            self.out.push('0'); // and -0: JSON has one zero
            return Ok(());
        }
        if negative {
            self.out.push('-');
        }
        self.out.push_str(kept);
        if exponent != 0 {
            self.out.push('e');
            self.out.push_str(&exponent.to_string());
        }
        Ok(())
    }
}

fn write_string(out: &mut String, string: &str) {
    out.push('"');
    for part in string.split_inclusive(|c: char| matches!(c, '"' | '\\' | '\0'..='\x1f')) {
        let Some(last) = part.chars().next_back() else { continue };
        match last {
            '"' | '\\' => {
                out.push_str(&part[..part.len() - 1]);
                out.push('\\');
                out.push(last);
            }
            '\0'..='\x1f' => {
                out.push_str(&part[..part.len() - 1]);
                out.push_str(&format!("\\u{:04x}", u32::from(last)));
            }
            _ => out.push_str(part),
        }
    }
    out.push('"');
}
