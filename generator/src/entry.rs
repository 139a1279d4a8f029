//! Where the C library starts the program.
//!
//! It does without std's start-up. That one aborts where a process is given no standard streams and there is no /dev/null,
//! and the kernel gives the first process none where it finds no console: the machine would stop there. It also ignores
//! SIGPIPE, and makes ready for a message about an overflowing stack, which is a tenth of the program.

// The C library calls a symbol of this name, and gives it pointers. With mount_setattr(2) it is all that is unsafe here.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    let count = usize::try_from(count).unwrap_or_default();
    let words: Vec<OsString> = (0..count)
        .map(|index| {
            // SAFETY: the C library gives so many pointers to strings that end with a zero byte, and live as long as the
            // process.
            let argument = unsafe { CStr::from_ptr(*arguments.add(index)) };
            OsStr::from_bytes(argument.to_bytes()).to_owned()
        })
        .collect();
    c_int::from(crate::run(&words))
}
