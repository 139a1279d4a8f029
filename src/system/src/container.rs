//! Whether this is a container: its mounts are its manager's, and /proc/cmdline is the host's.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What container managers, and PID 1 for them, leave in `/run`. Not /.dockerenv as well: it comes along where an image is put
/// on a disk, and a machine that starts from that is none.
///
/// Source: systemd src/basic/virt.c (`detect_container`).
pub const MARKS: [&str; 3] = [
    "/run/systemd/container",
    "/run/host/container-manager",
    "/run/.containerenv",
];

/// PID 1 tells its generators since v251; everybody else, and before that, finds the file of the container interface.
#[must_use]
pub fn in_container() -> bool {
    match std::env::var_os("SYSTEMD_VIRTUALIZATION") {
        Some(value) => value.as_bytes().starts_with(b"container:"),
        None => MARKS.iter().any(|mark| Path::new(mark).exists()),
    }
}
