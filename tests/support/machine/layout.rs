//! Where a machine's tree lies: in one file system or in several, each on a whole disk of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::base::ROOT_LABEL;
use super::cache::Cache;
use super::command;
use super::disk::{self, SIZE};
use super::error::{At, Result};
use super::key::Key;
use super::suite::Suite;
use super::tree::{Contents, Product, Tree};

/// The file systems of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// That of `/`.
    pub root: Format,
    /// The others. The machine's fstab or its kernel command line must say where they go.
    pub parts: Vec<Part>,
}

/// A file system that holds one directory of the tree; the directory that it is mounted on is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The directory.
    pub path: &'static str,
    /// The label, and the name of the disk: `/dev/disk/by-id/virtio-LABEL`.
    pub label: &'static str,
    /// What kind it is.
    pub format: Format,
}

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// ext4.
    Ext4,
    /// btrfs with these subvolumes.
    Btrfs(&'static [Subvolume]),
    /// erofs, which has no label here.
    Erofs,
    /// squashfs, which has no label anywhere.
    Squashfs,
}

/// A subvolume of btrfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subvolume {
    /// Its path from the top of the file system: `@usr`, or below the one that holds `/`.
    pub name: &'static str,
    /// The directory of the tree that it holds.
    pub holds: &'static str,
    /// What its property lets a writer do, whatever the flags of its mount are.
    pub access: Access,
}

/// Whether a subvolume takes writes: btrfs-subvolume(8), "SUBVOLUME FLAGS".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It does.
    ReadWrite,
    /// It does not.
    ReadOnly,
}

/// The suite whose btrfs-progs make subvolumes: bookworm's cannot.
const MAKES_BTRFS: Suite = Suite::Trixie;

impl Layout {
    /// One ext4 file system.
    #[must_use]
    pub fn whole() -> Self {
        Self::of(Format::Ext4, [])
    }

    /// A root and other parts.
    #[must_use]
    pub fn of(root: Format, parts: impl IntoIterator<Item = Part>) -> Self {
        Self {
            root,
            parts: parts.into_iter().collect(),
        }
    }

    /// Everything that decides how the disks are made, for their key.
    #[must_use]
    pub fn recipe(&self) -> String {
        let key = Key::new().with(disk::recipe()).with(format!("{self:?}"));
        key.with(include_str!("layout.rs")).text()
    }

    /// The name of every disk, the root's first.
    pub fn disks(&self) -> impl Iterator<Item = &'static str> {
        [ROOT_LABEL]
            .into_iter()
            .chain(self.parts.iter().map(|part| part.label))
    }

    /// Makes `DIR/LABEL` of a tree for every disk. What the tree has where a part is mounted is hidden there.
    ///
    /// # Errors
    /// A tool or a mount fails.
    pub fn make(&self, tree: &mut Tree, dir: &Path, cache: &Cache, log: &Path) -> Result<()> {
        fs::create_dir(dir).at(dir)?;
        let mut parts = self.parts.clone();
        // The innermost first: what is around it then has an empty directory there.
        parts.sort_by_key(|part| std::cmp::Reverse(part.path.len()));
        for part in parts {
            let from = tree.root().join(part.path.trim_start_matches('/'));
            let image = dir.join(part.label);
            match part.format {
                Format::Ext4 => disk::ext4(&from, part.label, &image, log)?,
                Format::Btrfs(subvolumes) => {
                    btrfs(&from, subvolumes, part.label, &image, cache, log)?;
                }
                Format::Erofs => {
                    let mut mkfs = Command::new("mkfs.erofs");
                    command::run(mkfs.arg(&image).arg(&from), log)?;
                }
                Format::Squashfs => {
                    let mut mksquashfs = Command::new("mksquashfs");
                    mksquashfs.arg(&from).arg(&image);
                    // Uncompressed: it is read once.
                    mksquashfs.args(["-noappend", "-no-progress", "-noI", "-noD", "-noF", "-noX"]);
                    command::run(&mut mksquashfs, log)?;
                }
            }
            tree.hide(part.path)?;
        }
        let image = dir.join(ROOT_LABEL);
        match self.root {
            Format::Btrfs(subvolumes) => {
                btrfs(tree.root(), subvolumes, ROOT_LABEL, &image, cache, log)
            }
            _ => disk::ext4(tree.root(), ROOT_LABEL, &image, log),
        }
    }
}

/// Makes a btrfs file system that holds a tree, in a throw-away system that can.
fn btrfs(
    from: &Path,
    subvolumes: &[Subvolume],
    label: &str,
    image: &Path,
    cache: &Cache,
    log: &Path,
) -> Result<()> {
    let nothing = Contents {
        product: Product::Nothing,
        removed: Vec::new(),
        extras: Vec::new(),
    };
    let mut system =
        Tree::mount(&MAKES_BTRFS.system(cache)?, &nothing, None, log)?.with_api_mounts()?;
    let inside = system.root().join("mnt");
    system.hide("/mnt")?;
    let whole = subvolumes.iter().find(|subvolume| subvolume.holds == "/");
    let root = whole.map_or("", |subvolume| subvolume.name);
    system.bind(from, &inside.join(root))?;
    for subvolume in subvolumes.iter().filter(|other| other.holds != "/") {
        let held = subvolume.holds.trim_start_matches('/');
        // One inside another has its contents already.
        if Path::new(subvolume.name) != Path::new(root).join(held) {
            system.bind(&from.join(held), &inside.join(subvolume.name))?;
            system.hide(&format!("/mnt/{root}/{held}"))?;
        }
    }
    disk::empty(image, SIZE)?;
    let target = system.root().join("run/disk");
    fs::write(&target, "").at(&target)?;
    system.bind(image, &target)?;
    let mut mkfs = Command::new("chroot");
    mkfs.arg(system.root())
        .args(["mkfs.btrfs", "-q", "-f", "--label", label])
        .args(["--rootdir", "/mnt"])
        .args(subvolumes.iter().map(|subvolume| match subvolume.access {
            Access::ReadWrite => format!("--subvol=rw:{}", subvolume.name),
            Access::ReadOnly => format!("--subvol=ro:{}", subvolume.name),
        }))
        .arg("/run/disk");
    command::run(&mut mkfs, log)
}
