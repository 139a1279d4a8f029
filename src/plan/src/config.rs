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
