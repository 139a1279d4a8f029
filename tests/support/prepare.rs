//! What boots and people do to a [`System`], done here in a moment.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};

use crate::system::{System, installed};

/// What the policy mounts over `/var/tmp`.
pub const VAR_TMP: &str = "mode=1777,size=25%,nosuid,nodev";

/// What the policy mounts over the package cache.
pub const CACHE: &str = "mode=0755,size=25%,nosuid,nodev,noexec";

/// Does what a boot does: `/usr` and the package database are closed, the rest is in memory.
///
/// # Panics
/// Where that cannot be done.
pub fn close(system: &System) {
    assert_eq!(system.early().0, 0);
    lock(system);
    system.pretend_to_follow();
    in_memory(system, "/var/tmp", VAR_TMP);
    in_memory(system, "/var/cache/pacman", CACHE);
}

/// Runs sync.
///
/// # Panics
/// Where it fails.
pub fn lock(system: &System) {
    let (exit, log) = system.generator(&["sync"]);
    assert_eq!(exit, 0, "{log}");
}

/// Mounts a tmpfs, as the unit of a rule does.
///
/// # Panics
/// Where that cannot be done.
pub fn in_memory(system: &System, path: &str, options: &str) {
    system.does(&["mount", "-t", "tmpfs", "-o", options, "tmpfs", path]);
}

/// Gives `/usr` a file system of its own, writable.
///
/// # Panics
/// Where that cannot be done.
pub fn usr_of_its_own(system: &System) {
    let base = system.base();
    for name in ["usr-upper", "usr-work"] {
        fs::create_dir_all(base.join(name)).unwrap();
    }
    let options = format!(
        "lowerdir={}:/usr,upperdir={base}/usr-upper,workdir={base}/usr-work",
        installed().join("usr").display(),
        base = base.display()
    );
    mount(
        Some("usr"),
        &system.path("/usr"),
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
}

/// Mounts what systemd-sysext(8) mounts over `/usr`; with a name, it has a writable layer.
///
/// # Panics
/// Where that cannot be done.
pub fn merge(system: &System, writable_layer: Option<&str>) {
    let base = system.base();
    let extension = base.join("extension");
    let mark = extension.join(".systemd-sysext");
    fs::create_dir_all(&mark).unwrap();
    let mut options = format!(
        "lowerdir={}:{}",
        extension.display(),
        system.path("/usr").display()
    );
    if let Some(name) = writable_layer {
        for directory in [name, "extension-work"] {
            fs::create_dir_all(base.join(directory)).unwrap();
        }
        options += &format!(
            ",upperdir={base}/{name},workdir={base}/extension-work",
            base = base.display()
        );
    }
    // Nobody may see it before it has its mark: systemd-sysext(8) moves it there, too.
    let ready = base.join("extension-ready");
    fs::create_dir_all(&ready).unwrap();
    mount(
        Some("sysext"),
        &ready,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
    let device = nix::sys::stat::stat(&ready).unwrap().st_dev;
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    fs::write(mark.join("dev"), format!("{major}:{minor}\n")).unwrap();
    let usr = system.path("/usr");
    let moved = MsFlags::MS_MOVE;
    mount(Some(&ready), &usr, None::<&str>, moved, None::<&str>).unwrap();
    assert!(usr.join(".systemd-sysext/dev").exists());
}

/// A file system that cannot be written.
#[derive(Debug, Clone, Copy)]
pub enum Image {
    /// erofs
    Erofs,
    /// squashfs
    Squashfs,
}

impl Image {
    /// Its type, as the mount table has it.
    #[must_use]
    pub fn fs_type(self) -> &'static str {
        match self {
            Image::Erofs => "erofs",
            Image::Squashfs => "squashfs",
        }
    }

    /// Whether the kernel knows it, and there are loop devices.
    #[must_use]
    pub fn can_be_mounted(self) -> bool {
        let known = fs::read_to_string("/proc/filesystems").unwrap();
        let is_known = known
            .lines()
            .any(|line| line.trim_start() == self.fs_type());
        is_known && Path::new("/dev/loop-control").exists()
    }

    /// Mounts one over `/usr`, with nothing in it but the installed tree.
    ///
    /// # Panics
    /// Where that cannot be done.
    pub fn over_usr(self, system: &System) {
        let image = system.base().join("usr-image");
        let tree = installed().join("usr");
        let mut make = match self {
            Image::Erofs => {
                let mut make = Command::new("mkfs.erofs");
                make.arg("--quiet").arg(&image).arg(&tree);
                make
            }
            Image::Squashfs => {
                let mut make = Command::new("mksquashfs");
                make.arg(&tree).arg(&image).arg("-quiet");
                make
            }
        };
        let made = make.output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let mounted = Command::new("mount")
            .args(["-t", self.fs_type(), "-o", "loop,ro"])
            .arg(&image)
            .arg(system.path("/usr"))
            .output()
            .unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
    }
}
