//! Finds a block device without udev: by what the kernel shows in /sys, and by the first bytes of the devices.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use usr_policy_plan::partition_table::{self, Table};
use usr_policy_plan::pre_init::Source;
use usr_policy_plan::superblock::{self, Superblock};

use crate::failure::Failure;
use crate::root::Root;

/// A link for each block device. Source: sysfs(5).
const CLASS: &str = "/sys/class/block";

/// Looks for a device once; `None` where it is not there, or not yet.
///
/// # Errors
/// More than one device fits, or the kernel's, where /sys is not mounted.
pub fn find(root: &Root, source: &Source) -> Result<Option<PathBuf>, Failure> {
    if let Source::Node(path) = source {
        return Ok(existing(Path::new(OsStr::from_bytes(path))));
    }
    let blocks = blocks(root)?;
    let mut found = blocks
        .iter()
        .filter(|block| block.is(source, &blocks))
        .filter_map(|block| existing(&node(&block.name)));
    let (first, second) = (found.next(), found.next());
    match (first, second) {
        (Some(first), Some(second)) => Err(Failure::new(
            &first,
            "cannot be told from another device",
            io::Error::other(format!("{} has the same mark", second.display())),
        )
        .with_remedy("write the name of the right one, such as /dev/sda2, or its PARTUUID=")),
        (first, _) => Ok(first),
    }
}

/// Tells which file system is on a device.
///
/// # Errors
/// The kernel's.
pub fn superblock(device: &Path) -> io::Result<Option<Superblock>> {
    start_of(device, superblock::WANTED).map(|start| Superblock::read(&start))
}

struct Block {
    /// Its name in [`CLASS`].
    name: OsString,
    /// The disk that it is a partition of, and its number there.
    partition: Option<(OsString, u32)>,
}

fn blocks(root: &Root) -> Result<Vec<Block>, Failure> {
    let names = root.names(CLASS)?;
    let block = |name: OsString| {
        let partition = attribute(&name, "partition").and_then(|number| {
            Some((disk_of(&name)?, str::from_utf8(&number).ok()?.parse().ok()?))
        });
        Block { name, partition }
    };
    Ok(names.into_iter().map(block).collect())
}

/// A partition's directory lies in its disk's.
fn disk_of(name: &OsStr) -> Option<OsString> {
    let target = fs::read_link(Path::new(CLASS).join(name)).ok()?;
    Some(target.parent()?.file_name()?.to_owned())
}

fn attribute(name: &OsStr, attribute: &str) -> Option<Vec<u8>> {
    let text = fs::read(Path::new(CLASS).join(name).join(attribute)).ok()?;
    Some(text.trim_ascii_end().to_owned())
}

/// A slash in the name of a device is an exclamation mark in /sys.
fn node(name: &OsStr) -> PathBuf {
    let slash = |&byte: &u8| if byte == b'!' { b'/' } else { byte };
    let name: Vec<u8> = name.as_bytes().iter().map(slash).collect();
    Path::new("/dev").join(OsStr::from_bytes(&name))
}

impl Block {
    fn is(&self, source: &Source, blocks: &[Block]) -> bool {
        match source {
            Source::Mapper(wanted) => {
                attribute(&self.name, "dm/name").is_some_and(|name| name == *wanted)
            }
            _ if source.is_of_file_system() => {
                self.may_hold_file_system(blocks)
                    && superblock(&node(&self.name))
                        .ok()
                        .flatten()
                        .is_some_and(|superblock| source.is_file_system(&superblock))
            }
            _ => self
                .partition_entry()
                .is_some_and(|partition| source.is_partition(&partition)),
        }
    }

    /// A disk with partitions can still show an older file system of its own; a device that another one is built on, a
    /// mirror for instance, the file system of that.
    fn may_hold_file_system(&self, blocks: &[Block]) -> bool {
        let is_this = |(disk, _): &(OsString, u32)| *disk == self.name;
        let is_divided = blocks
            .iter()
            .any(|block| block.partition.as_ref().is_some_and(is_this));
        let is_held = fs::read_dir(Path::new(CLASS).join(&self.name).join("holders"))
            .is_ok_and(|mut holders| holders.next().is_some());
        let is_empty = attribute(&self.name, "size").is_none_or(|size| size == b"0");
        // To open a drive closes its tray, or waits for a floppy disk that is not there.
        let is_drive = ["fd", "sr"]
            .iter()
            .any(|drive| self.name.as_bytes().starts_with(drive.as_bytes()));
        !is_divided && !is_held && !is_empty && !is_drive
    }

    fn partition_entry(&self) -> Option<partition_table::Partition> {
        let (disk, number) = self.partition.as_ref()?;
        // A disk that cannot be read has no partition to be found.
        let start = start_of(&node(disk), partition_table::WANTED).ok()?;
        Table::read(&start)?.partition(*number)
    }
}

fn existing(path: &Path) -> Option<PathBuf> {
    path.exists().then(|| path.to_owned())
}

fn start_of(device: &Path, length: usize) -> io::Result<Vec<u8>> {
    let device = File::open(device)?;
    let mut start = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = start.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&device, rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    start.truncate(filled);
    Ok(start)
}
