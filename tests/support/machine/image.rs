//! A disk and an initramfs, made once for what is on them.

use std::path::{Path, PathBuf};

use super::base;
use super::cache::Cache;
use super::error::Result;
use super::initramfs::{self, Initramfs};
use super::key::Key;
use super::layout::Layout;
use super::neighbour::{self, Share};
use super::suite::{Suite, System};
use super::tree::{Contents, Extra, Product, Tree};

/// Kinds of things in the cache.
const DISKS: &str = "disks";
const INITRAMFS: &str = "initramfs";

/// What a machine starts from. Its name is for people; two images of the same contents are made twice.
#[derive(Debug, Clone)]
pub struct Image {
    /// Name in the cache.
    pub name: String,
    /// The Debian system below it all.
    pub suite: Suite,
    /// What the root file system has beside the suite.
    pub root: Contents,
    /// Where the tree lies.
    pub layout: Layout,
    /// The part of the layout that another machine has.
    pub share: Option<Share>,
    /// Who makes the initramfs.
    pub initramfs: Initramfs,
    /// What the tree in which the initramfs is made has beside the suite: an image may be older than the system.
    pub initramfs_tree: Contents,
    /// Put into the finished initramfs.
    pub initramfs_extras: Vec<Extra>,
    /// Put into the finished root file system, and not seen by who makes the initramfs.
    pub root_extras: Vec<Extra>,
}

/// An image that is made, and what else QEMU needs.
#[derive(Debug, Clone)]
pub struct Made {
    /// The key of all of it.
    pub key: String,
    /// The kernel; `None` for user-mode-linux, which is one.
    pub kernel: Option<PathBuf>,
    /// The initramfs, where there is one.
    pub initramfs: Option<PathBuf>,
    /// The directory of the disks, which are named like their labels.
    pub disks: PathBuf,
    /// The names of those that the machine has itself, the root's first.
    pub names: Vec<&'static str>,
    /// The part that it has not.
    pub share: Option<Share>,
    /// The initramfs of the other machine, where there is one.
    pub server: Option<PathBuf>,
}

impl Image {
    /// Keys of the disk and of the initramfs.
    fn keys(&self, stage: Option<&Path>) -> Result<(String, String)> {
        let of = |contents: &Contents, extras: &[Extra]| -> Result<Key> {
            let key = Key::new()
                .with(self.suite.key())
                .with(contents.key(stage)?.text());
            Ok(base::extras()
                .iter()
                .chain(&base::extension())
                .chain(extras)
                .fold(key, |key, extra| extra.add_to(key)))
        };
        let disk = of(&self.root, &self.root_extras)?.with(self.layout.recipe());
        let initramfs =
            of(&self.initramfs_tree, &self.initramfs_extras)?.with(self.initramfs.recipe()?.text());
        Ok((disk.text(), initramfs.text()))
    }

    /// Whether anything of the product is in it.
    #[must_use]
    pub fn needs_stage(&self) -> bool {
        [&self.root, &self.initramfs_tree]
            .iter()
            .any(|contents| contents.product != Product::Nothing)
    }

    /// Makes what of the image is not in the cache yet.
    ///
    /// # Errors
    /// A tree cannot be made, or a tool fails.
    pub fn make(&self, cache: &Cache, stage: Option<&Path>) -> Result<Made> {
        let system = self.suite.system(cache)?;
        let (disk_key, initramfs_key) = self.keys(stage)?;
        let initramfs = match self.initramfs {
            Initramfs::None => None,
            _ => Some(cache.get(INITRAMFS, &self.name, &initramfs_key, |image| {
                let log = cache.log(INITRAMFS, &self.name)?;
                let tree = mounted(&system, &self.initramfs_tree, &[], stage, &log)?;
                self.initramfs.make(&system, tree, image, &log)?;
                initramfs::append(image, &self.initramfs_extras, &log)
            })?),
        };
        let server = self.server()?;
        let server = server
            .map(|server| server.make(cache, &system))
            .transpose()?;
        let disks = cache.get(DISKS, &self.name, &disk_key, |dir| {
            let log = cache.log(DISKS, &self.name)?;
            let mut tree = mounted(&system, &self.root, &self.root_extras, stage, &log)?;
            self.layout.make(&mut tree, dir, cache, &log)
        })?;
        Ok(Made {
            key: format!("{disk_key}-{initramfs_key}"),
            kernel: (self.initramfs != Initramfs::None).then_some(system.kernel),
            initramfs,
            disks,
            names: self
                .layout
                .disks()
                .filter(|name| self.share.is_none_or(|share| share.label != *name))
                .collect(),
            share: self.share,
            server,
        })
    }

    /// The initramfs of the other machine, where there is one.
    fn server(&self) -> Result<Option<ServerInitramfs>> {
        let access = self.share.and_then(|share| share.server.access());
        access.map(|_| ServerInitramfs::new(self.suite)).transpose()
    }
}

/// What the other machine starts from: made in the suite's tree as it is.
struct ServerInitramfs {
    name: String,
    key: String,
    initramfs: Initramfs,
    tree: Contents,
}

impl ServerInitramfs {
    fn new(suite: Suite) -> Result<Self> {
        let (initramfs, files) = neighbour::initramfs();
        let tree = Contents {
            product: Product::Nothing,
            removed: Vec::new(),
            extras: files.to_vec(),
        };
        let key = Key::new()
            .with(suite.key())
            .with(tree.key(None)?.text())
            .with(initramfs.recipe()?.text());
        Ok(Self {
            name: format!("{suite}-server"),
            key: key.text(),
            initramfs,
            tree,
        })
    }

    fn make(&self, cache: &Cache, system: &System) -> Result<PathBuf> {
        cache.get(INITRAMFS, &self.name, &self.key, |image| {
            let log = cache.log(INITRAMFS, &self.name)?;
            let tree = Tree::mount(system, &self.tree, None, &log)?;
            self.initramfs.make(system, tree, image, &log)
        })
    }
}

/// A tree with the files that every machine has, then its own.
fn mounted(
    system: &System,
    contents: &Contents,
    more: &[Extra],
    stage: Option<&Path>,
    log: &Path,
) -> Result<Tree> {
    let mut all = contents.clone();
    all.extras = [
        base::extras(),
        base::extension(),
        contents.extras.clone(),
        more.to_vec(),
    ]
    .concat();
    Tree::mount(system, &all, stage, log)
}

/// Removes disks and initramfs images that are none of these: the cache holds what the present sources need.
///
/// # Errors
/// Something cannot be removed, or the product's tree cannot be read.
pub fn keep_only(cache: &Cache, images: &[&Image], stage: Option<&Path>) -> Result<()> {
    let (mut disks, mut initramfs) = (Vec::new(), Vec::new());
    for image in images {
        let (disk, initrd) = image.keys(stage)?;
        disks.push(format!("{}-{disk}", image.name));
        initramfs.push(format!("{}-{initrd}", image.name));
        let server = image.server()?;
        initramfs.extend(server.map(|server| format!("{}-{}", server.name, server.key)));
    }
    cache.keep_only(DISKS, &disks)?;
    cache.keep_only(INITRAMFS, &initramfs)
}
