//! The inside of a JSON string, decoded as it arrives: a piece may end anywhere, also inside an escape or a character.

/// What is read is no JSON, is no UTF-8, or is nested too deeply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotJson;

/// Decodes one string after the other.
#[derive(Debug)]
pub(super) struct Text {
    escape: Escape,
    /// The first half of a surrogate pair, whose second half must follow at once.
    high: Option<u32>,
    utf8: Utf8,
}

// None => Begun at a backslash, Begun => None | Hex, Hex => None after four digits
#[derive(Debug, Clone, Copy)]
enum Escape {
    None,
    Begun,
    Hex { left: u8, code: u32 },
}

impl Text {
    pub(super) const fn new() -> Self {
        Self { escape: Escape::None, high: None, utf8: Utf8 { need: 0, low: 0, high: 0 } }
    }

    /// Decodes up to the closing quote: how many bytes were used, and whether the last of them is that quote.
    pub(super) fn feed(&mut self, input: &[u8], mut out: impl FnMut(&[u8])) -> Result<(usize, bool), NotJson> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match self.escape {
                Escape::None => {
                    let plain = plain(&input[at..]);
                    if !plain.is_empty() {
                        self.alone()?;
                        self.utf8.check(plain)?;
                        out(plain);
                        at += plain.len();
                        continue;
                    }
                    self.utf8.whole()?;
                    match byte {
                        b'"' => return self.alone().map(|()| (at + 1, true)),
                        b'\\' => self.escape = Escape::Begun,
                        _ => return Err(NotJson), // a control character
                    }
                }
                Escape::Begun => self.escape = self.begun(byte, &mut out)?,
                Escape::Hex { left, code } => {
                    let code = code << 4 | char::from(byte).to_digit(16).ok_or(NotJson)?;
                    self.escape = Escape::Hex { left: left - 1, code };
                    if left == 1 {
                        self.escape = Escape::None;
                        self.unit(code, &mut out)?;
                    }
                }
            }
            at += 1;
        }
        Ok((at, false))
    }

    /// The character after a backslash.
    fn begun(&self, byte: u8, out: &mut impl FnMut(&[u8])) -> Result<Escape, NotJson> {
        let plain = match byte {
            b'u' => return Ok(Escape::Hex { left: 4, code: 0 }),
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => return Err(NotJson),
        };
        self.alone()?;
        out(&[plain]);
        Ok(Escape::None)
    }

    /// A UTF-16 unit: a character, or half of one (RFC 8259, section 7).
    fn unit(&mut self, unit: u32, out: &mut impl FnMut(&[u8])) -> Result<(), NotJson> {
        let code = match (self.high.take(), unit) {
            (None, 0xd800..=0xdbff) => {
                self.high = Some(unit);
                return Ok(());
            }
            (None, _) => unit,
            (Some(high), 0xdc00..=0xdfff) => 0x1_0000 + ((high - 0xd800) << 10) + (unit - 0xdc00),
            (Some(_), _) => return Err(NotJson),
        };
        let character = char::from_u32(code).ok_or(NotJson)?;
        out(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    /// No half of a pair waits for its other half.
    fn alone(&self) -> Result<(), NotJson> {
        if self.high.is_none() { Ok(()) } else { Err(NotJson) }
    }
}

/// The bytes up to the next quote, backslash or control character.
fn plain(bytes: &[u8]) -> &[u8] {
    let special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
    // Without a way out of the inner loop the compiler looks at all bytes of a chunk at once.
    let clean = |chunk: &[u8; 32]| !chunk.iter().fold(false, |any, &byte| any | special(byte));
    let (chunks, _) = bytes.as_chunks();
    let from = 32 * chunks.iter().take_while(|chunk| clean(chunk)).count();
    let rest = &bytes[from..];
    &bytes[..from + rest.iter().position(|&byte| special(byte)).unwrap_or(rest.len())]
}

/// Checks UTF-8 piece by piece, by the table of well-formed sequences (The Unicode Standard, table 3-7).
#[derive(Debug)]
struct Utf8 {
    /// Bytes that the character still needs, and the range of the next.
    need: u8,
    low: u8,
    high: u8,
}

impl Utf8 {
    fn check(&mut self, bytes: &[u8]) -> Result<(), NotJson> {
        if self.need == 0 && bytes.is_ascii() {
            return Ok(());
        }
        for &byte in bytes {
            if self.need > 0 {
                if !(self.low..=self.high).contains(&byte) {
                    return Err(NotJson);
                }
                (self.need, self.low, self.high) = (self.need - 1, 0x80, 0xbf);
            } else {
                (self.need, self.low, self.high) = match byte {
                    0..=0x7f => (0, 0, 0),
                    0xc2..=0xdf => (1, 0x80, 0xbf),
                    0xe0 => (2, 0xa0, 0xbf),
                    0xed => (2, 0x80, 0x9f),
                    0xe1..=0xef => (2, 0x80, 0xbf),
                    0xf0 => (3, 0x90, 0xbf),
                    0xf1..=0xf3 => (3, 0x80, 0xbf),
                    0xf4 => (3, 0x80, 0x8f),
                    _ => return Err(NotJson),
                };
            }
        }
        Ok(())
    }

    /// No character is cut here.
    fn whole(&self) -> Result<(), NotJson> {
        if self.need == 0 { Ok(()) } else { Err(NotJson) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, NotJson> {
        let (mut text, mut out) = (Text::new(), Vec::new());
        for piece in pieces {
            let (used, closed) = text.feed(piece, |part| out.extend_from_slice(part))?;
            assert!(closed || used == piece.len());
            if closed {
                return Ok(out);
            }
        }
        Err(NotJson)
    }

    #[test]
    fn escapes_and_halves_of_characters() {
        let all = br#"a\u00e9\ud83d\ude00\n\/\"\\\b\f\r\t"#.iter().chain("é😀\"".as_bytes());
        let all: Vec<u8> = all.copied().collect();
        for cut in 0..=all.len() {
            let (one, two) = all.split_at(cut);
            assert_eq!(decode([one, two]).as_deref(), Ok("aé😀\n/\"\\\u{8}\u{c}\r\té😀".as_bytes()), "cut at {cut}");
        }
        let bad: [&[u8]; 10] = [
            br#"\ud83d""#,
            br#"\ud83dx""#,
            br#"\ud83d\n""#,
            br#"\ud83d\ud83d""#,
            br#"\ude00""#,
            br#"\u00g0""#,
            br#"\x""#,
            b"\n\"",
            b"\xc3\"",
            b"\xc0\x80\"",
        ];
        for bad in bad {
            assert_eq!(decode([bad]), Err(NotJson), "{bad:?}");
        }
    }

    #[test]
    fn a_plain_run_ends_at_the_first_special_byte() {
        for length in 0..100 {
            for special in [b'"', b'\\', 0, 0x1f] {
                let mut bytes = [b' ', 0x7f, b'!', 0xff].repeat(25);
                bytes[length] = special;
                assert_eq!(plain(&bytes).len(), length);
                assert_eq!(plain(&bytes[..length]).len(), length);
            }
        }
    }

    proptest! {
        #[test]
        fn utf8_is_what_std_takes_it_for(bytes in prop::collection::vec(0x7f_u8..=255, 0..8), cut in 0..8_usize) {
            let mut utf8 = Text::new().utf8;
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            let ours = utf8.check(one).and_then(|()| utf8.check(two)).and_then(|()| utf8.whole());
            prop_assert_eq!(ours.is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
