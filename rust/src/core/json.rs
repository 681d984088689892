//! Strict JSON (RFC 8259): reading tokens from bounded input.

use std::fmt;

/// Deepest nesting of arrays and objects that is skipped over.
pub const MAX_DEPTH: usize = 512;

/// Bytes that stand for themselves in a JSON string.
pub const PLAIN: [bool; 256] = {
    let mut table = [true; 256];
    let mut byte = 0;
    while byte < 32 {
        table[byte] = false;
        byte += 1;
    }
    table[b'"' as usize] = false;
    table[b'\\' as usize] = false;
    table
};

/// Returns how many bytes at the beginning stand for themselves in a JSON string.
#[inline]
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*word);
        // The high bit of each byte that is below 32, a quote or a backslash, and perhaps of some behind it.
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let control = word.wrapping_sub(ONES * 32) & !word;
        let found = (control | zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5C))) & (ONES << 7);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + bytes[at..].iter().take_while(|byte| PLAIN[**byte as usize]).count()
}

/// What is wrong with a piece of JSON, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub at: usize,
    pub expected: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not JSON: {} expected at byte {}", self.expected, self.at)
    }
}

type Scan<T> = Result<T, Malformed>;

/// The text of a JSON string.
#[derive(Debug, PartialEq, Eq)]
pub enum Text<'a> {
    /// Had no escapes.
    Plain(&'a str),
    Unescaped(String),
    /// WTF-8: had an escape of a lone surrogate, which has no UTF-8.
    Lone(Vec<u8>),
}

/// A JSON number as written.
#[derive(Clone, Copy, Debug)]
pub struct Number<'a> {
    pub text: &'a str,
    /// Neither fraction nor exponent.
    pub whole: bool,
}

/// The class of the next value, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Null,
    Bool,
    Number,
    Text,
    Array,
    Object,
}

/// Reads tokens from one JSON text, front to back.
pub struct Scanner<'a> {
    text: &'a str,
    pub at: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn fail<T>(&self, expected: &'static str) -> Scan<T> {
        Err(Malformed { at: self.at, expected })
    }

    /// Returns the next byte that is not white space, without taking it; 0 at the end.
    #[inline]
    pub fn peek(&mut self) -> u8 {
        let bytes = self.bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return *byte;
            }
            self.at += 1;
        }
        0
    }

    /// Takes `byte` if it is next.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, byte: u8, name: &'static str) -> Scan<()> {
        if self.take(byte) { Ok(()) } else { self.fail(name) }
    }

    /// Takes exactly `piece` if it comes next, without white space before it.
    #[inline]
    pub fn take_exact(&mut self, piece: &[u8]) -> bool {
        let found = self.bytes()[self.at..].starts_with(piece);
        self.at += if found { piece.len() } else { 0 };
        found
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Scan<()> {
        if self.peek() == 0 && self.at == self.text.len() { Ok(()) } else { self.fail("end of text") }
    }

    pub fn class(&mut self) -> Scan<Class> {
        Ok(match self.peek() {
            b'"' => Class::Text,
            b'{' => Class::Object,
            b'[' => Class::Array,
            b't' | b'f' => Class::Bool,
            b'n' => Class::Null,
            b'-' | b'0'..=b'9' => Class::Number,
            _ => return self.fail("a value"),
        })
    }

    /// Takes `null`, `true` or `false`: None, Some(true), Some(false).
    pub fn literal(&mut self) -> Scan<Option<bool>> {
        self.peek();
        for (word, value) in [(&b"null"[..], None), (b"true", Some(true)), (b"false", Some(false))] {
            if self.take_exact(word) {
                return Ok(value);
            }
        }
        self.fail("null, true or false")
    }

    pub fn number(&mut self) -> Scan<Number<'a>> {
        self.peek();
        let start = self.at;
        let bytes = self.bytes();
        self.at += usize::from(bytes.get(self.at) == Some(&b'-'));
        match bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.fail("a digit"),
        }
        let mut whole = true;
        if bytes.get(self.at) == Some(&b'.') {
            whole = false;
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = bytes.get(self.at) {
            whole = false;
            self.at += 1;
            self.at += usize::from(matches!(bytes.get(self.at), Some(b'+' | b'-')));
            self.some_digits()?;
        }
        Ok(Number { text: &self.text[start..self.at], whole })
    }

    fn digits(&mut self) {
        while self.bytes().get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Scan<()> {
        let start = self.at;
        self.digits();
        if self.at == start { self.fail("a digit") } else { Ok(()) }
    }

    /// Takes a string without escapes that comes next, without white space before it; None, with nothing taken, if
    /// something else does.
    #[inline]
    pub fn plain(&mut self) -> Option<&'a str> {
        let start = self.at + 1;
        let rest = self.bytes().get(start..)?;
        let end = start + plain_length(rest);
        if self.bytes()[self.at] != b'"' || self.bytes().get(end) != Some(&b'"') {
            return None;
        }
        self.at = end + 1;
        Some(&self.text[start..end])
    }

    /// Takes an integer of at most 18 digits that comes next; None, with nothing taken, if something else does.
    #[inline]
    pub fn small_int(&mut self) -> Option<i64> {
        let rest = &self.bytes()[self.at..];
        let sign = usize::from(rest.first() == Some(&b'-'));
        let digits = rest[sign..].iter().take_while(|byte| byte.is_ascii_digit()).take(19).count();
        let padded = digits > 1 && rest[sign] == b'0';
        if digits == 0 || digits > 18 || padded || matches!(rest.get(sign + digits), Some(b'.' | b'e' | b'E')) {
            return None;
        }
        let value = rest[sign..sign + digits].iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        self.at += sign + digits;
        Some(if sign == 1 { -value } else { value })
    }

    /// Takes a string.
    #[inline]
    pub fn string(&mut self) -> Scan<Text<'a>> {
        self.peek();
        if let Some(text) = self.plain() {
            return Ok(Text::Plain(text));
        }
        self.expect(b'"', "a string")?;
        let start = self.at;
        self.at += plain_length(&self.bytes()[start..]);
        self.escaped(start)
    }

    fn escaped(&mut self, start: usize) -> Scan<Text<'a>> {
        let bytes = self.bytes();
        let mut out = bytes[start..self.at].to_vec();
        let mut lone = false;
        loop {
            let Some(byte) = bytes.get(self.at) else { return self.fail("a closing quote") };
            match byte {
                b'"' => break,
                b'\\' => {
                    self.at += 1;
                    lone |= self.escape(&mut out)?;
                }
                byte if PLAIN[*byte as usize] => {
                    out.push(*byte);
                    self.at += 1;
                }
                _ => return self.fail("an escape instead of a control character"),
            }
        }
        self.at += 1;
        if lone {
            return Ok(Text::Lone(out));
        }
        String::from_utf8(out).map(Text::Unescaped).or_else(|_| self.fail("UTF-8"))
    }

    /// Takes what follows a backslash; true if it was a lone surrogate.
    fn escape(&mut self, out: &mut Vec<u8>) -> Scan<bool> {
        let byte = self.bytes().get(self.at).copied().unwrap_or(0);
        self.at += 1;
        out.push(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.unit(out),
            _ => {
                self.at -= 1;
                return self.fail("an escape");
            }
        });
        Ok(false)
    }

    fn unit(&mut self, out: &mut Vec<u8>) -> Scan<bool> {
        let first = self.hex()?;
        let mut code = first;
        if (0xD800..0xDC00).contains(&first) && self.bytes()[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let second = self.hex()?;
            if (0xDC00..0xE000).contains(&second) {
                code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            } else {
                self.at = back;
            }
        }
        if let Some(letter) = char::from_u32(code) {
            out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(false);
        }
        out.extend_from_slice(&[0xE0 | (code >> 12) as u8, 0x80 | (code >> 6 & 63) as u8, 0x80 | (code & 63) as u8]);
        Ok(true)
    }

    fn hex(&mut self) -> Scan<u32> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.bytes().get(self.at).and_then(|byte| char::from(*byte).to_digit(16));
            let Some(digit) = digit else { return self.fail("a hexadecimal digit") };
            value = value << 4 | digit;
            self.at += 1;
        }
        Ok(value)
    }

    /// Takes a whole value of any kind and returns its text.
    pub fn skip(&mut self) -> Scan<&'a str> {
        self.peek();
        let start = self.at;
        self.skip_value(0)?;
        Ok(&self.text[start..self.at])
    }

    fn skip_value(&mut self, depth: usize) -> Scan<()> {
        if depth > MAX_DEPTH {
            return self.fail("less nesting");
        }
        match self.class()? {
            Class::Text => self.string().map(drop),
            Class::Number => self.number().map(drop),
            Class::Null | Class::Bool => self.literal().map(drop),
            Class::Array => {
                self.at += 1;
                let mut more = !self.take(b']');
                while more {
                    self.skip_value(depth + 1)?;
                    more = self.more(b']', "comma or ]")?;
                }
                Ok(())
            }
            Class::Object => {
                self.at += 1;
                let mut more = !self.take(b'}');
                while more {
                    self.string()?;
                    self.expect(b':', "colon")?;
                    self.skip_value(depth + 1)?;
                    more = self.more(b'}', "comma or }")?;
                }
                Ok(())
            }
        }
    }

    /// Takes a comma (true) or the closing bracket (false).
    #[inline]
    pub fn more(&mut self, close: u8, expected: &'static str) -> Scan<bool> {
        let byte = self.peek();
        if byte == b',' || byte == close {
            self.at += 1;
            return Ok(byte == b',');
        }
        self.fail(expected)
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
