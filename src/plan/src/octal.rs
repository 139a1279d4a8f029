//! The `\ooo` escapes of fstab(5) and proc_pid_mountinfo(5).
//!
//! Decoding never fails: what is no escape stays as it is, byte by byte, as the kernel and libmount leave it.

use alloc::vec::Vec;

/// Returns the bytes that an escaped field stands for.
#[must_use]
pub fn decode(field: &[u8]) -> Vec<u8> {
    todo!("{field:?}")
}

/// Returns `bytes` with space, tab, newline, backslash and `#` as the kernel writes them in /proc/self/mountinfo.
#[must_use]
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    todo!("{bytes:?}")
}
