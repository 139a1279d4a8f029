//! Whether this is a container: its mounts are its manager's, and /proc/cmdline is the host's.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::seen::mount_of;

/// What container managers, and PID 1 for them, leave in `/run`. Not /.dockerenv as well: it comes along where an image is put
/// on a disk, and a machine that starts from that is none.
///
/// Source: systemd src/basic/virt.c (`detect_container`).
const MARKS: [&str; 2] = ["/run/systemd/container", "/run/host/container-manager"];

/// podman and buildah mount this file in their containers. As a file it stays behind on the host when one is given the host's
/// `/run`. Source: podman libpod/container_internal_common.go (`makeBindMounts`).
const MOUNTED_MARK: &str = "/run/.containerenv";

/// PID 1 tells its generators since v251; everybody else, and before that, finds the file of the container interface.
#[must_use]
pub fn in_container() -> bool {
    match std::env::var_os("SYSTEMD_VIRTUALIZATION") {
        Some(value) => value.as_bytes().starts_with(b"container:"),
        None => MARKS.iter().any(|mark| Path::new(mark).exists()) || is_mounted(MOUNTED_MARK),
    }
}

fn is_mounted(path: &str) -> bool {
    File::open(path).is_ok_and(|file| mount_of(file).is_ok_and(|mount| mount.is_its_root))
}
