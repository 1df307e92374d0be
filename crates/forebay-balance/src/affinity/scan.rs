//! A JSON object, read as it arrives and perhaps never to its end: what its members are, and the text in those that
//! somebody wants. It checks what it must to keep its place, so that text that is no JSON is seldom taken for some.

use super::text::{NotJson, Text};

/// The deepest nesting that is read.
const MAX_DEPTH: u32 = 64;

/// Member names are kept up to this length, in bytes; longer ones are cut, and so equal to none that is wanted.
pub(super) const MAX_NAME: usize = 256;

/// What is told of an object. "Member" means one of the outermost object.
pub(super) trait Visit {
    /// A member begins: is its text wanted?
    fn member(&mut self, name: &[u8]) -> bool;
    /// A piece of a string or number in a wanted member; `nested` in an object or array.
    fn text(&mut self, piece: &[u8], nested: bool);
    /// That string or number has ended.
    fn scalar(&mut self, nested: bool);
    /// The wanted member has ended.
    fn member_end(&mut self);
    /// Enough was seen: nothing more is read.
    fn is_done(&self) -> bool;
}

/// Where in the text it is, in constant memory whatever the nesting.
#[derive(Debug)]
pub(super) struct Scanner {
    at: At,
    depth: u32,
    /// A bit for each level: set for an object.
    objects: u64,
    text: Text,
    name: Vec<u8>,
    wanted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    /// Before a name, or the end of an empty object.
    FirstName,
    Name,
    InName,
    Colon,
    /// Before a value, or the end of an empty array.
    FirstValue,
    Value,
    InString,
    InNumber,
    /// In `true`, `false` or `null`: what is still to come.
    InWord(&'static [u8]),
    After,
    End,
}

impl Scanner {
    pub(super) const fn new() -> Self {
        let text = Text::new();
        Self { at: At::Start, depth: 0, objects: 0, text, name: Vec::new(), wanted: false }
    }

    /// The object has ended.
    pub(super) fn is_complete(&self) -> bool {
        self.at == At::End
    }

    /// Reads on, until the object has ended or the visitor is done. O(n), no recursion.
    pub(super) fn feed(&mut self, mut input: &[u8], visit: &mut impl Visit) -> Result<(), NotJson> {
        while !input.is_empty() && !self.is_complete() && !visit.is_done() {
            let used = self.step(input, visit)?;
            input = &input[used..];
        }
        Ok(())
    }

    /// Reads a piece of a string, number or word, or one byte between them; 0 where only the state has changed.
    fn step(&mut self, input: &[u8], visit: &mut impl Visit) -> Result<usize, NotJson> {
        let nested = self.depth > 1;
        match self.at {
            At::InName => {
                let name = &mut self.name;
                let (used, closed) = self.text.feed(input, |piece| {
                    let room = MAX_NAME.saturating_sub(name.len());
                    name.extend_from_slice(&piece[..piece.len().min(room)]);
                })?;
                if closed {
                    self.at = At::Colon;
                    if !nested {
                        self.wanted = visit.member(&self.name);
                    }
                }
                Ok(used)
            }
            At::InString => {
                let wanted = self.wanted;
                let (used, closed) = self.text.feed(input, |piece| {
                    if wanted {
                        visit.text(piece, nested);
                    }
                })?;
                if closed {
                    self.scalar_end(visit);
                }
                Ok(used)
            }
            At::InNumber => {
                let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let used = input.iter().position(|byte| !part(byte)).unwrap_or(input.len());
                if self.wanted {
                    visit.text(&input[..used], nested);
                }
                if used < input.len() {
                    self.scalar_end(visit);
                }
                Ok(used)
            }
            At::InWord(rest) => {
                let used = rest.len().min(input.len());
                if input[..used] != rest[..used] {
                    return Err(NotJson);
                }
                self.at = At::InWord(&rest[used..]);
                if used == rest.len() {
                    self.value_end(visit); // no text
                }
                Ok(used)
            }
            _ => self.between(input[0], visit),
        }
    }

    /// A byte outside strings, numbers and words.
    fn between(&mut self, byte: u8, visit: &mut impl Visit) -> Result<usize, NotJson> {
        let in_object = self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1;
        let mut used = 1;
        match (self.at, byte) {
            (_, b' ' | b'\t' | b'\n' | b'\r') => {}
            (At::Start | At::Value | At::FirstValue, b'{') => self.open(true)?,
            (At::FirstName | At::Name, b'"') => {
                self.name.clear();
                self.at = At::InName;
            }
            (At::Colon, b':') => self.at = At::Value,
            (At::Value | At::FirstValue, _) => match byte {
                b'"' => self.at = At::InString,
                b'[' => self.open(false)?,
                b']' if self.at == At::FirstValue => self.close(visit),
                _ => {
                    used = 0; // this byte belongs to what begins here
                    self.at = match byte {
                        b'-' | b'0'..=b'9' => At::InNumber,
                        b't' => At::InWord(b"true"),
                        b'f' => At::InWord(b"false"),
                        b'n' => At::InWord(b"null"),
                        _ => return Err(NotJson),
                    };
                }
            },
            (At::After, b',') => self.at = if in_object { At::Name } else { At::Value },
            (At::FirstName, b'}') => self.close(visit),
            (At::After, b'}') if in_object => self.close(visit),
            (At::After, b']') if !in_object => self.close(visit),
            _ => return Err(NotJson),
        }
        Ok(used)
    }

    fn open(&mut self, object: bool) -> Result<(), NotJson> {
        if self.depth == MAX_DEPTH {
            return Err(NotJson);
        }
        let bit = 1 << self.depth;
        self.objects = if object { self.objects | bit } else { self.objects & !bit };
        self.depth += 1;
        self.at = if object { At::FirstName } else { At::FirstValue };
        Ok(())
    }

    fn close(&mut self, visit: &mut impl Visit) {
        self.depth -= 1;
        self.value_end(visit);
    }

    fn scalar_end(&mut self, visit: &mut impl Visit) {
        if self.wanted {
            visit.scalar(self.depth > 1);
        }
        self.value_end(visit);
    }

    fn value_end(&mut self, visit: &mut impl Visit) {
        self.at = if self.depth == 0 { At::End } else { At::After };
        if self.depth <= 1 && std::mem::take(&mut self.wanted) {
            visit.member_end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what it is told.
    #[derive(Default)]
    struct Notes(String);

    impl Visit for Notes {
        fn member(&mut self, name: &[u8]) -> bool {
            self.0 += &format!("{}:", String::from_utf8_lossy(name));
            name != b"skip"
        }
        fn text(&mut self, piece: &[u8], _: bool) {
            self.0 += &String::from_utf8_lossy(piece);
        }
        fn scalar(&mut self, nested: bool) {
            self.0 += if nested { "," } else { "." };
        }
        fn member_end(&mut self) {
            self.0 += ";";
        }
        fn is_done(&self) -> bool {
            self.0.ends_with("stop:")
        }
    }

    fn scan(pieces: &[&[u8]]) -> Result<(String, bool), NotJson> {
        let (mut scanner, mut notes) = (Scanner::new(), Notes::default());
        for piece in pieces {
            scanner.feed(piece, &mut notes)?;
        }
        Ok((notes.0, scanner.is_complete()))
    }

    #[test]
    fn tells_of_the_outermost_members_wherever_it_is_cut() {
        let all = br#" {"a" : "x\"y", "b":-1.5e3,"c":[1,"two",{"k":"v","l":[]},[[]],{}],"skip":{"s":["no"]},
            "\u0064":null , "e":true,"f":false}  and more"#;
        for cut in 0..=all.len() {
            let (one, two) = all.split_at(cut);
            let seen = scan(&[one, two]).expect("an object, and then what nobody reads");
            assert_eq!(seen, (r#"a:x"y.;b:-1.5e3.;c:1,two,v,;skip:d:;e:;f:;"#.to_owned(), true), "cut at {cut}");
        }
    }

    #[test]
    fn stops_when_it_was_told_enough() {
        assert_eq!(scan(&[br#"{"a":1,"stop":}}}"#]), Ok(("a:1.;stop:".to_owned(), false)));
    }

    #[test]
    fn what_is_no_object_is_told_apart() {
        let bad = [
            "[1]",
            "1",
            "\"a\"",
            "null",
            "hello",
            "\u{feff}{}",
            "{a:1}",
            "{'a':1}",
            "{\"a\" 1}",
            "{\"a\":tru }",
            "{\"a\":nil}",
            "{\"a\":1]",
            "{\"a\":[1}",
            "{\"a\":[1,,2]}",
            "{\"a\":1,,",
            "{,",
            "{\"a\":1 2",
            "{\"a\":}",
            "{\"a\":\"\n\"}",
        ];
        for bad in bad {
            assert_eq!(scan(&[bad.as_bytes()]), Err(NotJson), "{bad}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(scan(&[deep(63).as_bytes()]), Ok(("a:1,;".to_owned(), true)));
        assert_eq!(scan(&[deep(64).as_bytes()]), Err(NotJson));
        assert_eq!(scan(&["[".repeat(1 << 20).as_bytes()]), Err(NotJson));
    }
}
