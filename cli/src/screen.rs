//! Standard output where it carries bytes of records: a pipe or a file gets them as they are, a terminal escaped.
//!
//! What a script reads keeps its contract byte for byte (`dump`, `tail --raw`, `export`). On a terminal the same bytes
//! could move the cursor, change the title or hide a line. There, [`edgelog::escape`] says what stands for them; line
//! feeds stay, since the text has lines. JSON stays JSON: an escape in a string means the same character.

use std::io::{self, IsTerminal, Write};

use edgelog::escape::{escaped, escaped_bytes, is_plain};

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Not to a terminal: nothing is changed.
    AsIs,
    Text,
    Json,
}

/// A UTF-8 sequence has at most so many bytes.
const SEQUENCE_MAX: usize = 4;

/// Passes on what is written, escaped where `out` is a terminal.
pub(crate) struct Screen<W: Write> {
    out: W,
    form: Form,
    /// The beginning of a UTF-8 sequence whose end has not been written yet.
    begun: Vec<u8>,
}

impl<W: Write + IsTerminal> Screen<W> {
    /// For lines of text.
    pub(crate) fn text(out: W) -> Screen<W> {
        let form = if out.is_terminal() { Form::Text } else { Form::AsIs };
        Screen { out, form, begun: Vec::new() }
    }

    /// For lines of JSON.
    pub(crate) fn json(out: W) -> Screen<W> {
        let form = if out.is_terminal() { Form::Json } else { Form::AsIs };
        Screen { out, form, begun: Vec::new() }
    }

    /// For what is escaped already, and has colours.
    pub(crate) fn as_is(out: W) -> Screen<W> {
        Screen { out, form: Form::AsIs, begun: Vec::new() }
    }
}

impl<W: Write> Screen<W> {
    fn show(&mut self, text: &str) -> io::Result<()> {
        if self.form == Form::Text {
            return write!(self.out, "{}", escaped(text).with_lines());
        }
        for run in text.split_inclusive(|c| !is_plain(c) && c != '\n') {
            let last = run.chars().next_back().filter(|&c| !is_plain(c) && c != '\n');
            let plain = &run[..run.len() - last.map_or(0, char::len_utf8)];
            self.out.write_all(plain.as_bytes())?;
            // All of these are in the plane that one unit reaches.
            last.map_or(Ok(()), |c| write!(self.out, "\\u{:04x}", u32::from(c)))?;
        }
        Ok(())
    }

    /// Shows what is whole of `bytes`, and keeps the beginning of a sequence at the end.
    fn show_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => return self.show(text),
                Err(error) => {
                    let (valid, behind) = rest.split_at(error.valid_up_to());
                    self.show(std::str::from_utf8(valid).unwrap_or_default())?;
                    let Some(len) = error.error_len() else {
                        self.begun = behind.to_vec();
                        return Ok(());
                    };
                    write!(self.out, "{}", escaped_bytes(&behind[..len]))?;
                    rest = &behind[len..];
                }
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Screen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.form == Form::AsIs {
            return self.out.write(bytes);
        }
        let mut rest = bytes;
        // The few bytes that can end the sequence that was begun.
        while !self.begun.is_empty() && !rest.is_empty() {
            let mut begun = std::mem::take(&mut self.begun);
            begun.push(rest[0]);
            rest = &rest[1..];
            self.show_bytes(&begun)?;
            debug_assert!(self.begun.len() < SEQUENCE_MAX, "a sequence has an end");
        }
        self.show_bytes(rest)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What never got its end is shown for what it is.
impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        let _ = write!(self.out, "{}", escaped_bytes(&std::mem::take(&mut self.begun)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(form: Form, parts: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut screen = Screen { out: &mut out, form, begun: Vec::new() };
        for part in parts {
            screen.write_all(part).unwrap();
        }
        drop(screen);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_gets_text_and_no_commands() {
        assert_eq!(shown(Form::Text, &[b"a\x1b[2J\n\xffb\r\n"]), "a\\u{1b}[2J\n\\xffb\\r\n");
        assert_eq!(shown(Form::Text, &["\u{e9} \u{9b}m \u{202e}".as_bytes()]), "\u{e9} \\u{9b}m \\u{202e}");
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({"payload": "a\u{7f}\u{9b}2J\u{202e}\u{e9}\n"});
        let text = shown(Form::Json, &[serde_json::to_string(&value).unwrap().as_bytes(), b"\n"]);
        assert_eq!(text, "{\"payload\":\"a\\u007f\\u009b2J\\u202e\u{e9}\\n\"}\n");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    /// A sequence may come in parts, and so may a command in it.
    #[test]
    fn where_the_text_is_cut_between_writes_changes_nothing() {
        let bytes =
            "a\u{e9}\u{20ac}\u{1f600}\u{9b}2J\u{202e}".bytes().chain(*b"\xff\xe2\x82x\xf0\x9f").collect::<Vec<u8>>();
        let whole = shown(Form::Text, &[&bytes]);
        assert_eq!(whole, "a\u{e9}\u{20ac}\u{1f600}\\u{9b}2J\\u{202e}\\xff\\xe2\\x82x\\xf0\\x9f");
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(shown(Form::Text, &parts), whole, "{first} {second}");
            }
        }
        assert_eq!(shown(Form::Text, &bytes.chunks(1).collect::<Vec<_>>()), whole);
    }
}
