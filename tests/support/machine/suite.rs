//! Debian systems as trees, one per suite, made once by mmdebstrap.

use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{self, Cache};
use super::command;
use super::error::{At, Error, Result};
use super::key::Key;
use super::repository;

/// The kind of thing in the cache.
const KIND: &str = "suites";

/// What every suite has beside the essential packages.
const PACKAGES: &[&str] = &[
    // A system that boots and a person can log in to.
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "libpam-systemd",
    "login",
    "passwd",
    "kmod",
    "mount",
    "util-linux",
    "procps",
    // The kernel for virtual machines: virtio is built in or a module, and it is a fifth of the other one.
    "linux-image-cloud-amd64",
    "dracut",
    "dracut-core",
    // The package manager whose database is locked; Debian packages it.
    "pacman-package-manager",
    // File systems that a case may be put on.
    "e2fsprogs",
    "btrfs-progs",
    "erofs-utils",
    // What an initramfs of another kind is made with.
    "busybox-static",
    "libarchive-tools",
    "zstd",
    // To look for what went wrong.
    "strace",
];

/// What a suite has that no systemd starts, and that comes with a kernel of its own. Without udev, which waits for a minute.
const PACKAGES_OF_OPENRC: &[&str] = &[
    "openrc",
    "sysvinit-core",
    "initscripts",
    "login",
    "passwd",
    "kmod",
    "mount",
    "util-linux",
    "procps",
    "pacman-package-manager",
    "e2fsprogs",
    "libarchive-tools",
    "zstd",
    "strace",
];

/// What a suite has that is no machine: a clean chroot in which packages are built.
const PACKAGES_OF_BUILD: &[&str] = &[
    "pacman-package-manager",
    "makepkg",
    "libarchive-tools",
    "mount",
    "util-linux",
    "zstd",
];

/// Options of dpkg: nobody reads documentation in there, and the image is smaller by a third without.
const DPKG_OPTIONS: &[&str] = &[
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    // SETUP_HOOK puts a file of a package in its place before the package comes.
    "force-confdef",
    "force-confold",
];

/// A hook that does nothing keeps the kernel package from building an initramfs for this machine's hardware.
const SETUP_HOOK: &str = r#"mkdir -p "$1/etc/kernel/postinst.d" &&
    printf '#!/bin/sh\n' >"$1/etc/kernel/postinst.d/dracut" && chmod 755 "$1/etc/kernel/postinst.d/dracut""#;

/// depmod writes the lists without which no module is found; an empty password lets a person log in on the console.
const CUSTOMIZE_HOOK: &str = r#"set -eu
    for modules in "$1"/usr/lib/modules/*; do chroot "$1" depmod "${modules##*/}"; done
    chroot "$1" passwd --quiet --delete root
    rm -f "$1/etc/resolv.conf" "$1"/vmlinuz* "$1"/initrd.img*"#;

/// The same without modules.
const CUSTOMIZE_HOOK_OF_OPENRC: &str = r#"set -eu
    chroot "$1" passwd --quiet --delete root
    rm -f "$1/etc/resolv.conf""#;

/// What is removed in the end: the names of this machine's mirrors, and what no boot reads.
const LEFTOVERS: [&str; 6] = [
    "boot",
    "etc/apt",
    "var/cache/apt",
    "var/cache/debconf",
    "var/lib/apt",
    "var/log/dpkg.log",
];

/// A Debian suite that the tests boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// The oldest systemd that is supported.
    Bookworm,
    /// The stable one.
    Trixie,
    /// The next one, the nearest to Arch.
    Forky,
    /// The stable one with OpenRC in the place of systemd, and without a kernel.
    OpenRc,
    /// The stable one with all that a client of NFS needs, and a server of it.
    Nfs,
    /// The stable one with systemd-boot, and what counts its tries.
    Efi,
    /// The stable one with makepkg, and nothing that starts it.
    Build,
}

/// A suite's tree, finished.
#[derive(Debug, Clone)]
pub struct System {
    /// Name of the tree in the cache, and so its key.
    pub key: String,
    /// The tree. Nobody writes here: what is changed is changed in an overlay.
    pub root: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The kernel's version, as its modules' directory is named.
    pub kernel_version: String,
}

impl Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenRc => f.write_str("openrc"),
            Self::Nfs => f.write_str("nfs"),
            Self::Efi => f.write_str("efi"),
            Self::Build => f.write_str("build"),
            _ => f.write_str(self.name()),
        }
    }
}

impl Suite {
    /// Every suite.
    pub const ALL: [Self; 7] = [
        Self::Bookworm,
        Self::Trixie,
        Self::Forky,
        Self::OpenRc,
        Self::Nfs,
        Self::Efi,
        Self::Build,
    ];

    /// The name that the archive knows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie | Self::OpenRc | Self::Nfs | Self::Efi | Self::Build => "trixie",
            Self::Forky => "forky",
        }
    }

    /// Packages that every suite has which is started alike.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::OpenRc => PACKAGES_OF_OPENRC,
            Self::Build => PACKAGES_OF_BUILD,
            _ => PACKAGES,
        }
    }

    /// Packages that are not everywhere.
    fn more_packages(self) -> &'static [&'static str] {
        match self {
            Self::Bookworm | Self::Trixie | Self::OpenRc | Self::Build => &[],
            // switch_root has moved to util-linux-extra, and systemd-repart has become a package of its own.
            Self::Forky => &["systemd-repart", "util-linux-extra"],
            // The network in an initramfs, and both ends of a share.
            Self::Nfs => &[
                "dracut-network",
                "iproute2",
                "nfs-common",
                "nfs-kernel-server",
            ],
            Self::Efi => &["systemd-boot", "systemd-boot-efi"],
        }
    }

    fn customize_hook(self) -> &'static str {
        match self {
            Self::OpenRc | Self::Build => CUSTOMIZE_HOOK_OF_OPENRC,
            _ => CUSTOMIZE_HOOK,
        }
    }

    /// The key of the suite's tree. Not of the packages' versions: a tree stays until what it is made of changes here.
    #[must_use]
    pub fn key(self) -> String {
        let mut key = Key::new()
            .with(self.name())
            .with(SETUP_HOOK)
            .with(self.customize_hook())
            .with(repository::recipe());
        key = key.with(LEFTOVERS.join("\n"));
        for part in [self.packages(), self.more_packages(), DPKG_OPTIONS] {
            key = key.with(part.join("\n"));
        }
        key.text()
    }

    /// Returns the suite's tree, and makes it where it is not in the cache yet.
    ///
    /// # Errors
    /// mmdebstrap fails, or what it made has no kernel.
    pub fn system(self, cache: &Cache) -> Result<System> {
        let key = self.key();
        let name = self.to_string();
        let dir = cache.get(KIND, &name, &key, |dir| {
            self.make(dir, &cache.log(KIND, &name)?)
        })?;
        let version = dir.join("kernel-version");
        Ok(System {
            key,
            root: dir.join("root"),
            kernel: dir.join("vmlinuz"),
            kernel_version: fs::read_to_string(&version).at(&version)?.trim().to_owned(),
        })
    }

    /// Removes trees that are not made like this any more.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn forget_old(cache: &Cache) -> Result<()> {
        cache.keep_only(
            KIND,
            &Self::ALL.map(|suite| format!("{suite}-{}", suite.key())),
        )
    }

    fn make(self, dir: &Path, log: &Path) -> Result<()> {
        let root = dir.join("root");
        fs::create_dir_all(&root).at(&root)?;
        let mut include = self.packages().to_vec();
        include.extend(self.more_packages());
        let mut mmdebstrap = Command::new("mmdebstrap");
        mmdebstrap
            .args([
                "--mode=root",
                "--variant=essential",
                "--aptopt=APT::Install-Recommends \"false\"",
            ])
            .args(
                acquire_options()?
                    .iter()
                    .map(|option| format!("--aptopt={option}")),
            )
            .args(
                DPKG_OPTIONS
                    .iter()
                    .map(|option| format!("--dpkgopt={option}")),
            )
            .arg(format!("--setup-hook={SETUP_HOOK}"))
            .arg(format!("--customize-hook={}", self.customize_hook()))
            .arg(format!("--include={}", include.join(",")))
            .arg(self.name())
            .arg(&root)
            .arg(mirror()?);
        command::run(&mut mmdebstrap, log)?;
        repository::install(&root, log)?;
        match self {
            Self::OpenRc | Self::Build => fs::write(dir.join("kernel-version"), "").at(dir)?,
            _ => keep_kernel(dir, &root)?,
        }
        LEFTOVERS
            .iter()
            .try_for_each(|path| cache::remove(&root.join(path)))
    }
}

/// Copies the kernel out of the tree to `dir/vmlinuz`, and notes its version.
fn keep_kernel(dir: &Path, root: &Path) -> Result<()> {
    let boot = root.join("boot");
    for entry in fs::read_dir(&boot).at(&boot)? {
        let path = entry.at(&boot)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some(version) = name.strip_prefix("vmlinuz-") {
            let (file, note) = (dir.join("vmlinuz"), dir.join("kernel-version"));
            fs::copy(&path, &file).at(&file)?;
            return fs::write(&note, version).at(&note);
        }
    }
    Err(Error::new(format!(
        "{}: no vmlinuz-VERSION; the kernel package has changed",
        boot.display()
    )))
}

/// Returns the mirror that this machine's apt has for Debian itself.
fn mirror() -> Result<String> {
    let targets = command::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]))?;
    let codename = fs::read_to_string("/etc/os-release")
        .at(Path::new("/etc/os-release"))?
        .lines()
        .find_map(|line| {
            Some(
                line.strip_prefix("VERSION_CODENAME=")?
                    .trim_matches('"')
                    .to_owned(),
            )
        })
        .unwrap_or_default();
    targets
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find_map(|words| match words[..] {
            // A machine that follows stable or sid names the suite, not the codename.
            [uri, release, "main"] if [&codename, "stable", "testing", "unstable", "sid"].contains(&release) => {
                Some(uri.to_owned())
            }
            _ => None,
        })
        .ok_or_else(|| {
            Error::new(format!(
                "apt has no source for Debian {codename} main; add one to /etc/apt/sources.list.d (see sources.list(5))"
            ))
        })
}

/// Returns how this machine's apt reaches its mirrors (proxies, retries, checks of dates), as lines of apt.conf(5):
/// mmdebstrap runs an apt that knows nothing of it.
fn acquire_options() -> Result<Vec<String>> {
    let wanted = ["Acquire::Check-", "Acquire::Retries", "Acquire::http"];
    Ok(command::output(Command::new("apt-config").arg("dump"))?
        .lines()
        .filter(|line| {
            wanted.iter().any(|prefix| line.starts_with(prefix)) && !line.ends_with(" \"\";")
        })
        .map(str::to_owned)
        .collect())
}
