//! The name of a group: Kafka's rules, and the directory that it has.
//!
//! Kafka takes any name that is not empty. As the name of a directory each byte outside of `a-z A-Z 0-9 . _ -` is `%`
//! with two hexadecimal digits, and so is a dot at the beginning: `a/b` is `a%2Fb`, `..` is `%2E.`.

use std::fmt::Write as _;

use super::error::{ConsumerError, Result};

/// The name of a group's directory is at most this long: with what is put behind it, no file system takes more.
pub const GROUP_DIR_BYTES_MAX: usize = 247;

/// The directory of the group `name`.
///
/// # Errors
/// [`ConsumerError::InvalidGroup`] where it is empty, or its directory's name would be longer than
/// [`GROUP_DIR_BYTES_MAX`].
pub(super) fn dir_of(name: &str) -> Result<String> {
    let mut dir = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        let is_plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (byte == b'.' && at > 0);
        if is_plain {
            dir.push(byte.into());
        } else {
            let _ = write!(dir, "%{byte:02X}");
        }
    }
    let reason = if name.is_empty() {
        "it is empty".to_owned()
    } else if dir.len() > GROUP_DIR_BYTES_MAX {
        format!(
            "its directory's name would have {} bytes, and {GROUP_DIR_BYTES_MAX} are allowed (each byte but letters, \
             digits, '.', '_' and '-' takes three)",
            dir.len()
        )
    } else {
        return Ok(dir);
    };
    Err(ConsumerError::InvalidGroup { name: name.to_owned(), reason })
}

/// The group whose directory has this name; `None` where it is no group's.
pub(super) fn name_of(dir: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(dir.len());
    let mut rest = dir.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        rest = behind;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
    }
    let name = String::from_utf8(bytes).ok()?;
    // One name, one directory.
    (dir_of(&name).ok()? == dir).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_one_safe_directory_and_comes_back_from_it() {
        for (name, dir) in [
            ("billing", "billing"),
            ("a.b_c-1", "a.b_c-1"),
            ("..", "%2E."),
            (".hidden", "%2Ehidden"),
            ("a/b", "a%2Fb"),
            ("50%", "50%25"),
            ("caf\u{e9} \n", "caf%C3%A9%20%0A"),
        ] {
            assert_eq!(dir_of(name).unwrap(), dir);
            assert_eq!(name_of(dir).as_deref(), Some(name));
        }
        for dir in ["", "%", "%2", "%zz", "%2f", "a%61", "a b", ".a", "x%delete", "%FF"] {
            assert_eq!(name_of(dir), None, "{dir}");
        }
    }

    #[test]
    fn an_empty_and_an_overlong_name_are_refused_with_the_limit() {
        assert_eq!(dir_of(&"x".repeat(247)).unwrap().len(), 247);
        let error = dir_of(&"/".repeat(83)).unwrap_err().to_string();
        assert!(error.contains("249 bytes, and 247 are allowed"), "{error}");
        assert!(dir_of("").unwrap_err().to_string().contains("it is empty"));
    }
}
