//! CHANGELOG.md at a release: the section `Unreleased` becomes the version's.

use crate::command::Result;

const UNRELEASED: &str = "## Unreleased\n";

/// The whole text with a heading for `version` in place of `Unreleased`, and an empty `Unreleased` above it.
pub(crate) fn released(text: &str, version: &str, date: &str) -> Result<String> {
    let Some(at) = text.find(UNRELEASED) else {
        return Err("CHANGELOG.md has no section `## Unreleased`".to_owned());
    };
    if section(text, version).is_some() {
        return Err(format!("CHANGELOG.md has a section of {version} already"));
    }
    if section_from(&text[at + UNRELEASED.len()..]).trim().is_empty() {
        return Err("CHANGELOG.md says nothing under `## Unreleased`".to_owned());
    }
    let (before, after) = text.split_at(at);
    Ok(format!("{before}{UNRELEASED}\n## {version} ({date})\n{}", &after[UNRELEASED.len()..]))
}

/// What it says of `version`.
pub(crate) fn section<'a>(text: &'a str, version: &str) -> Option<&'a str> {
    let heading = format!("\n## {version} (");
    let at = text.find(&heading)?;
    let (_, below) = text[at + 1..].split_once('\n')?;
    Some(section_from(below).trim())
}

/// Up to the next heading of a version.
fn section_from(text: &str) -> &str {
    if text.starts_with("## ") { "" } else { text.find("\n## ").map_or(text, |end| &text[..end]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Changelog\n\n## Unreleased\n\n- faster\n\n## 0.1.0 (2026-01-01)\n\n- first\n";

    #[test]
    fn a_release_names_what_was_unreleased() {
        let text = released(TEXT, "0.2.0", "2026-11-29").unwrap();
        assert_eq!(section(&text, "0.2.0"), Some("- faster"));
        assert_eq!(section(&text, "0.1.0"), Some("- first"));
        assert!(text.starts_with("# Changelog\n\n## Unreleased\n\n## 0.2.0 (2026-11-29)\n\n- faster\n"), "{text}");
    }

    #[test]
    fn nothing_is_released_twice_and_no_empty_section_either() {
        assert!(released(TEXT, "0.1.0", "2026-11-29").unwrap_err().contains("0.1.0 already"));
        let empty = released(TEXT, "0.2.0", "2026-11-29").unwrap();
        assert!(released(&empty, "0.3.0", "2026-11-30").unwrap_err().contains("says nothing"));
        assert!(released("# Changelog\n", "0.2.0", "2026-11-29").unwrap_err().contains("no section"));
    }
}
