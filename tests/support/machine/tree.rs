//! A suite's tree with more in it: copy-on-write, so that a hundred cases share one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use super::command;
use super::error::{At, Error, Result};
use super::key::Key;
use super::suite::System;

/// Something that is put into a tree; it replaces what is there. Owner is root, time is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    path: String,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    File { mode: u32, bytes: Vec<u8> },
    Link { target: String },
    Directory { mode: u32 },
}

impl Extra {
    /// A file that everybody may read.
    #[must_use]
    pub fn file(path: &str, text: &str) -> Self {
        Self::new(
            path,
            What::File {
                mode: 0o644,
                bytes: text.as_bytes().to_vec(),
            },
        )
    }

    /// A program.
    #[must_use]
    pub fn program(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(
            path,
            What::File {
                mode: 0o755,
                bytes: bytes.into(),
            },
        )
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(path: &str, target: &str) -> Self {
        Self::new(
            path,
            What::Link {
                target: target.to_owned(),
            },
        )
    }

    /// A directory, empty if it is new.
    #[must_use]
    pub fn directory(path: &str, mode: u32) -> Self {
        Self::new(path, What::Directory { mode })
    }

    /// A unit of systemd, and the link that has a target start it.
    #[must_use]
    pub fn unit(wanted_by: &str, name: &str, text: &str) -> [Self; 2] {
        let dir = "/etc/systemd/system";
        [
            Self::file(&format!("{dir}/{name}"), text),
            Self::link(
                &format!("{dir}/{wanted_by}.wants/{name}"),
                &format!("../{name}"),
            ),
        ]
    }

    fn new(path: &str, what: What) -> Self {
        Self {
            path: path.trim_start_matches('/').to_owned(),
            what,
        }
    }

    /// Adds it to a key.
    #[must_use]
    pub fn add_to(&self, key: Key) -> Key {
        let key = key.with(&self.path);
        match &self.what {
            What::File { mode, bytes } => key.with(mode.to_le_bytes()).with(bytes),
            What::Link { target } => key.with("link").with(target),
            What::Directory { mode } => key.with("directory").with(mode.to_le_bytes()),
        }
    }

    /// Makes it below a directory that holds nothing else of interest: links in the path are followed.
    fn make_below(&self, dir: &Path) -> Result<()> {
        let path = dir.join(&self.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).at(parent)?;
        }
        let mode = match &self.what {
            What::Link { target } => return symlink(target, &path).at(&path),
            What::File { mode, bytes } => {
                fs::write(&path, bytes).at(&path)?;
                *mode
            }
            What::Directory { mode } => {
                fs::create_dir_all(&path).at(&path)?;
                *mode
            }
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).at(&path)
    }
}

/// Makes every one of them below a new temporary directory.
///
/// # Errors
/// A file cannot be written, or two have one path.
pub fn gather(extras: &[Extra]) -> Result<TempDir> {
    let dir = tempfile::tempdir().at(Path::new("a temporary directory"))?;
    extras
        .iter()
        .try_for_each(|extra| extra.make_below(dir.path()))?;
    Ok(dir)
}

/// What of the product is in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Product {
    /// Nothing of it.
    Nothing,
    /// What `make install` has put below the stage directory, less these paths.
    Stage {
        /// Absolute paths that are left out, with all below them.
        without: Vec<String>,
    },
}

/// What a tree has beside its suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The product, put in first.
    pub product: Product,
    /// Absolute paths that are removed next.
    pub removed: Vec<String>,
    /// What is put in last.
    pub extras: Vec<Extra>,
}

impl Contents {
    /// A key of these contents. `stage` is what [`Product::Stage`] stands for.
    ///
    /// # Errors
    /// The stage cannot be read, or is needed and not there.
    pub fn key(&self, stage: Option<&Path>) -> Result<Key> {
        let mut key = Key::new();
        key = match &self.product {
            Product::Nothing => key.with("nothing"),
            Product::Stage { without } => key.with_tree(needed(stage)?)?.with(without.join("\n")),
        };
        key = key.with(self.removed.join("\n"));
        Ok(self.extras.iter().fold(key, |key, extra| extra.add_to(key)))
    }
}

fn needed(stage: Option<&Path>) -> Result<&Path> {
    stage.ok_or_else(|| {
        Error::new("USR_POLICY_STAGE is not set: run `make try`, `make boot CASE=…` or `make boots`, which install the product there")
    })
}

/// A mounted tree. Dropping it unmounts it; a killed process leaves nothing either
/// ([`super::namespace::enter_private_mounts`]).
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    mounted: Vec<PathBuf>,
    // After the mounts in it: fields are dropped in this order, and Drop::drop comes before them all.
    _dir: TempDir,
}

impl Tree {
    /// Mounts a suite's tree with these contents; what is written there is gone with it.
    ///
    /// # Errors
    /// A mount, tar or rm fails.
    pub fn mount(
        system: &System,
        contents: &Contents,
        stage: Option<&Path>,
        log: &Path,
    ) -> Result<Self> {
        let dir = tempfile::tempdir().at(Path::new("a temporary directory"))?;
        let root = dir.path().join("root");
        let mut tree = Self {
            root: root.clone(),
            mounted: Vec::new(),
            _dir: dir,
        };
        let writes = root.with_file_name("writes");
        for dir in [&root, &writes] {
            fs::create_dir(dir).at(dir)?;
        }
        tree.mount_at(
            &writes,
            Some("tmpfs"),
            "tmpfs",
            MsFlags::empty(),
            Some("mode=0755"),
        )?;
        let (upper, work) = (writes.join("upper"), writes.join("work"));
        for dir in [&upper, &work] {
            fs::create_dir(dir).at(dir)?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            system.root.display(),
            upper.display(),
            work.display()
        );
        tree.mount_at(
            &root,
            Some("overlay"),
            "overlay",
            MsFlags::empty(),
            Some(&options),
        )?;
        tree.fill(contents, stage, log)?;
        Ok(tree)
    }

    /// Where the tree is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Gives the tree what a program in it needs: /proc, /sys, /dev and empty places for what it writes by the way.
    ///
    /// # Errors
    /// A mount fails.
    pub fn with_api_mounts(mut self) -> Result<Self> {
        for name in ["proc", "sys", "dev"] {
            let (there, here) = (self.root.join(name), format!("/{name}"));
            self.mount_at(
                &there,
                None,
                &here,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None,
            )?;
        }
        for name in ["run", "tmp", "var/tmp"] {
            let there = self.root.join(name);
            self.mount_at(&there, Some("tmpfs"), "tmpfs", MsFlags::empty(), None)?;
        }
        Ok(self)
    }

    /// Puts an empty directory over one of the tree, so that a disk made of it has nothing there.
    ///
    /// # Errors
    /// A mount fails.
    pub fn hide(&mut self, path: &str) -> Result<()> {
        let there = self.root.join(path.trim_start_matches('/'));
        self.mount_at(
            &there,
            Some("tmpfs"),
            "tmpfs",
            MsFlags::empty(),
            Some("mode=0755"),
        )
    }

    /// Shows something else of this machine at a path of the tree: a directory, which is made, or a file that is there.
    ///
    /// # Errors
    /// A mount fails.
    pub fn bind(&mut self, from: &Path, there: &Path) -> Result<()> {
        if from.is_dir() {
            fs::create_dir_all(there).at(there)?;
        }
        mount(
            Some(from),
            there,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .at(there)?;
        self.mounted.push(there.to_owned());
        Ok(())
    }

    fn mount_at(
        &mut self,
        at: &Path,
        fs: Option<&str>,
        from: &str,
        how: MsFlags,
        data: Option<&str>,
    ) -> Result<()> {
        mount(Some(from), at, fs, how, data).at(at)?;
        self.mounted.push(at.to_owned());
        Ok(())
    }

    fn fill(&self, contents: &Contents, stage: Option<&Path>, log: &Path) -> Result<()> {
        if let Product::Stage { without } = &contents.product {
            self.add(needed(stage)?, without, log)?;
        }
        if !contents.removed.is_empty() {
            // In the tree, so that a link there never leads to a file of this machine.
            let mut rm = Command::new("chroot");
            rm.arg(&self.root)
                .args(["rm", "-rf", "--"])
                .args(&contents.removed);
            command::run(&mut rm, log)?;
        }
        let extras = gather(&contents.extras)?;
        self.add(extras.path(), &[], log)
    }

    /// Copies a directory into the tree, and follows the tree's own links to directories: `/lib` stays a link.
    fn add(&self, from: &Path, without: &[String], log: &Path) -> Result<()> {
        let archive = tempfile::NamedTempFile::new().at(Path::new("a temporary file"))?;
        let mut create = Command::new("tar");
        create
            .args([
                "--create",
                "--owner=0",
                "--group=0",
                "--anchored",
                "--no-wildcards",
            ])
            .args(without.iter().map(|path| format!("--exclude=.{path}")))
            .arg("--file")
            .arg(archive.path())
            .arg("-C")
            .arg(from)
            .arg(".");
        command::run(&mut create, log)?;
        let mut extract = Command::new("chroot");
        extract.arg(&self.root).args([
            "tar",
            "--extract",
            "--keep-directory-symlink",
            "--no-overwrite-dir",
            "-C",
            "/",
        ]);
        command::run_on(archive.path(), &mut extract, log)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for path in self.mounted.iter().rev() {
            // Detached: a program that was stopped may still be there. What fails here goes with the namespace.
            let _ = umount2(path, MntFlags::MNT_DETACH);
        }
    }
}
