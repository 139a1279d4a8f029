//! Whether this is a container: its mounts are its manager's, and /proc/cmdline is the host's.

use std::os::unix::ffi::OsStrExt;

use rustix::fs::OFlags;

use crate::root::Root;
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
        None => Root::open("/").is_ok_and(|root| has_mark(&root)),
    }
}

/// Whether a container manager has left its mark in a root.
#[must_use]
pub fn has_mark(root: &Root) -> bool {
    let open = |path| root.open_at(path, OFlags::PATH);
    let is_mounted = |file| mount_of(file).is_ok_and(|mount| mount.is_its_root);
    MARKS.iter().any(|mark| open(mark).is_ok()) || open(MOUNTED_MARK).is_ok_and(is_mounted)
}
