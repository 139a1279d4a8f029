//! A package repository for pacman that needs no network, inside the suite's tree.
//!
//! `oldtoy` is installed, so that there is something to remove; `toy` is only in the repository. Packages and database
//! are written as pacman's own formats are (alpm-package(7), alpm-repo-db(7)): two tar files need no makepkg.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

use super::command;
use super::error::{At, Result};
use super::key::hex;

/// Where the repository is, in the tree.
const REPOSITORY: &str = "/srv/pacman";

/// What pacman reads: the repository of its own, nothing signed, and the check that makes `-S` fail early on Arch.
const PACMAN_CONF: &str = "\
[options]
HoldPkg = pacman
Architecture = auto
CheckSpace
SigLevel = Never

[toys]
Server = file:///srv/pacman
";

/// Name and description of each package; the package owns one program, `/usr/bin/NAME`.
const PACKAGES: [(&str, &str); 2] = [
    ("toy", "a program that is not installed"),
    ("oldtoy", "a program that is installed"),
];

/// The package that the tree has installed.
const INSTALLED: &str = "oldtoy";

/// Everything that decides what [`install`] makes, for the key of the tree.
#[must_use]
pub fn recipe() -> String {
    let packages =
        PACKAGES.map(|(name, about)| package_info(name, about) + &desc(name, about, 0, ""));
    format!("{PACMAN_CONF}{REPOSITORY}{INSTALLED}{}", packages.concat())
}

/// Puts the repository and pacman's configuration into the tree at `root`, reads the database and installs a package.
///
/// # Errors
/// A file cannot be written, or tar or pacman fails.
pub fn install(root: &Path, log: &Path) -> Result<()> {
    let conf = root.join("etc/pacman.conf");
    // In a chroot without /proc nobody knows how much space there is.
    fs::write(&conf, PACMAN_CONF.replace("CheckSpace\n", "")).at(&conf)?;
    let repository = root.join(REPOSITORY.trim_start_matches('/'));
    let work = tempfile::tempdir().at(Path::new("a temporary directory"))?;
    let database = work.path().join("database");
    for (name, about) in PACKAGES {
        let package = work.path().join(name);
        write(&package.join(".PKGINFO"), &package_info(name, about), 0o644)?;
        write(
            &package.join(format!("usr/bin/{name}")),
            &format!("#!/bin/sh\necho {name}\n"),
            0o755,
        )?;
        let archive = repository.join(file_name(name));
        fs::create_dir_all(&repository).at(&repository)?;
        tar(&package, &archive, &[".PKGINFO", "usr"], log)?;
        let bytes = fs::read(&archive).at(&archive)?;
        let digest = hex(&Sha256::digest(&bytes));
        write(
            &database.join(format!("{name}-1-1/desc")),
            &desc(name, about, bytes.len(), &digest),
            0o644,
        )?;
    }
    tar(
        &database,
        &repository.join("toys.db"),
        &["toy-1-1", "oldtoy-1-1"],
        log,
    )?;
    for arguments in [&["-Sy"][..], &["-S", "--noconfirm", INSTALLED]] {
        command::run(
            Command::new("chroot")
                .arg(root)
                .arg("pacman")
                .args(arguments),
            log,
        )?;
    }
    fs::write(&conf, PACMAN_CONF).at(&conf)
}

fn file_name(name: &str) -> String {
    format!("{name}-1-1-any.pkg.tar")
}

fn package_info(name: &str, about: &str) -> String {
    format!(
        "pkgname = {name}\npkgver = 1-1\npkgdesc = {about}\nbuilddate = 1\nsize = 1\narch = any\n"
    )
}

fn desc(name: &str, about: &str, size: usize, digest: &str) -> String {
    let file = file_name(name);
    format!(
        "%FILENAME%\n{file}\n\n%NAME%\n{name}\n\n%VERSION%\n1-1\n\n%DESC%\n{about}\n\n%CSIZE%\n{size}\n\n\
         %ISIZE%\n1\n\n%SHA256SUM%\n{digest}\n\n%ARCH%\nany\n\n%BUILDDATE%\n1\n\n"
    )
}

fn tar(dir: &Path, archive: &Path, names: &[&str], log: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--mtime=@1", "--file"])
        .arg(archive)
        .arg("-C")
        .arg(dir);
    command::run(tar.args(names), log)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).at(parent)?;
    }
    fs::write(path, text).at(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at(path)
}
