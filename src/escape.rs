//! Text from outside, made fit for a terminal and for a log.
//!
//! Records, file names, settings, and what a broker answers hold any bytes. Printed as they are, an escape sequence
//! moves the cursor or changes the terminal's title, a line feed makes one line of a log look like two, and a
//! bidirectional override makes a line read as another one. What a program prints of them goes through [`escaped`],
//! [`escaped_bytes`] or [`escaped_path`].
//!
//! | what | becomes |
//! |---|---|
//! | control characters (C0 but the tab, DEL, C1) | `\n`, `\r`, `\u{1b}` |
//! | bidirectional embeddings, overrides and isolates; line and paragraph separators | `\u{202e}` |
//! | bytes that are not UTF-8 | `\xff` |
//! | all else, the backslash too | as it is |
//!
//! The outcome is for people. It cannot be read back, since a backslash stays one: programs read bytes, or JSON.

use std::fmt::{self, Write as _};
use std::path::Path;

/// What is shown of a name that another program or machine has chosen: a host, a user, a key, a topic.
pub const NAME_CHARS_MAX: usize = 256;
/// What is shown of a sentence that another program or machine has written: an error that a broker explains.
pub const SENTENCE_CHARS_MAX: usize = 1024;

/// Stands where text was cut.
const CUT: &str = "...";

/// Whether a terminal shows `character` as it is, and a log keeps the line whole: false of what this module escapes.
pub fn is_plain(character: char) -> bool {
    match character {
        '\t' => true,
        '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        other => !other.is_control(),
    }
}

/// `text` on one line, escaped as the [module](self) says. Nothing is built in memory.
///
/// ```
/// use edgelog::escape::escaped;
///
/// let host = "kafka\u{1b}[2J\n.example";
/// assert_eq!(escaped(host).to_string(), r"kafka\u{1b}[2J\n.example");
/// assert_eq!(escaped("a".repeat(60_000)).at_most(8).to_string(), "aaaaaaaa...");
/// ```
pub fn escaped<T: fmt::Display>(text: T) -> Escaped<T> {
    Escaped { text, chars_max: usize::MAX, keeps_lines: false }
}

/// As [`escaped`], of bytes that may be no text: a record's key or value.
pub fn escaped_bytes(bytes: &[u8]) -> Escaped<Text<'_>> {
    escaped(Text(bytes))
}

/// As [`escaped`], of the name of a file.
pub fn escaped_path(path: &Path) -> Escaped<Text<'_>> {
    escaped_bytes(path.as_os_str().as_encoded_bytes())
}

/// As [`escaped`], of a name that another program or machine has chosen: cut after [`NAME_CHARS_MAX`].
pub fn shown_name(name: &str) -> Escaped<&str> {
    escaped(name).at_most(NAME_CHARS_MAX)
}

/// As [`escaped`], of a sentence that another program or machine has written: cut after [`SENTENCE_CHARS_MAX`].
pub fn shown_sentence(sentence: &str) -> Escaped<&str> {
    escaped(sentence).at_most(SENTENCE_CHARS_MAX)
}

/// What [`escaped`] returns; [`Display`](fmt::Display) writes it. Widths given to `format!` are not looked at.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<T> {
    text: T,
    chars_max: usize,
    keeps_lines: bool,
}

impl<T> Escaped<T> {
    /// The same, cut after so many characters of what is shown. `...` stands where something was cut.
    #[must_use]
    pub fn at_most(self, chars_max: usize) -> Escaped<T> {
        Escaped { chars_max, ..self }
    }

    /// The same, for text of several lines: line feeds stay, and each line is cut by itself.
    #[must_use]
    pub fn with_lines(self) -> Escaped<T> {
        Escaped { keeps_lines: true, ..self }
    }
}

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Escaped { text, chars_max, keeps_lines } = self;
        write!(
            Filter { out: f, chars_max: *chars_max, left: *chars_max, keeps_lines: *keeps_lines, is_cut: false },
            "{text}"
        )
    }
}

/// Bytes as text, in which `\xff` stands for one that is not UTF-8.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Passes on what is written to it, escaped and cut.
struct Filter<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    chars_max: usize,
    /// Characters that the line may still have.
    left: usize,
    keeps_lines: bool,
    /// The rest of the line is passed over.
    is_cut: bool,
}

impl Filter<'_, '_> {
    /// Writes `shown`, or cuts where it has too many characters: an escaped character is there whole, or not at all.
    fn pass(&mut self, shown: &str, is_escape: bool) -> fmt::Result {
        if self.is_cut || self.chars_max == usize::MAX {
            return if self.is_cut { Ok(()) } else { self.out.write_str(shown) };
        }
        let end = shown.char_indices().nth(self.left).map(|(at, _)| at);
        let Some(end) = end else {
            self.left -= shown.chars().count();
            return self.out.write_str(shown);
        };
        self.is_cut = true;
        self.out.write_str(if is_escape { "" } else { &shown[..end] })?;
        self.out.write_str(CUT)
    }

    fn end_line(&mut self) -> fmt::Result {
        (self.left, self.is_cut) = (self.chars_max, false);
        self.out.write_char('\n')
    }
}

impl fmt::Write for Filter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let plain = rest.find(|c| !is_plain(c)).unwrap_or(rest.len());
            if plain > 0 {
                self.pass(&rest[..plain], false)?;
                rest = &rest[plain..];
                continue;
            }
            if self.keeps_lines && character == '\n' {
                self.end_line()?;
            } else if !self.is_cut {
                let mut shown = Shown::default();
                write!(shown, "{}", character.escape_default())?;
                self.pass(shown.as_str(), true)?;
            }
            rest = &rest[character.len_utf8()..];
        }
        Ok(())
    }
}

/// One escaped character: `\u{10ffff}` is the longest.
#[derive(Default)]
struct Shown {
    bytes: [u8; 10],
    len: usize,
}

impl Shown {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl fmt::Write for Shown {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_terminal_gets_no_commands() {
        let shown = escaped_bytes(b"ok \x1b[2J\xff\xc3\xa9 \x07\t\\ \x7f\xc2\x9b31m").to_string();
        assert_eq!(shown, "ok \\u{1b}[2J\\xff\u{e9} \\u{7}\t\\ \\u{7f}\\u{9b}31m");
        assert_eq!(escaped("a\nb\rc\u{0}").to_string(), r"a\nb\rc\u{0}");
        assert_eq!(escaped("\u{202e}abc\u{2066}\u{2029}").to_string(), r"\u{202e}abc\u{2066}\u{2029}");
        let name = Path::new(OsStr::from_bytes(b"dir/\xfe\x1b]0;title\x07.log"));
        assert_eq!(escaped_path(name).to_string(), r"dir/\xfe\u{1b}]0;title\u{7}.log");
    }

    #[test]
    fn what_is_shown_of_every_character_is_plain() {
        for character in ('\0'..='\u{3000}').chain(['\u{e000}', '\u{10ffff}']) {
            let shown = escaped(character).to_string();
            assert!(shown.chars().all(is_plain), "{character:?} is shown as {shown:?}");
            assert_eq!(shown == character.to_string(), is_plain(character), "{character:?}");
        }
    }

    #[test]
    fn text_is_cut_by_what_is_shown_of_it() {
        let cut = |text: &str, max| escaped(text).at_most(max).to_string();
        assert_eq!([cut("abc", 3), cut("abcd", 3), cut("", 0), cut("a", 0)], ["abc", "abc...", "", "..."]);
        // An escape has its own length, and is whole or not there.
        assert_eq!([cut("a\nb", 4), cut("a\nb", 3), cut("a\nb", 2)], [r"a\nb", r"a\n...", "a..."]);
        assert_eq!(cut("\u{e9}\u{e9}\u{e9}", 2), "\u{e9}\u{e9}...");
        // Also where it comes in several parts.
        assert_eq!(escaped(format_args!("{}{}{}", "ab", "cd", "ef")).at_most(3).to_string(), "abc...");
        assert_eq!(escaped_bytes(&[0xff; 9]).at_most(8).to_string(), r"\xff\xff...");
    }

    #[test]
    fn of_several_lines_each_is_cut_by_itself() {
        let shown = escaped("one\ntwo\x1b\n\nthree\n").at_most(4).with_lines().to_string();
        assert_eq!(shown, "one\ntwo...\n\nthre...\n");
    }

    /// Keeps how much was written at a time.
    struct Largest(usize);

    impl fmt::Write for Largest {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = self.0.max(text.len());
            Ok(())
        }
    }

    #[test]
    fn a_large_value_is_escaped_without_a_copy_of_it() {
        for byte in [1, 0xff] {
            let mut largest = Largest(0);
            write!(largest, "{}", escaped_bytes(&vec![byte; 1 << 20])).unwrap();
            assert!((1..64).contains(&largest.0), "{} at a time", largest.0);
        }
    }
}
