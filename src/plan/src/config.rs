//! Configuration text in systemd's style: sections, `Key=value`, `#` and `;` comments, lines continued by a backslash.
//!
//! This module knows the syntax; what a key means is decided in [`crate::policy`].
//!
//! Source: systemd.syntax(7).

use alloc::vec::Vec;
use core::fmt;

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
    /// An assignment before the first (good) section header.
    OutsideSection,
    /// A byte that systemd refuses in a configuration file: NUL, or what is not UTF-8.
    NotText,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Problem::NotAnAssignment => "is not a setting; write Key=value, or start a comment with #",
            Problem::UnclosedSection => "section without its closing ]; add it",
            Problem::OutsideSection => "setting before any section; put it below [Policy], [Sysext] or [Path:/…]",
            Problem::NotText => "a NUL byte or bytes that are not UTF-8; write the line as text",
        })
    }
}

/// Splits a configuration file into its assignments, in order, and the lines that are none. Total: no input panics.
#[must_use]
pub fn parse(text: &[u8]) -> (Vec<Assignment<'_>>, Vec<BadLine>) {
    todo!("{text:?}")
}
