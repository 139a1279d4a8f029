//! fstab(5), with line numbers. A line that cannot be read is one error, not the end.

use alloc::vec::Vec;
use core::fmt;

use crate::mount_point::{MountPoint, NotAMountPoint};
use crate::octal;
use crate::text::{Shown, numbered_lines};

/// One line of fstab(5), escapes decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Line number in the file, from 1.
    pub line: u32,
    /// First field: the device, share or label.
    pub spec: Vec<u8>,
    /// Second field: where it is mounted.
    pub file: MountPoint,
    /// Third field: the type of the file system; empty where it is missing.
    pub vfstype: Vec<u8>,
    /// Fourth field, split at commas (quotes protect a comma, as libmount has it); `defaults` where it is missing.
    pub mntops: Vec<Vec<u8>>,
}

/// A line that mount(8) leaves out, or that names no place, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Line number in the file, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a line of fstab(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Fewer than the three fields that libmount insists on.
    MissingFields,
    /// A NUL byte, where libmount gives the line up and systemd reads on as if the line ended there.
    NulByte,
    /// Field 5 or 6 is no number.
    NotANumber,
    /// The second field is no mount point (and not `none` or `swap`, which name no place).
    MountPoint(Vec<u8>, NotAMountPoint),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::MissingFields => {
                f.write_str("fewer than three fields; write device, mount point and type")
            }
            Problem::NulByte => f.write_str("a NUL byte; write the line as text"),
            Problem::NotANumber => {
                f.write_str("something other than a number after the options; write 0 0 there")
            }
            Problem::MountPoint(field, why) => write!(f, "mount point \"{}\" {why}", Shown(field)),
        }
    }
}

/// What an fstab says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fstab {
    /// The lines that name a mount point, in order. Some are bad lines too: systemd makes a mount unit of a line that
    /// mount(8) leaves out, for instance of one without a type.
    pub entries: Vec<Entry>,
    /// The lines that something is wrong with.
    pub bad_lines: Vec<BadLine>,
}

impl Fstab {
    /// Reads the text of an fstab. Total: no input panics. Comments, blank lines, `swap` and `none` lines make no entry.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut fstab = Fstab::default();
        for (line, bytes) in numbered_lines(text) {
            let (entry, problem) = read(line, bytes);
            fstab.entries.extend(entry);
            fstab
                .bad_lines
                .extend(problem.map(|problem| BadLine { line, problem }));
        }
        fstab
    }

    /// The last entry for a mount point: the one that is mounted last, and seen.
    #[must_use]
    pub fn entry_at(&self, mount_point: &MountPoint) -> Option<&Entry> {
        self.entries
            .iter()
            .rev()
            .find(|entry| entry.file == *mount_point)
    }
}

impl Entry {
    /// Whether the line carries an option, as a whole word: `errors=remount-ro` is not `ro`.
    #[must_use]
    pub fn has_option(&self, option: &str) -> bool {
        self.mntops.iter().any(|o| o == option.as_bytes())
    }
}

/// Returns the text of an fstab without its lines for one mount point; every other byte stays.
#[must_use]
pub fn without(text: &[u8], mount_point: &MountPoint) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        if !is_for(line, mount_point) {
            kept.extend_from_slice(line);
        }
    }
    kept
}

/// Reads one line: the mount that it asks for, and what is wrong with it. It can have both.
fn read(line: u32, bytes: &[u8]) -> (Option<Entry>, Option<Problem>) {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut problem = (text.len() < bytes.len()).then_some(Problem::NulByte);
    let mut fields = fields(text);
    let Some(spec) = fields.next() else {
        return (None, problem);
    };
    let Some(file) = fields.next() else {
        return (None, problem.or(Some(Problem::MissingFields)));
    };
    let vfstype = fields.next().unwrap_or_default();
    if names_no_place(file, vfstype) {
        return (None, problem);
    }
    let path = octal::decoded(file);
    let file = match MountPoint::new(&path) {
        Ok(file) => file,
        Err(why) => {
            return (
                None,
                problem.or(Some(Problem::MountPoint(path.into_owned(), why))),
            );
        }
    };
    let mntops = options(&octal::decoded(fields.next().unwrap_or(b"defaults")));
    if vfstype.is_empty() {
        problem = problem.or(Some(Problem::MissingFields));
    } else if !fields.by_ref().take(2).all(is_number) {
        problem = problem.or(Some(Problem::NotANumber));
    }
    (
        Some(Entry {
            line,
            spec: octal::decode(spec),
            file,
            vfstype: octal::decode(vfstype),
            mntops,
        }),
        problem,
    )
}

fn is_number(field: &[u8]) -> bool {
    let digits = field
        .strip_prefix(b"-")
        .or(field.strip_prefix(b"+"))
        .unwrap_or(field);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// Whether a line is for one mount point, even if something else is wrong with it.
fn is_for(line: &[u8], mount_point: &MountPoint) -> bool {
    let mut fields = fields(line.strip_suffix(b"\n").unwrap_or(line)).skip(1);
    let Some(file) = fields.next() else {
        return false;
    };
    !names_no_place(file, fields.next().unwrap_or_default())
        && MountPoint::new(&octal::decoded(file)).is_ok_and(|file| file == *mount_point)
}

fn names_no_place(file: &[u8], vfstype: &[u8]) -> bool {
    matches!(file, b"none" | b"swap") || vfstype == b"swap"
}

/// The fields of a line; none in a comment.
fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut fields = line
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|field| !field.is_empty())
        .peekable();
    let comment = fields.peek().is_some_and(|first| first.starts_with(b"#"));
    fields.filter(move |_| !comment)
}

/// Splits options at commas, save where `"` or a backslash protects them.
///
/// Source: util-linux libmount/src/optstr.c, `mnt_optstr_next_option`.
fn options(list: &[u8]) -> Vec<Vec<u8>> {
    let mut quoted = false;
    let mut previous = 0;
    let separates = |&byte: &u8| {
        let escaped = previous == b'\\';
        quoted ^= byte == b'"' && !escaped;
        previous = byte;
        byte == b',' && !quoted && !escaped
    };
    list.split(separates)
        .filter(|option| !option.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}
