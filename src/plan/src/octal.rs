//! The `\ooo` escapes of fstab(5) and `proc_pid_mountinfo(5)`.
//!
//! Decoding never fails: what is no escape stays as it is, byte by byte, as the kernel and libmount leave it.

use alloc::borrow::Cow;
use alloc::vec::Vec;

/// Returns the bytes that an escaped field stands for.
#[must_use]
pub fn decode(field: &[u8]) -> Vec<u8> {
    decoded(field).into_owned()
}

/// As [`decode`], without a copy where there is nothing to decode.
pub(crate) fn decoded(field: &[u8]) -> Cow<'_, [u8]> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(field);
    }
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    loop {
        match rest {
            // Up to \377: three digits that make more than a byte are no escape.
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                tail @ ..,
            ] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            [byte, tail @ ..] => {
                bytes.push(*byte);
                rest = tail;
            }
            [] => return Cow::Owned(bytes),
        }
    }
}

/// Returns `bytes` with space, tab, newline, backslash and `#` as the kernel writes them in /proc/self/mountinfo.
#[must_use]
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\\' | b'#') {
            field.extend([
                b'\\',
                b'0' + (byte >> 6),
                b'0' + (byte >> 3 & 7),
                b'0' + (byte & 7),
            ]);
        } else {
            field.push(byte);
        }
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_is_written_as_three_octal_digits_and_comes_back() {
        assert_eq!(encode(b"/var/my cache"), b"/var/my\\040cache");
        assert_eq!(decode(b"/var/my\\040cache"), b"/var/my cache");
    }

    #[test]
    fn tab_newline_backslash_and_hash_are_written_as_the_kernel_does() {
        assert_eq!(encode(b"\t\n\\#"), b"\\011\\012\\134\\043");
        assert_eq!(decode(b"\\011\\012\\134\\043"), b"\t\n\\#");
    }

    #[test]
    fn an_encoded_backslash_does_not_start_another_escape() {
        assert_eq!(decode(b"\\134040"), b"\\040");
    }

    #[test]
    fn bytes_that_are_not_utf8_come_back_as_they_were() {
        assert_eq!(decode(b"\\377\xff\\000"), b"\xff\xff\0");
    }

    #[test]
    fn what_is_no_escape_stays_as_it_is() {
        for field in [
            b"\\".as_slice(),
            b"\\04",
            b"\\048",
            b"\\x20",
            b"\\\\",
            b"\\400",
            b"\\777",
            b"a\\",
        ] {
            assert_eq!(decode(field), field);
        }
    }
}
