//! Initramfs images, made in a suite's tree by what a system of that kind has.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use super::command;
use super::error::{At, Result};
use super::key::Key;
use super::suite::System;
use super::tree::{Extra, Tree, gather};

/// Who makes the image. A new kind is a variant here and an arm in [`Initramfs::make`] and [`Initramfs::recipe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initramfs {
    /// The suite's own dracut, with systemd.
    Dracut,
}

/// Modules of dracut that none of these machines needs; each costs seconds of an emulated boot.
const DRACUT_OMIT: &str = "plymouth crypt dm dmraid lvm mdraid multipath nvdimm nvmf iscsi nfs cifs network \
    network-manager systemd-networkd i18n kernel-network-modules qemu-net lunmask fips fips-crypto-policies \
    systemd-pcrphase systemd-cryptsetup tpm2-tss pcsc fido2 pkcs11 hwdb bluetooth virtiofs";

/// Drivers of these machines.
const DRACUT_DRIVERS: &str =
    "virtio_pci virtio_blk virtio_console ext4 btrfs erofs overlay loop squashfs";

/// Uncompressed: the emulated machine takes longer to unpack than to read.
const DRACUT_OPTIONS: &[&str] = &[
    "--force",
    "--no-hostonly",
    "--no-hostonly-cmdline",
    "--no-compress",
    "--no-early-microcode",
];

/// Where the image is written, seen from inside the tree.
const IMAGE: &str = "/run/initramfs.img";

impl Initramfs {
    /// Everything that decides how the image is made, for its key.
    #[must_use]
    pub fn recipe(self) -> Key {
        match self {
            Self::Dracut => Key::new()
                .with("dracut")
                .with(DRACUT_OMIT)
                .with(DRACUT_DRIVERS)
                .with(DRACUT_OPTIONS.join(" ")),
        }
    }

    /// Makes the image in `tree` and moves it to `image`.
    ///
    /// # Errors
    /// The tree cannot be prepared, or the program fails.
    pub fn make(self, system: &System, tree: Tree, image: &Path, log: &Path) -> Result<()> {
        let tree = tree.with_api_mounts()?;
        let mut command = Command::new("chroot");
        command.arg(tree.root());
        match self {
            Self::Dracut => command
                .arg("dracut")
                .args(DRACUT_OPTIONS)
                .args(["--omit", DRACUT_OMIT, "--drivers", DRACUT_DRIVERS])
                .args(["--kver", &system.kernel_version, IMAGE]),
        };
        command::run(&mut command, log)?;
        let made = tree.root().join(IMAGE.trim_start_matches('/'));
        fs::copy(&made, image).at(&made).map(drop)
    }
}

/// Adds files to an image as a second archive behind the first: the kernel unpacks one over the other, so that nothing
/// of the image itself is touched.
///
/// # Errors
/// cpio fails, or the image cannot be written.
pub fn append(image: &Path, extras: &[Extra], log: &Path) -> Result<()> {
    let dir = gather(extras)?;
    let mut names = Vec::new();
    list(dir.path(), Path::new(""), &mut names)?;
    let list = tempfile::NamedTempFile::new().at(Path::new("a temporary file"))?;
    fs::write(list.path(), names).at(list.path())?;
    let archive = list.path().with_extension("cpio");
    let mut cpio = Command::new("cpio");
    cpio.current_dir(dir.path())
        .args([
            "--create",
            "--format=newc",
            "--owner=+0:+0",
            "--null",
            "--quiet",
            "--file",
        ])
        .arg(&archive);
    command::run_on(list.path(), &mut cpio, log)?;
    let bytes = fs::read(&archive).at(&archive)?;
    fs::remove_file(&archive).at(&archive)?;
    let mut file = File::options().append(true).open(image).at(image)?;
    let end = file.seek(SeekFrom::End(0)).at(image)?;
    // An archive begins at a multiple of four (Documentation/driver-api/early-userspace/buffer-format.rst).
    let padding = vec![0; usize::try_from(end.next_multiple_of(4) - end).unwrap_or_default()];
    file.write_all(&padding)
        .and_then(|()| file.write_all(&bytes))
        .at(image)
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
