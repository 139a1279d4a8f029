//! Initramfs images, made in a suite's tree by what a system of that kind has.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command;
use super::error::{At, Result};
use super::key::Key;
use super::suite::System;
use super::tree::{Extra, Tree, gather};
use super::uml;

/// Who makes the image. A new kind is a variant here and an arm in [`Initramfs::make`] and [`Initramfs::recipe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Initramfs {
    /// The suite's own dracut, with systemd.
    Dracut,
    /// The same with other modules.
    DracutWith {
        /// Modules that are there although nothing asks for them.
        add: &'static str,
        /// Modules that are left out besides those that no machine needs.
        omit: &'static str,
        /// Files of the system that no module has, with the libraries that they need.
        install: &'static str,
    },
    /// The suite's own dracut, with systemd, a network and NFS.
    DracutNfs,
    /// Busybox and these hooks of mkinitcpio, found in the tree where mkinitcpio looks for them; what makes the image
    /// and what runs it at boot is our own (`tests/support/mkinitcpio`), and Debian's static busybox.
    Busybox(&'static [&'static str]),
    /// mkinitcpio itself, with these hooks.
    Mkinitcpio {
        /// A checkout of it.
        source: PathBuf,
        /// As in mkinitcpio.conf(5).
        hooks: &'static [&'static str],
    },
    /// Nobody: [`super::uml`] starts the root by itself.
    None,
}

/// Modules of dracut that none of these machines needs; each costs seconds of an emulated boot.
const DRACUT_OMIT: &str = "plymouth crypt dm dmraid lvm mdraid multipath nvdimm nvmf iscsi nfs cifs network \
    network-manager systemd-networkd i18n kernel-network-modules qemu-net lunmask fips fips-crypto-policies \
    systemd-pcrphase systemd-cryptsetup tpm2-tss pcsc fido2 pkcs11 hwdb bluetooth virtiofs";

/// Drivers of these machines.
const DRACUT_DRIVERS: &str =
    "virtio_pci virtio_blk virtio_console ext4 btrfs erofs overlay loop squashfs";

/// What of these a machine needs whose /usr is shared over NFS; its drivers are named, so that not all of them come.
const OF_A_NETWORK: [&str; 4] = [
    "nfs",
    "network",
    "systemd-networkd",
    "kernel-network-modules",
];

/// Its drivers.
const NFS_DRIVERS: &str = "virtio_net nfs nfsv4";

/// Uncompressed: the emulated machine takes longer to unpack than to read.
const DRACUT_OPTIONS: &[&str] = &[
    "--force",
    "--no-hostonly",
    "--no-hostonly-cmdline",
    "--no-compress",
    "--no-early-microcode",
];

/// What makes images from hooks of mkinitcpio.
const MKINITCPIO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/support/mkinitcpio");

/// Where the image is written, seen from inside the tree.
const IMAGE: &str = "/run/initramfs.img";

impl Initramfs {
    /// Everything that decides how the image is made, for its key.
    ///
    /// # Errors
    /// What makes it cannot be read.
    pub fn recipe(&self) -> Result<Key> {
        match self {
            Self::Dracut => Ok(Key::new()
                .with("dracut")
                .with(DRACUT_OMIT)
                .with(DRACUT_DRIVERS)
                .with(DRACUT_OPTIONS.join(" "))),
            Self::DracutWith { add, omit, install } => Self::Dracut
                .recipe()
                .map(|key| key.with(add).with(omit).with(install)),
            Self::DracutNfs => Self::Dracut
                .recipe()
                .map(|key| key.with(OF_A_NETWORK.join(" ")).with(NFS_DRIVERS)),
            Self::Busybox(hooks) => Key::new()
                .with("busybox")
                .with(hooks.join(" "))
                .with_tree(Path::new(MKINITCPIO)),
            Self::Mkinitcpio { source, hooks } => {
                let mut key = Key::new()
                    .with("mkinitcpio")
                    .with(hooks.join(" "))
                    .with_tree(Path::new(MKINITCPIO))?;
                for dir in ["install", "hooks"] {
                    key = key.with_tree(&source.join(dir))?;
                }
                for file in ["mkinitcpio", "functions", "init", "init_functions"] {
                    let file = source.join(file);
                    key = key.with(fs::read(&file).at(&file)?);
                }
                Ok(key)
            }
            Self::None => Ok(Key::new().with("none").with(uml::recipe())),
        }
    }

    /// Makes the image in `tree` and moves it to `image`.
    ///
    /// # Errors
    /// The tree cannot be prepared, or the program fails.
    pub fn make(&self, system: &System, tree: Tree, image: &Path, log: &Path) -> Result<()> {
        match self {
            Self::Dracut | Self::DracutWith { .. } | Self::DracutNfs => {
                let (add, more, install) = match self {
                    Self::DracutWith { add, omit, install } => (*add, *omit, *install),
                    Self::DracutNfs => ("nfs", "", ""),
                    _ => ("", "", ""),
                };
                let is_for_nfs = *self == Self::DracutNfs;
                let omit = DRACUT_OMIT
                    .split_ascii_whitespace()
                    .filter(|module| !is_for_nfs || !OF_A_NETWORK.contains(module))
                    .chain([more]);
                let drivers = [DRACUT_DRIVERS, if is_for_nfs { NFS_DRIVERS } else { "" }];
                let tree = tree.with_api_mounts()?;
                let mut command = Command::new("chroot");
                command
                    .arg(tree.root())
                    .arg("dracut")
                    .args(DRACUT_OPTIONS)
                    .args(["--omit", &omit.collect::<Vec<_>>().join(" ")])
                    .args(["--add", add, "--install", install])
                    .args(["--drivers", &drivers.join(" ")])
                    .args(["--kver", &system.kernel_version, IMAGE]);
                command::run(&mut command, log)?;
                take(&tree, image)
            }
            Self::Busybox(hooks) => {
                let dir = tempfile::tempdir().at(Path::new("a temporary directory"))?;
                let mut command = Command::new(format!("{MKINITCPIO}/build"));
                command
                    .arg(tree.root())
                    .arg(&system.kernel_version)
                    .arg(dir.path())
                    .args(*hooks);
                command::run(&mut command, log)?;
                pack(dir.path(), image, log)
            }
            Self::Mkinitcpio { source, hooks } => {
                let tree = tree.with_api_mounts()?;
                let mut command = Command::new(format!("{MKINITCPIO}/real"));
                command
                    .arg(tree.root())
                    .arg(source)
                    .arg(&system.kernel_version)
                    .args(*hooks);
                command::run(&mut command, log)?;
                take(&tree, image)
            }
            Self::None => Ok(()),
        }
    }
}

/// Takes the image out of the tree in which it was made.
fn take(tree: &Tree, image: &Path) -> Result<()> {
    let made = tree.root().join(IMAGE.trim_start_matches('/'));
    fs::copy(&made, image).at(&made).map(drop)
}

/// Adds files to an image as a second archive behind the first: the kernel unpacks one over the other, so that nothing
/// of the image itself is touched.
///
/// # Errors
/// cpio fails, or the image cannot be written.
pub fn append(image: &Path, extras: &[Extra], log: &Path) -> Result<()> {
    let dir = gather(extras)?;
    let archive = tempfile::NamedTempFile::new().at(Path::new("a temporary file"))?;
    pack(dir.path(), archive.path(), log)?;
    let bytes = fs::read(archive.path()).at(archive.path())?;
    let mut file = File::options().append(true).open(image).at(image)?;
    let end = file.seek(SeekFrom::End(0)).at(image)?;
    // An archive begins at a multiple of four (Documentation/driver-api/early-userspace/buffer-format.rst).
    let padding = vec![0; usize::try_from(end.next_multiple_of(4) - end).unwrap_or_default()];
    file.write_all(&padding)
        .and_then(|()| file.write_all(&bytes))
        .at(image)
}

/// Makes an archive of all that is below a directory; root owns it.
fn pack(dir: &Path, archive: &Path, log: &Path) -> Result<()> {
    let mut names = Vec::new();
    list(dir, Path::new(""), &mut names)?;
    let list = tempfile::NamedTempFile::new().at(Path::new("a temporary file"))?;
    fs::write(list.path(), names).at(list.path())?;
    let mut cpio = Command::new("cpio");
    cpio.current_dir(dir)
        .args([
            "--create",
            "--format=newc",
            "--owner=+0:+0",
            "--null",
            "--quiet",
            "--file",
        ])
        .arg(archive);
    command::run_on(list.path(), &mut cpio, log)
}

/// Writes every name below `dir`, parents first, each with a final NUL.
fn list(dir: &Path, below: &Path, names: &mut Vec<u8>) -> Result<()> {
    let here = dir.join(below);
    for entry in fs::read_dir(&here).at(&here)? {
        let entry = entry.at(&here)?;
        let name = below.join(entry.file_name());
        names.extend_from_slice(name.as_os_str().as_bytes());
        names.push(0);
        if entry.file_type().at(&here)?.is_dir() {
            list(dir, &name, names)?;
        }
    }
    Ok(())
}
