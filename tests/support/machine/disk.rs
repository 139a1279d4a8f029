//! Disks without partitions, made without loop devices.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use super::command;
use super::error::{At, Result};

/// Size of a file system: the largest suite fills half. The file is sparse.
pub const SIZE: u64 = 1 << 30;

/// Everything that decides how a disk is made, for its key.
#[must_use]
pub fn recipe() -> String {
    format!("ext4 {SIZE}")
}

/// Makes an ext4 file system that holds a tree.
///
/// # Errors
/// mke2fs fails.
pub fn ext4(tree: &Path, label: &str, image: &Path, log: &Path) -> Result<()> {
    let mut mke2fs = Command::new("mke2fs");
    // Debian has it where only root looks.
    mke2fs.env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    mke2fs.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-E",
        "lazy_itable_init=1",
        "-L",
        label,
        "-d",
    ]);
    mke2fs.arg(tree).arg(image).arg(format!("{}k", SIZE >> 10));
    command::run(&mut mke2fs, log)
}

/// Makes a disk of zeros.
///
/// # Errors
/// It cannot be written.
pub fn empty(image: &Path, size: u64) -> Result<()> {
    File::create(image)
        .and_then(|file| file.set_len(size))
        .at(image)
}

/// Makes a disk that is a tar archive of a directory.
///
/// # Errors
/// tar fails.
pub fn archive(dir: &Path, image: &Path, log: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    command::run(
        tar.args(["--create", "--file"])
            .arg(image)
            .arg("-C")
            .arg(dir)
            .arg("."),
        log,
    )
}
