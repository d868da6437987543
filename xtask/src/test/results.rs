//! What a step's output says of the tests in it.

/// How many tests there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Results {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

/// Lines of a failed step that are repeated at the end.
const LINES_MAX: usize = 20;
const COLUMNS_MAX: usize = 300;

impl Results {
    /// The sum of the summaries in `text`: cargo test's `test result:` lines, and the `checks:` line of the scripts.
    /// Where there is none, the step counts as one test.
    pub(super) fn of_step(text: &str, has_succeeded: bool) -> Self {
        let mut results = Self::sum(text).unwrap_or(Self { passed: u64::from(has_succeeded), ..Self::default() });
        if !has_succeeded && results.failed == 0 {
            // It did not build, or ended before its summary.
            results.failed = 1;
        }
        results
    }

    fn sum(text: &str) -> Option<Self> {
        let mut results = Self::default();
        let mut is_there = false;
        let mut elsewhere = 0;
        for line in text.lines().map(without_colours) {
            if let Some(numbers) = line.strip_prefix("test result: ") {
                results.passed += before(numbers, "passed;");
                results.failed += before(numbers, "failed;");
                results.skipped += before(numbers, "ignored;");
                is_there = true;
            } else if let Some(numbers) = line.strip_prefix("checks: ") {
                // A summary in other words is a failure: what it counts would be missed without a sign of it.
                let counted = numbers.contains(" passed, ") && numbers.contains(" failed");
                results.passed += before(numbers, "passed,");
                results.failed += if counted { before(numbers, "failed") } else { 1 };
                is_there = true;
            } else if line.starts_with("test ") && line.contains(" ... ignored, ") && line.contains("./test --only") {
                // Its reason names a stage, which counts it.
                elsewhere += 1;
            }
        }
        results.skipped = results.skipped.saturating_sub(elsewhere);
        is_there.then_some(results)
    }

    pub(super) fn add(&mut self, others: Self) {
        self.passed += others.passed;
        self.failed += others.failed;
        self.skipped += others.skipped;
    }
}

/// The number in front of the word that begins with `word`; 0 where there is none.
fn before(line: &str, word: &str) -> u64 {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|found| found.starts_with(word)).unwrap_or(0);
    at.checked_sub(1).and_then(|at| words[at].parse().ok()).unwrap_or(0)
}

/// The line without a terminal's sequences for colours.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    text
}

/// The lines of a failed step's output that say what broke.
pub(super) fn reasons(text: &str) -> Vec<String> {
    let mut rest = 0;
    let mut found = Vec::new();
    for line in text.lines().map(without_colours) {
        rest = if line.starts_with("BROKEN ") {
            8
        } else if line.contains("panicked at ") {
            5
        } else if line.starts_with("error") {
            4
        } else if line.ends_with("... FAILED") {
            rest.max(1)
        } else {
            rest
        };
        if rest > 0 && found.len() < LINES_MAX {
            found.push(line.chars().take(COLUMNS_MAX).collect());
            rest -= 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(passed: u64, failed: u64, skipped: u64) -> Results {
        Results { passed, failed, skipped }
    }

    #[test]
    fn summaries_are_added_up() {
        let text = "\u{1b}[1mtest result: ok\u{1b}[0m. 3 passed; 0 failed; 2 ignored; 0 measured\n\
            test a ... ignored, needs mounts: ./test --only filesystems\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored\nchecks: 10 passed, 1 failed\n";
        assert_eq!(Results::of_step(text, false), results(14, 3, 1));
    }

    #[test]
    fn a_summary_in_other_words_is_a_failure() {
        assert_eq!(Results::of_step("checks: 7 held, 0 broken\n", true), results(0, 1, 0));
    }

    #[test]
    fn a_step_without_a_summary_is_one_test() {
        assert_eq!(Results::of_step("Finished\n", true), results(1, 0, 0));
        assert_eq!(Results::of_step("error: no\n", false), results(0, 1, 0));
    }

    #[test]
    fn a_step_that_fails_behind_its_summaries_has_failed() {
        assert_eq!(Results::of_step("test result: ok. 5 passed; 0 failed; 0 ignored\n", false), results(5, 1, 0));
    }

    #[test]
    fn what_broke_is_repeated() {
        let text =
            "test a ... ok\ntest b ... FAILED\nthread 'b' panicked at src/b.rs:1:\nleft: 1\nright: 2\n\n\n\nmore";
        let lines = reasons(text);
        assert_eq!(lines[..3], ["test b ... FAILED", "thread 'b' panicked at src/b.rs:1:", "left: 1"]);
        assert!(!lines.iter().any(|line| line == "more" || line.ends_with("ok")), "{lines:?}");
    }
}
