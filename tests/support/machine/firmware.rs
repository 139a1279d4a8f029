//! A machine that UEFI starts: firmware with a memory, and a disk with a boot loader that counts tries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command;
use super::disk;
use super::error::{At, Error, Result};
use super::image::Made;
use super::qemu::Qemu;
use super::suite::System;

/// Debian's build of OVMF: the program, and an empty memory for it.
const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// systemd-boot, in a suite's tree.
const BOOT_LOADER: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// Where firmware looks on a disk that it has no entry for.
const DEFAULT_PATH: &str = "::/EFI/BOOT/BOOTX64.EFI";

/// Size of the disk: a kernel, an initramfs, and room.
const SIZE: u64 = 128 << 20;

/// Where its only partition begins.
const OFFSET: u64 = 1 << 20;

/// One partition, of the type by which firmware and systemd know it.
const TABLE: &str = "label: gpt\nstart=2048, type=uefi, name=ESP\n";

/// The label of its file system, for fstab.
pub const LABEL: &str = "ESP";

/// An entry of the boot loader: the name of its file, and words for the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// With the tries that it has left, `NAME+TRIES.conf`. Of two without a sort key systemd-boot prefers the later name.
    pub name: &'static str,
    /// As [`super::Boot::words`].
    pub words: &'static str,
}

/// Firmware and the disk that it starts from. Both keep what is written to them.
#[derive(Debug)]
pub struct Firmware {
    dir: PathBuf,
}

impl Firmware {
    /// Makes both in an empty directory.
    ///
    /// # Errors
    /// A tool fails or is missing.
    pub fn new(
        dir: &Path,
        system: &System,
        made: &Made,
        entries: &[Entry],
        log: &Path,
    ) -> Result<Self> {
        let firmware = Self {
            dir: dir.to_owned(),
        };
        let missing = |error: std::io::Error| {
            Error::new(format!(
                "{VARIABLES}: {error}; tests/requirements boot installs what is needed"
            ))
        };
        fs::copy(VARIABLES, firmware.variables()).map_err(missing)?;
        let image = firmware.disk();
        disk::empty(&image, SIZE)?;
        let table = dir.join("table");
        fs::write(&table, TABLE).at(&table)?;
        // Debian has them where only root looks.
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut sfdisk = Command::new("sfdisk");
        sfdisk.env("PATH", path).arg("--quiet").arg(&image);
        command::run_on(&table, &mut sfdisk, log)?;
        let mut mkfs = Command::new("mkfs.vfat");
        mkfs.env("PATH", path).args(["-F", "32", "-n", LABEL]);
        // Up to the second table, which is at the end.
        mkfs.arg(format!("--offset={}", OFFSET / 512)).arg(&image);
        let blocks = (SIZE - 2 * OFFSET) >> 10;
        command::run(mkfs.arg(blocks.to_string()), log)?;

        firmware.tool(
            "mmd",
            ["::/EFI", "::/EFI/BOOT", "::/loader", "::/loader/entries"],
            log,
        )?;
        let (Some(kernel), Some(initramfs)) = (&made.kernel, &made.initramfs) else {
            return Err(Error::new(
                "a machine that UEFI starts needs a kernel and an initramfs",
            ));
        };
        firmware.copy(&system.root.join(BOOT_LOADER), DEFAULT_PATH, log)?;
        firmware.copy(kernel, "::/vmlinuz", log)?;
        firmware.copy(initramfs, "::/initrd", log)?;
        for entry in entries {
            let file = dir.join(entry.name);
            let words = Qemu::command_line(entry.words);
            let text = format!(
                "title {}\nlinux /vmlinuz\ninitrd /initrd\noptions {words}\n",
                entry.name
            );
            fs::write(&file, text).at(&file)?;
            firmware.copy(&file, &format!("::/loader/entries/{}", entry.name), log)?;
        }
        Ok(firmware)
    }

    /// The names of the boot loader's entries as they are now, sorted: with the tries that each has left, and those that failed.
    ///
    /// # Errors
    /// mtools fail.
    pub fn entries(&self) -> Result<Vec<String>> {
        let mut mdir = Command::new("mdir");
        mdir.args(["-b", "-i", &self.partition(), "::/loader/entries"]);
        let listed = command::output(&mut mdir)?;
        let names = listed.lines().filter_map(|line| line.rsplit_once('/'));
        let mut names: Vec<String> = names.map(|(_, name)| name.trim().to_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// The words for QEMU.
    pub(super) fn arguments(&self) -> Vec<String> {
        let file = |path: &Path| path.display().to_string().replace(',', ",,");
        vec![
            "-drive".to_owned(),
            format!("if=pflash,unit=0,format=raw,readonly=on,file={CODE}"),
            "-drive".to_owned(),
            format!(
                "if=pflash,unit=1,format=raw,file={}",
                file(&self.variables())
            ),
            "-drive".to_owned(),
            format!("id=esp,file={},format=raw,if=none", file(&self.disk())),
            "-device".to_owned(),
            "virtio-blk-pci,drive=esp,serial=esp,bootindex=1".to_owned(),
        ]
    }

    fn copy(&self, from: &Path, to: &str, log: &Path) -> Result<()> {
        let from = from.display().to_string();
        self.tool("mcopy", [&from, to], log)
    }

    fn tool<'a>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = &'a str>,
        log: &Path,
    ) -> Result<()> {
        let mut command = Command::new(program);
        command.args(["-i", &self.partition()]).args(arguments);
        command::run(&mut command, log)
    }

    /// The partition, as mtools name it.
    fn partition(&self) -> String {
        format!("{}@@{OFFSET}", self.disk().display())
    }

    fn disk(&self) -> PathBuf {
        self.dir.join("esp")
    }

    fn variables(&self) -> PathBuf {
        self.dir.join("variables")
    }
}
