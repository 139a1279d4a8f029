//! Configuration text in systemd's style: sections, `Key=value`, `#` and `;` comments, lines continued by a backslash.
//!
//! This module knows the syntax; what a key means is decided in [`crate::policy`].
//!
//! Source: systemd.syntax(7).

use alloc::vec::Vec;
use core::fmt;

use crate::text::numbered_lines;

/// One file, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its path, for messages.
    pub path: Vec<u8>,
    /// Its bytes.
    pub text: Vec<u8>,
}

/// One `Key=value` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment<'a> {
    /// Line number in the file, from 1; of a continued line the first.
    pub line: u32,
    /// The section's name, without brackets: `Policy`, `Path:/var/log`.
    pub section: &'a [u8],
    /// The key, without white space around it.
    pub key: &'a [u8],
    /// The value, without white space around it; continued lines joined by a space.
    pub value: Vec<u8>,
}

/// A line that is left out, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLine {
    /// Line number in the file, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with the syntax of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Neither a section, an assignment nor a comment.
    NotAnAssignment,
    /// A section header without its closing bracket. What follows it belongs to no section, until the next header.
    UnclosedSection,
    /// An assignment before the first section header, or below an unclosed one.
    OutsideSection,
    /// A byte that systemd refuses in a configuration file: NUL, or what is not UTF-8.
    NotText,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Problem::NotAnAssignment => {
                "is not a setting; write Key=value, or start a comment with #"
            }
            Problem::UnclosedSection => "section without its closing ]; add it",
            Problem::OutsideSection => {
                "setting outside any section; put it below [Policy], [Sysext] or [Path:/…]"
            }
            Problem::NotText => "a NUL byte or bytes that are not UTF-8; write the line as text",
        })
    }
}

/// The words that systemd takes for a boolean; `None` for any other. Source: systemd src/basic/parse-util.c (`parse_boolean`).
#[must_use]
pub fn boolean(word: &[u8]) -> Option<bool> {
    let is = |words: [&str; 6]| {
        let mut words = words.iter();
        words.any(|one| word.eq_ignore_ascii_case(one.as_bytes()))
    };
    if is(["1", "yes", "y", "true", "t", "on"]) {
        Some(true)
    } else if is(["0", "no", "n", "false", "f", "off"]) {
        Some(false)
    } else {
        None
    }
}

/// Splits a configuration file into its assignments, in order, and the lines that are none. Total: no input panics.
#[must_use]
pub fn parse(text: &[u8]) -> (Vec<Assignment<'_>>, Vec<BadLine>) {
    let mut file = File::default();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut logical = LogicalLine::default();
    for (line, bytes) in numbered_lines(text) {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if matches!(bytes.trim_ascii_start().first(), Some(b'#' | b';')) {
            continue; // Also within a continued line.
        }
        if bytes.contains(&0) || str::from_utf8(bytes).is_err() {
            file.bad_lines.push(BadLine {
                line,
                problem: Problem::NotText,
            });
            logical.is_lost = true;
        }
        let (part, is_continued) = without_continuation(bytes);
        if logical.parts.is_empty() {
            logical.line = line;
        }
        logical.parts.push(part);
        if !is_continued {
            file.read(&logical);
            logical.parts.clear();
            logical.is_lost = false;
        }
    }
    // The file can end in a continued line.
    file.read(&logical);
    (file.assignments, file.bad_lines)
}

/// What was read so far.
#[derive(Default)]
struct File<'a> {
    /// `None` before the first header, and below a bad one.
    section: Option<&'a [u8]>,
    assignments: Vec<Assignment<'a>>,
    bad_lines: Vec<BadLine>,
}

/// A line and those that continue it.
#[derive(Default)]
struct LogicalLine<'a> {
    line: u32,
    /// The lines without their backslashes; a space belongs between two of them.
    parts: Vec<&'a [u8]>,
    /// A part of it is no text, and was reported.
    is_lost: bool,
}

impl<'a> File<'a> {
    fn read(&mut self, logical: &LogicalLine<'a>) {
        let line = logical.line;
        let Some((first, rest)) = logical.first_text() else {
            return;
        };
        if logical.is_lost {
            if first.starts_with(b"[") {
                self.section = None;
            }
            return;
        }
        if first.starts_with(b"[") {
            self.section = match first
                .trim_ascii()
                .strip_prefix(b"[")
                .and_then(|name| name.strip_suffix(b"]"))
            {
                // systemd takes no name that goes over a line's end either: it would contain the space.
                Some(name) if is_blank(rest) => Some(name),
                _ => {
                    self.bad_lines.push(BadLine {
                        line,
                        problem: Problem::UnclosedSection,
                    });
                    None
                }
            };
        } else {
            match assignment(first, rest) {
                None => self.bad_lines.push(BadLine {
                    line,
                    problem: Problem::NotAnAssignment,
                }),
                Some((key, value)) => match self.section {
                    None => self.bad_lines.push(BadLine {
                        line,
                        problem: Problem::OutsideSection,
                    }),
                    Some(section) => self.assignments.push(Assignment {
                        line,
                        section,
                        key,
                        value,
                    }),
                },
            }
        }
    }
}

impl<'a> LogicalLine<'a> {
    /// The first part that is not blank, from its first byte of text on, and the parts after it.
    fn first_text(&self) -> Option<(&'a [u8], &[&'a [u8]])> {
        let at = self.parts.iter().position(|part| !is_blank(&[part]))?;
        Some((self.parts[at].trim_ascii_start(), &self.parts[at + 1..]))
    }
}

/// Splits `Key=value`; `first` starts with text. `None` without a `=` or without a key.
fn assignment<'a>(first: &'a [u8], rest: &[&[u8]]) -> Option<(&'a [u8], Vec<u8>)> {
    let (key, head, tail) = if let Some(at) = first.iter().position(|&byte| byte == b'=') {
        (&first[..at], &first[at + 1..], rest)
    } else {
        // A key ends with its line; only white space and the `=` can follow on the next ones.
        let at = rest.iter().position(|part| !is_blank(&[part]))?;
        (
            first,
            rest[at].trim_ascii_start().strip_prefix(b"=")?,
            &rest[at + 1..],
        )
    };
    let key = key.trim_ascii_end();
    if key.is_empty() {
        return None;
    }
    if tail.is_empty() {
        return Some((key, head.trim_ascii().to_vec()));
    }
    let mut value = head.to_vec();
    for part in tail {
        value.push(b' ');
        value.extend_from_slice(part);
    }
    Some((key, value.trim_ascii().to_vec()))
}

fn is_blank(parts: &[&[u8]]) -> bool {
    parts.iter().all(|part| part.trim_ascii().is_empty())
}

/// Takes the backslash off that continues a line; two of them are one that is escaped, and continue nothing.
fn without_continuation(bytes: &[u8]) -> (&[u8], bool) {
    let backslashes = bytes
        .iter()
        .rev()
        .take_while(|&&byte| byte == b'\\')
        .count();
    if backslashes % 2 == 1 {
        (&bytes[..bytes.len() - 1], true)
    } else {
        (bytes, false)
    }
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};

    use super::*;

    /// `section/key=value` of each assignment; no line is bad.
    fn assignments(text: &str) -> Vec<String> {
        let (assignments, bad_lines) = parse(text.as_bytes());
        assert_eq!(bad_lines, [], "{text:?}");
        assignments.iter().map(shown).collect()
    }

    fn shown(assignment: &Assignment<'_>) -> String {
        let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        [
            string(assignment.section),
            "/".into(),
            string(assignment.key),
            "=".into(),
            string(&assignment.value),
        ]
        .concat()
    }

    fn bad(text: &[u8]) -> Vec<(u32, Problem)> {
        parse(text)
            .1
            .iter()
            .map(|bad| (bad.line, bad.problem))
            .collect()
    }

    #[test]
    fn a_setting_belongs_to_the_section_above_it() {
        let text =
            "[Policy]\nMode=strict\nLock = merged\n\n[Path:/var/log]\n  Treatment\t=\ttmpfs  \n";
        assert_eq!(
            assignments(text),
            [
                "Policy/Mode=strict",
                "Policy/Lock=merged",
                "Path:/var/log/Treatment=tmpfs"
            ]
        );
    }

    #[test]
    fn settings_and_problems_have_their_line_numbers() {
        let (assignments, bad_lines) = parse(b"# x\n[Policy]\n\nMode=strict\nnonsense\nLock=off");
        assert_eq!(
            assignments
                .iter()
                .map(|assignment| assignment.line)
                .collect::<Vec<_>>(),
            [4, 6]
        );
        assert_eq!(
            bad_lines,
            [BadLine {
                line: 5,
                problem: Problem::NotAnAssignment
            }]
        );
    }

    #[test]
    fn comments_start_with_a_hash_or_a_semicolon_and_only_at_the_start_of_a_line() {
        assert_eq!(
            assignments("# a\n ; [b]\n\t#c=d\n[Policy]\nMode=x # y\n"),
            ["Policy/Mode=x # y"]
        );
    }

    #[test]
    fn a_continued_line_is_joined_by_a_space_and_numbered_by_its_first() {
        let (assignments, bad_lines) = parse(b"[P]\nA=b \\\n  c\\\nd\nE=f\n");
        assert_eq!(bad_lines, []);
        assert_eq!(
            assignments.iter().map(shown).collect::<Vec<_>>(),
            ["P/A=b    c d", "P/E=f"]
        );
        assert_eq!(
            assignments
                .iter()
                .map(|assignment| assignment.line)
                .collect::<Vec<_>>(),
            [2, 5]
        );
    }

    #[test]
    fn a_comment_within_a_continued_line_is_left_out_and_does_not_end_it() {
        assert_eq!(
            assignments("[P]\nA=b \\\n# no \\\n ; no\nc\nD=e"),
            ["P/A=b  c", "P/D=e"]
        );
    }

    #[test]
    fn a_comment_is_not_continued() {
        assert_eq!(assignments("[P]\n# no \\\nA=b"), ["P/A=b"]);
    }

    #[test]
    fn a_blank_line_ends_a_continued_one() {
        assert_eq!(assignments("[P]\nA=b\\\n\nC=d"), ["P/A=b", "P/C=d"]);
    }

    #[test]
    fn two_backslashes_continue_nothing_and_three_do() {
        assert_eq!(
            assignments("[P]\nA=b\\\\\nC=d\\\\\\\ne"),
            ["P/A=b\\\\", "P/C=d\\\\ e"]
        );
    }

    #[test]
    fn a_backslash_with_white_space_behind_it_continues_nothing() {
        assert_eq!(assignments("[P]\nA=b\\ \nC=d"), ["P/A=b\\", "P/C=d"]);
    }

    #[test]
    fn a_file_may_end_in_a_continued_line() {
        assert_eq!(assignments("[P]\nA=b\\"), ["P/A=b"]);
        assert_eq!(assignments("[P]\nA=b\\\n"), ["P/A=b"]);
    }

    #[test]
    fn lines_may_end_as_on_dos_and_start_with_a_byte_order_mark() {
        assert_eq!(
            assignments("\u{feff}[P]\r\nA=b\\\r\nc\r\n\r\nD=e"),
            ["P/A=b c", "P/D=e"]
        );
    }

    #[test]
    fn the_first_equals_sign_splits_and_a_value_may_be_empty() {
        assert_eq!(assignments("[P]\nA=b=c\nD=\n"), ["P/A=b=c", "P/D="]);
    }

    #[test]
    fn a_key_and_its_equals_sign_may_stand_on_two_lines() {
        assert_eq!(assignments("[P]\n\\\nA\\\n \\\n =b\\\n=c"), ["P/A=b =c"]);
    }

    #[test]
    fn a_key_over_two_lines_is_no_setting() {
        assert_eq!(
            bad(b"[P]\nA\\\nB=c\nD=e\n"),
            [(2, Problem::NotAnAssignment)]
        );
    }

    #[test]
    fn a_line_without_a_key_or_without_an_equals_sign_is_no_setting() {
        assert_eq!(
            bad(b"[P]\n=x\nstrict\n"),
            [(2, Problem::NotAnAssignment), (3, Problem::NotAnAssignment)]
        );
    }

    #[test]
    fn a_section_without_its_bracket_takes_its_settings_with_it_until_the_next_one() {
        let (assignments, bad_lines) = parse(b"[P]\nA=1\n[Q\nB=2\n[R]\nC=3\n");
        assert_eq!(
            assignments.iter().map(shown).collect::<Vec<_>>(),
            ["P/A=1", "R/C=3"]
        );
        assert_eq!(
            bad_lines,
            [
                BadLine {
                    line: 3,
                    problem: Problem::UnclosedSection
                },
                BadLine {
                    line: 4,
                    problem: Problem::OutsideSection
                },
            ]
        );
    }

    #[test]
    fn a_section_and_a_setting_on_one_line_are_neither() {
        assert_eq!(
            bad(b"[P] A=1\n[P]\\\nA=1\n["),
            [
                (1, Problem::UnclosedSection),
                (2, Problem::UnclosedSection),
                (4, Problem::UnclosedSection)
            ]
        );
    }

    #[test]
    fn a_section_may_be_followed_by_nothing_over_two_lines() {
        assert_eq!(assignments(" [P] \\\n  \nA=1"), ["P/A=1"]);
    }

    #[test]
    fn a_setting_before_the_first_section_is_left_out() {
        assert_eq!(bad(b"A=1\n[P]\nB=2"), [(1, Problem::OutsideSection)]);
    }

    #[test]
    fn a_line_that_is_not_text_is_left_out_whole_and_the_bad_part_is_named() {
        let (assignments, bad_lines) = parse(b"[P]\nA=1\\\n\xff\\\n2\nB=\0\nC=3\n");
        assert_eq!(assignments.iter().map(shown).collect::<Vec<_>>(), ["P/C=3"]);
        let lines: Vec<_> = bad_lines
            .iter()
            .map(|bad| (bad.line, bad.problem))
            .collect();
        assert_eq!(lines, [(3, Problem::NotText), (5, Problem::NotText)]);
    }

    #[test]
    fn a_section_that_is_not_text_takes_its_settings_with_it() {
        assert_eq!(
            bad(b"[P]\n[Q\xff]\nA=1\n"),
            [(2, Problem::NotText), (3, Problem::OutsideSection)]
        );
    }

    #[test]
    fn a_comment_need_not_be_text() {
        assert_eq!(bad(b"# caf\xe9\0\n[P]\nA=1\n"), []);
    }

    #[test]
    fn utf8_stays() {
        assert_eq!(assignments("[Path:/é]\nSize=ü"), ["Path:/é/Size=ü"]);
    }

    #[test]
    fn a_boolean_is_one_of_twelve_words_in_small_letters_or_capitals() {
        for (words, expected) in [
            (
                &["1", "yes", "y", "true", "t", "on", "YES", "Y", "T", "On"][..],
                Some(true),
            ),
            (
                &["0", "no", "n", "false", "f", "off", "NO", "N", "F", "Off"],
                Some(false),
            ),
            (&["", " ", "2", "-1", "00", "ja", "yes ", "of"], None),
        ] {
            for word in words {
                assert_eq!(boolean(word.as_bytes()), expected, "{word:?}");
            }
        }
    }

    #[test]
    fn nothing_is_nothing() {
        for text in ["", "\n", "\\", "\\\n\\\n", "\u{feff}", "\r\n"] {
            assert_eq!(assignments(text), [""; 0], "{text:?}");
        }
    }

    #[test]
    fn a_word_that_is_no_setting_is_told_how_one_looks() {
        assert_eq!(
            Problem::NotAnAssignment.to_string(),
            "is not a setting; write Key=value, or start a comment with #"
        );
    }

    #[test]
    fn an_unclosed_section_is_told_what_it_lacks() {
        assert_eq!(
            Problem::UnclosedSection.to_string(),
            "section without its closing ]; add it"
        );
    }

    #[test]
    fn a_setting_outside_any_section_is_told_where_it_belongs() {
        assert_eq!(
            Problem::OutsideSection.to_string(),
            "setting outside any section; put it below [Policy], [Sysext] or [Path:/…]"
        );
    }

    #[test]
    fn what_is_not_text_is_told_apart() {
        assert_eq!(
            Problem::NotText.to_string(),
            "a NUL byte or bytes that are not UTF-8; write the line as text"
        );
    }
}
