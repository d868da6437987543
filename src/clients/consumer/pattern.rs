//! Patterns of topic names: regular expressions without captures, held against a whole name, as in Kafka.
//!
//! Characters stand for themselves, `.` for any one; `[a-z_]` and `[^0-9]` for one of a set; `\` before a character
//! makes it stand for itself, and `\d` and `\w` are sets; `*`, `+` and `?` repeat, `|` and parentheses choose. A `^` at
//! the beginning and a `$` at the end change nothing. It takes no longer than the pattern's length times the name's.

use crate::clients::group::{ConsumerError, Result};

const PATTERN_BYTES_MAX: usize = 1000;
const NESTED_MAX: usize = 50;

/// A pattern that was understood.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    program: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    /// One byte of a set.
    Set(Box<[bool; 128]>),
    /// Either of two places.
    Either(usize, usize),
    Jump(usize),
    End,
}

struct Parser<'a> {
    rest: &'a [u8],
    program: Vec<Step>,
    depth: usize,
}

impl Pattern {
    pub(super) fn parse(pattern: &str) -> Result<Pattern> {
        let refuse = |reason| ConsumerError::InvalidPattern { pattern: pattern.to_owned(), reason };
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(refuse("it is longer than 1000 bytes"));
        }
        let inner = pattern.strip_prefix('^').unwrap_or(pattern);
        let is_end = inner.ends_with('$') && !inner.ends_with("\\$");
        let inner = if is_end { &inner[..inner.len() - 1] } else { inner };
        let mut parser = Parser { rest: inner.as_bytes(), program: Vec::new(), depth: 0 };
        parser.choice().map_err(refuse)?;
        if !parser.rest.is_empty() {
            return Err(refuse("a closing parenthesis has no opening one"));
        }
        parser.program.push(Step::End);
        Ok(Pattern { program: parser.program })
    }

    /// Whether the whole name is one of the pattern's.
    pub(super) fn matches(&self, name: &str) -> bool {
        let mut now = vec![false; self.program.len()];
        self.enter(0, &mut now);
        for byte in name.bytes() {
            let mut next = vec![false; self.program.len()];
            for (at, step) in self.program.iter().enumerate().filter(|(at, _)| now[*at]) {
                if let Step::Set(set) = step {
                    if set.get(usize::from(byte)).is_some_and(|is_in| *is_in) {
                        self.enter(at + 1, &mut next);
                    }
                }
            }
            now = next;
        }
        now[self.program.len() - 1]
    }

    /// Marks the place, and those that are reached from it without a byte.
    fn enter(&self, at: usize, places: &mut [bool]) {
        let mut todo = vec![at];
        while let Some(at) = todo.pop() {
            if std::mem::replace(&mut places[at], true) {
                continue;
            }
            match self.program.get(at) {
                Some(Step::Either(a, b)) => todo.extend([*a, *b]),
                Some(Step::Jump(to)) => todo.push(*to),
                Some(Step::Set(_) | Step::End) | None => {}
            }
        }
    }
}

type Parsed<T> = std::result::Result<T, &'static str>;

impl Parser<'_> {
    fn choice(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > NESTED_MAX {
            return Err("it has more than 50 parentheses in each other");
        }
        let start = self.program.len();
        self.sequence()?;
        if self.rest.first() == Some(&b'|') {
            self.rest = &self.rest[1..];
            self.insert(start);
            let jump = self.program.len();
            self.program.push(Step::Jump(0));
            self.program[start] = Step::Either(start + 1, jump + 1);
            self.choice()?;
            self.program[jump] = Step::Jump(self.program.len());
        }
        self.depth -= 1;
        Ok(())
    }

    fn sequence(&mut self) -> Parsed<()> {
        while let Some(&byte) = self.rest.first() {
            if matches!(byte, b'|' | b')') {
                break;
            }
            let start = self.program.len();
            self.one()?;
            while let Some(&repeat @ (b'*' | b'+' | b'?')) = self.rest.first() {
                self.rest = &self.rest[1..];
                if repeat == b'+' {
                    let behind = self.program.len() + 1;
                    self.program.push(Step::Either(start, behind));
                    continue;
                }
                self.insert(start);
                if repeat == b'*' {
                    self.program.push(Step::Jump(start));
                }
                self.program[start] = Step::Either(start + 1, self.program.len());
            }
        }
        Ok(())
    }

    /// Makes room for one step at `at`: what leads behind it moves.
    fn insert(&mut self, at: usize) {
        for step in &mut self.program[at..] {
            match step {
                Step::Either(a, b) => {
                    *a += usize::from(*a >= at);
                    *b += usize::from(*b >= at);
                }
                Step::Jump(to) => *to += usize::from(*to >= at),
                Step::Set(_) | Step::End => {}
            }
        }
        self.program.insert(at, Step::End);
    }

    fn one(&mut self) -> Parsed<()> {
        let byte = self.take().expect("the caller looked");
        let set = match byte {
            b'(' => {
                if let Some(rest) = self.rest.strip_prefix(b"?:") {
                    self.rest = rest;
                }
                self.choice()?;
                return if self.take() == Some(b')') { Ok(()) } else { Err("a parenthesis is not closed") };
            }
            b'[' => self.set()?,
            b'.' => [true; 128],
            b'\\' => self.escaped()?,
            b'*' | b'+' | b'?' => return Err("a repetition has nothing to repeat"),
            b'{' | b'}' | b'^' | b'$' => return Err("'{', '}', '^' and '$' are not supported inside of a pattern"),
            byte => single(byte)?,
        };
        self.program.push(Step::Set(Box::new(set)));
        Ok(())
    }

    fn take(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn escaped(&mut self) -> Parsed<[bool; 128]> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match self.take().ok_or("a backslash has nothing behind it")? {
            b'd' => Ok(set_of(|byte| byte.is_ascii_digit())),
            b'w' => Ok(set_of(is_word)),
            byte if byte.is_ascii_alphanumeric() => Err("of letters behind a backslash only \\d and \\w are known"),
            byte => single(byte),
        }
    }

    fn set(&mut self) -> Parsed<[bool; 128]> {
        const OPEN: &str = "a set of characters is not closed";
        let negated = self.rest.first() == Some(&b'^');
        if negated {
            self.take();
        }
        let mut set = [false; 128];
        let mut is_first = true;
        loop {
            let from = match self.take().ok_or(OPEN)? {
                b']' if !is_first => break,
                b'\\' => {
                    let more = self.escaped()?;
                    set.iter_mut().zip(more).for_each(|(is_in, more)| *is_in |= more);
                    is_first = false;
                    continue;
                }
                byte => byte,
            };
            is_first = false;
            let mut to = from;
            if let [b'-', end, ..] = self.rest {
                if *end != b']' {
                    to = *end;
                    self.rest = &self.rest[2..];
                }
            }
            if !from.is_ascii() || !to.is_ascii() || from > to {
                return Err("a range of characters goes from a lower to a higher one, in ASCII");
            }
            set[usize::from(from)..=usize::from(to)].fill(true);
        }
        if negated {
            for is_in in &mut set {
                *is_in = !*is_in;
            }
        }
        Ok(set)
    }
}

fn single(byte: u8) -> Parsed<[bool; 128]> {
    let mut set = [false; 128];
    *set.get_mut(usize::from(byte)).ok_or("names of topics are ASCII")? = true;
    Ok(set)
}

fn set_of(is_in: impl Fn(u8) -> bool) -> [bool; 128] {
    std::array::from_fn(|byte| is_in(byte as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_held_against_whole_names() {
        for (pattern, name, expected) in [
            ("^cpu", "cpu", true),
            ("^cpu", "cpu2", false),
            ("^cpu$", "cpu", true),
            ("^cpu.*", "cpu2", true),
            ("^cpu\\..*", "cpu2", false),
            ("^cpu\\..*", "cpu.load", true),
            ("^(cpu|disk)-[0-9]+", "disk-17", true),
            ("^(cpu|disk)-[0-9]+", "disk-", false),
            ("^a|b", "b", true),
            ("^a|bc|d", "bc", true),
            ("^[^_].*", "_x", false),
            ("^[^_].*", "x_", true),
            ("^a?b+", "bbb", true),
            ("^a?b+", "aab", false),
            ("^(ab)*c", "ababc", true),
            ("^(a|b*)*x", "abbaax", true),
            ("^\\w+\\d", "room_7", true),
            ("^(?:x)+", "xx", true),
            ("^[a\\-z]", "-", true),
            ("^", "", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
        // No time without bounds.
        assert!(!Pattern::parse("^(a*)*(a*)*(a*)*b").unwrap().matches(&"a".repeat(249)));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_reason() {
        for pattern in ["^(", "^)", "^[a", "^*", "^a{2}", "^\\", "^[z-a]", "^\\s", "^\u{e9}"] {
            assert!(matches!(Pattern::parse(pattern), Err(ConsumerError::InvalidPattern { .. })), "{pattern}");
        }
        assert!(Pattern::parse(&"(".repeat(60)).is_err() && Pattern::parse(&"a".repeat(1001)).is_err());
    }
}
