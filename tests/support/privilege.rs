//! Root and mounts for tests that need no machine of their own: nothing that they mount is seen outside, or outlives them.

use std::env;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

/// Runs the program again as root of a user namespace, where it is not root already.
///
/// # Panics
/// Where that cannot be done: a test that cannot mount has tested nothing.
pub fn become_root() {
    if geteuid().is_root() {
        return;
    }
    let error = Command::new("unshare")
        .args(["--map-root-user", "--mount", "--"])
        .arg(env::current_exe().unwrap())
        .args(env::args_os().skip(1))
        .exec();
    panic!("unshare: {error}; these tests mount: run them as root, or install util-linux");
}

/// Whether other users than root exist here: in some user namespaces there are none. Says so where not.
#[must_use]
pub fn has_other_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let counts = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2));
    let users: u64 = counts.filter_map(|count| count.parse::<u64>().ok()).sum();
    let has = users > 65534;
    if !has {
        eprintln!("skipped: there is no second user in this user namespace");
    }
    has
}

/// Calls a function in a thread with a mount namespace of its own; the processes that it starts share that.
///
/// # Panics
/// With the function, or where the kernel refuses.
pub fn in_own_mounts<T: Send>(function: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                mount(None::<&Path>, "/", None::<&Path>, private, None::<&Path>).unwrap();
                function()
            })
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Mounts a tmpfs; `options` as in tmpfs(5).
///
/// # Panics
/// Where the kernel refuses.
pub fn tmpfs(at: &Path, options: &str) {
    mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options),
    )
    .unwrap();
}

/// Binds a file or directory over another.
///
/// # Panics
/// Where the kernel refuses.
pub fn bind(what: &Path, over: &Path) {
    mount(
        Some(what),
        over,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap_or_else(|error| panic!("{} over {}: {error}", what.display(), over.display()));
}

/// Binds a directory on itself with more flags, such as read-only.
///
/// # Panics
/// Where the kernel refuses.
pub fn bind_itself(at: &Path, flags: MsFlags) {
    bind(at, at);
    let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>).unwrap();
}

/// Whether there can be a mount of [`hung`]; says so where not.
#[must_use]
pub fn has_fuse() -> bool {
    let has = Path::new("/dev/fuse").exists();
    if !has {
        eprintln!("skipped: no /dev/fuse: nothing here that does not answer");
    }
    has
}

/// Mounts what never answers: the first look at it waits. To be unmounted with MNT_FORCE.
///
/// # Panics
/// Where the kernel refuses.
pub fn hung(at: &Path) {
    // Nobody reads from it, and while it is open nobody else is told.
    std::mem::forget(fuse(at));
}

/// Mounts what has ended: each look at it fails.
///
/// # Panics
/// Where the kernel refuses.
pub fn ended(at: &Path) {
    drop(fuse(at));
}

fn fuse(at: &Path) -> File {
    let mut options = OpenOptions::new();
    let fuse = options.read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        fuse.as_raw_fd()
    );
    let nothing = MsFlags::empty();
    mount(
        Some("hung"),
        at,
        Some("fuse"),
        nothing,
        Some(options.as_str()),
    )
    .unwrap();
    fuse
}
