//! What a command reads records from: a file or standard input, read ahead in a thread of its own.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use edgelog::escape::escaped_path;

use crate::failure::Failure;

/// A file, or standard input.
pub(crate) struct Input {
    reader: Box<dyn Read + Send>,
    pub(crate) name: String,
    /// Bytes, where that is known.
    pub(crate) len: Option<u64>,
    pub(crate) is_terminal: bool,
}

impl Input {
    /// Opens `path`; `-` and `None` are standard input.
    pub(crate) fn open(path: Option<&Path>) -> Result<Input, Failure> {
        match path.filter(|path| *path != Path::new("-")) {
            None => {
                let is_terminal = io::stdin().is_terminal();
                Ok(Input { reader: Box::new(io::stdin()), name: "standard input".to_owned(), len: None, is_terminal })
            }
            Some(path) => {
                let name = escaped_path(path).to_string();
                let failed = |error: io::Error| Failure::from(error).context(format!("read {name}"));
                let file = File::open(path).map_err(failed)?;
                let meta = file.metadata().map_err(failed)?;
                if meta.is_dir() {
                    return Err(Failure::new(format!("read {name}: it is a directory")));
                }
                let len = meta.is_file().then_some(meta.len());
                Ok(Input { reader: Box::new(file), name, len, is_terminal: false })
            }
        }
    }

    /// Reads in a thread of its own, so that Ctrl-C is heard while the input is silent. The thread is never joined: it
    /// ends with its input, with the channel, or with the process.
    pub(crate) fn read_ahead(self) -> Receiver<io::Result<Vec<u8>>> {
        let mut reader = self.reader;
        let (chunks, received) = sync_channel(CHUNKS_AHEAD);
        let mut read = move |chunks: &SyncSender<io::Result<Vec<u8>>>| {
            loop {
                let mut chunk = vec![0; CHUNK_BYTES];
                let answer = match reader.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(read) => {
                        chunk.truncate(read);
                        Ok(chunk)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let is_last = answer.is_err();
                if chunks.send(answer).is_err() || is_last {
                    return;
                }
            }
        };
        std::thread::spawn(move || read(&chunks));
        received
    }
}

/// Bytes read at a time. At most `CHUNKS_AHEAD` of them wait to be appended.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_AHEAD: usize = 4;

/// Cuts an input into records at a delimiter, wherever the input's chunks end.
pub(crate) struct Splitter {
    /// `None`: the whole input is one record.
    delimiter: Option<Vec<u8>>,
    /// The beginning of a record whose end has not been read yet.
    begun: Vec<u8>,
}

impl Splitter {
    pub(crate) fn new(delimiter: Option<&[u8]>) -> Splitter {
        Splitter { delimiter: delimiter.map(<[u8]>::to_vec), begun: Vec::new() }
    }

    /// Hands out every record that ends in `chunk`.
    pub(crate) fn take<E>(&mut self, chunk: &[u8], mut record: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let Some(delimiter) = &self.delimiter else {
            self.begun.extend_from_slice(chunk);
            return Ok(());
        };
        let mut rest = chunk;
        if !self.begun.is_empty() {
            // A delimiter may have begun in the chunk before: its first byte is at most so far back.
            let from = self.begun.len().saturating_sub(delimiter.len() - 1);
            let before = self.begun.len();
            let look = chunk.len().min(delimiter.len() - 1);
            self.begun.extend_from_slice(&chunk[..look]);
            if let Some(at) = find(&self.begun[from..], delimiter) {
                let end = from + at;
                self.begun.truncate(end);
                record(&std::mem::take(&mut self.begun))?;
                rest = &chunk[end + delimiter.len() - before..];
            } else {
                self.begun.truncate(before);
                let Some(end) = find(chunk, delimiter) else {
                    self.begun.extend_from_slice(chunk);
                    return Ok(());
                };
                self.begun.extend_from_slice(&chunk[..end]);
                record(&self.begun)?;
                self.begun.clear();
                rest = &chunk[end + delimiter.len()..];
            }
        }
        while let Some(end) = find(rest, delimiter) {
            record(&rest[..end])?;
            rest = &rest[end + delimiter.len()..];
        }
        self.begun.extend_from_slice(rest);
        Ok(())
    }

    /// What was read of a record whose end was not.
    pub(crate) fn begun(&self) -> &[u8] {
        &self.begun
    }
}

fn find(bytes: &[u8], delimiter: &[u8]) -> Option<usize> {
    match delimiter {
        [byte] => bytes.iter().position(|other| other == byte),
        delimiter => bytes.windows(delimiter.len()).position(|window| window == delimiter),
    }
}

/// Reads the escapes of a delimiter or a format, as kcat does: `\n`, `\r`, `\t`, `\0`, `\\` and `\x00`.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        let (byte, taken) = match rest {
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b't', ..] => (b'\t', 1),
            [b'0', ..] => (0, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', digits @ ..] => {
                let two = digits.get(..2).filter(|two| two.iter().all(u8::is_ascii_hexdigit)).and_then(hex);
                (two.ok_or(r"\x stands before two hexadecimal digits, such as \x1e")?, 3)
            }
            _ => return Err(r"a backslash stands before n, r, t, 0, x or another backslash: \n, \x1e, \\".to_owned()),
        };
        bytes.push(byte);
        rest = &rest[taken..];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(delimiter: Option<&[u8]>, chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut splitter, mut records) = (Splitter::new(delimiter), Vec::new());
        for chunk in chunks {
            let keep = |record: &[u8]| {
                records.push(record.to_vec());
                Ok::<(), ()>(())
            };
            splitter.take(chunk, keep).unwrap();
        }
        (records, splitter.begun().to_vec())
    }

    #[test]
    fn where_an_input_is_cut_changes_no_record() {
        for (text, delimiter) in
            [("a\n\nbc\nd", "\n"), ("a--b-c----d-", "--"), ("aabaab aab", "aab"), ("\r\n\r\r\nx", "\r\n")]
        {
            let mut expected: Vec<Vec<u8>> = text.split(delimiter).map(|part| part.as_bytes().to_vec()).collect();
            let rest = expected.pop().unwrap();
            let (bytes, delimiter) = (text.as_bytes(), delimiter.as_bytes());
            for first in 0..bytes.len() {
                for second in first..bytes.len() {
                    let chunks = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(
                        split(Some(delimiter), &chunks),
                        (expected.clone(), rest.clone()),
                        "{text:?} {chunks:?}"
                    );
                }
            }
            let ones: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(split(Some(delimiter), &ones), (expected, rest), "{text:?}");
        }
        assert_eq!(split(None, &[b"a\n", b"b"]), (vec![], b"a\nb".to_vec()));
    }

    #[test]
    fn escapes_read_as_kcats() {
        assert_eq!(unescape(r"a\n\t\r\0\\\x1eb").unwrap(), b"a\n\t\r\0\\\x1eb");
        for wrong in [r"\q", r"\x1", r"\x+1", "\\"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
    }
}
