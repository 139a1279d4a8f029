//! Root, and a mount namespace of one's own.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

use super::error::{At, Error, Result};

/// Runs the program again through sudo where it is not root: trees with owners and device nodes, overlay mounts and
/// chroot need it. Returns only where it is root already.
///
/// # Errors
/// sudo cannot be run.
pub fn become_root(environment: &[&str]) -> Result<()> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    let program = env::current_exe().at(Path::new("/proc/self/exe"))?;
    let error = Command::new("sudo")
        .arg(format!("--preserve-env={}", environment.join(",")))
        .arg("--")
        .arg(program)
        .args(env::args_os().skip(1))
        .exec();
    Err(Error::new(format!(
        "sudo: {error}; making Debian systems needs root: run this as root, or install sudo"
    )))
}

/// Leaves the machine's mount namespace: what is mounted from now on is seen by this process and its children only,
/// and is gone with them, even when they are killed.
///
/// Call it while the process has one thread; a thread that was there before stays where it was.
///
/// # Errors
/// The kernel refuses.
pub fn enter_private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).at(Path::new("a mount namespace"))?;
    // A new namespace still sends its mounts to the old one where that is shared, as systemd makes it.
    mount(
        None::<&Path>,
        "/",
        None::<&Path>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&Path>,
    )
    .at(Path::new("/"))
}
