//! JSON text to located nodes.
//!
//! A reader of our own, because JSON isn't quite a part of YAML (tabs, surrogate pairs) and the usual JSON crates don't
//! tell where a value stood. What follows the first value is not looked at, as with Jackson.

use std::collections::HashSet;

use crate::{ConfigError, Key, MAX_DEPTH, MAX_NODES, Node, Pos, Scalar, Value};

/// Reads the first value of a JSON text.
pub(crate) fn read(text: &str) -> Result<Node, ConfigError> {
    let mut reader = Reader { chars: text.chars(), at: Pos::START, nodes: 0 };
    reader.blanks();
    reader.value(0)
}

struct Reader<'a> {
    chars: std::str::Chars<'a>,
    at: Pos,
    nodes: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.clone().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.at = Pos { line: self.at.line.saturating_add(1), column: 1 };
        } else {
            self.at.column = self.at.column.saturating_add(1);
        }
        Some(c)
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|c| matches!(c, ' ' | '\t' | '\r' | '\n')) {
            self.next();
        }
    }

    fn wrong<T>(&self, wanted: &str) -> Result<T, ConfigError> {
        let found = match self.peek() {
            Some(c) => format!("'{c}'"),
            None => "the end of the file".to_owned(),
        };
        Err(ConfigError::new(self.at, format!("not valid JSON: expected {wanted}, found {found}")))
    }

    fn value(&mut self, depth: usize) -> Result<Node, ConfigError> {
        let at = self.at;
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(ConfigError::new(at, format!("the file holds more than {MAX_NODES} values")));
        }
        let value = match self.peek() {
            Some('{') => self.map(depth)?,
            Some('[') => self.seq(depth)?,
            Some('"') => Value::Scalar(Scalar { text: self.string()?, quoted: true }),
            Some(c) if c == '-' || c.is_ascii_alphanumeric() => self.word()?,
            _ => return self.wrong("a value"),
        };
        Ok(Node { at, value })
    }

    fn deeper(&self, depth: usize) -> Result<usize, ConfigError> {
        if depth >= MAX_DEPTH {
            return Err(ConfigError::new(self.at, format!("nested more than {MAX_DEPTH} deep")));
        }
        Ok(depth + 1)
    }

    fn map(&mut self, depth: usize) -> Result<Value, ConfigError> {
        let depth = self.deeper(depth)?;
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen = HashSet::new();
        self.next();
        self.blanks();
        if self.peek() == Some('}') {
            self.next();
            return Ok(Value::Map(entries));
        }
        loop {
            let at = self.at;
            if self.peek() != Some('"') {
                return self.wrong("a key in double quotes");
            }
            let text = self.string()?;
            if !seen.insert(text.clone()) {
                return Err(ConfigError::new(at, format!("duplicate key `{text}`")));
            }
            self.blanks();
            if self.peek() != Some(':') {
                return self.wrong("':'");
            }
            self.next();
            self.blanks();
            let node = self.value(depth)?;
            entries.push((Key { text, at }, node));
            if self.end_of_item('}')? {
                return Ok(Value::Map(entries));
            }
        }
    }

    fn seq(&mut self, depth: usize) -> Result<Value, ConfigError> {
        let depth = self.deeper(depth)?;
        let mut items = Vec::new();
        self.next();
        self.blanks();
        if self.peek() == Some(']') {
            self.next();
            return Ok(Value::Seq(items));
        }
        loop {
            items.push(self.value(depth)?);
            if self.end_of_item(']')? {
                return Ok(Value::Seq(items));
            }
        }
    }

    /// Takes a comma or the closing bracket; true for the bracket.
    fn end_of_item(&mut self, close: char) -> Result<bool, ConfigError> {
        self.blanks();
        match self.peek() {
            Some(',') => {
                self.next();
                self.blanks();
                Ok(false)
            }
            Some(c) if c == close => {
                self.next();
                Ok(true)
            }
            _ => self.wrong(&format!("',' or '{close}'")),
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<Value, ConfigError> {
        let at = self.at;
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.')) {
            text.push(c);
            self.next();
        }
        match text.as_str() {
            "null" => return Ok(Value::Null),
            "true" | "false" => {}
            number if is_number(number) => {}
            _ => return Err(ConfigError::new(at, format!("not valid JSON: expected a value, found \"{text}\""))),
        }
        Ok(Value::Scalar(Scalar { text, quoted: false }))
    }

    fn string(&mut self) -> Result<String, ConfigError> {
        let mut text = String::new();
        self.next();
        loop {
            match self.peek() {
                Some('"') => {
                    self.next();
                    return Ok(text);
                }
                Some('\\') => {
                    self.next();
                    text.push(self.escape()?);
                }
                Some(c) if c >= ' ' => {
                    text.push(c);
                    self.next();
                }
                _ => return self.wrong("a string's closing quote"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, ConfigError> {
        let plain = match self.peek() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                self.next();
                return self.unicode();
            }
            _ => return self.wrong("an escape"),
        };
        self.next();
        Ok(plain)
    }

    fn unicode(&mut self) -> Result<char, ConfigError> {
        let at = self.at;
        let mut units = vec![self.hex4()?];
        if (0xd800..0xdc00).contains(&units[0]) && self.chars.as_str().starts_with("\\u") {
            self.next();
            self.next();
            units.push(self.hex4()?);
        }
        let text = String::from_utf16(&units).ok().filter(|text| text.chars().count() == 1);
        match text.and_then(|text| text.chars().next()) {
            Some(c) => Ok(c),
            None => Err(ConfigError::new(at, "not valid JSON: half of a surrogate pair")),
        }
    }

    fn hex4(&mut self) -> Result<u16, ConfigError> {
        let mut unit = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) else { return self.wrong("four hex digits") };
            unit = unit << 4 | digit as u16;
            self.next();
        }
        Ok(unit)
    }
}

/// JSON's grammar of numbers.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}
