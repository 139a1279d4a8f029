//! Finds a block device without udev: by what the kernel shows in /sys, and by the first bytes of the devices.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use usr_policy_plan::partition_table::{self, Table};
use usr_policy_plan::pre_init::Source;
use usr_policy_plan::superblock::{self, Superblock};

use crate::failure::Failure;

/// A link for each block device. Source: sysfs(5).
const CLASS: &str = "/sys/class/block";

/// Looks for a device once; `None` where it is not there, or not yet.
///
/// # Errors
/// More than one device fits, or the kernel's, where /sys is not mounted.
pub fn find(source: &Source) -> Result<Option<PathBuf>, Failure> {
    let path = match source {
        Source::Node(path) => return Ok(existing(Path::new(OsStr::from_bytes(path)))),
        Source::Share { .. } => return Ok(None),
        Source::Mapper(_) | Source::Tagged(..) => CLASS,
    };
    let fail = |error| Failure::new(path, "cannot read", error);
    let blocks = blocks().map_err(fail)?;
    let mut found = blocks
        .iter()
        .filter(|block| block.is(source, &blocks))
        .filter_map(|block| existing(&block.node()));
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
    name: String,
    /// The disk that it is a partition of, and its number there.
    partition: Option<(String, u32)>,
}

fn blocks() -> io::Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for entry in fs::read_dir(CLASS)? {
        // The kernel's names are ASCII.
        if let Ok(name) = entry?.file_name().into_string() {
            let partition = attribute(&name, "partition")
                .and_then(|number| Some((disk_of(&name)?, number.parse().ok()?)));
            blocks.push(Block { name, partition });
        }
    }
    Ok(blocks)
}

/// A partition's directory lies in its disk's.
fn disk_of(name: &str) -> Option<String> {
    let target = fs::read_link(Path::new(CLASS).join(name)).ok()?;
    Some(target.parent()?.file_name()?.to_str()?.to_owned())
}

fn attribute(name: &str, attribute: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new(CLASS).join(name).join(attribute)).ok()?;
    Some(text.trim_ascii_end().to_owned())
}

impl Block {
    /// A slash in the name of a device is an exclamation mark in /sys.
    fn node(&self) -> PathBuf {
        Path::new("/dev").join(self.name.replace('!', "/"))
    }

    fn is(&self, source: &Source, blocks: &[Block]) -> bool {
        match source {
            Source::Mapper(wanted) => {
                attribute(&self.name, "dm/name").is_some_and(|name| name.as_bytes() == wanted)
            }
            _ if source.is_of_file_system() => {
                self.may_hold_file_system(blocks)
                    && superblock(&self.node())
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
        let is_this = |(disk, _): &(String, u32)| *disk == self.name;
        let is_divided = blocks
            .iter()
            .any(|block| block.partition.as_ref().is_some_and(is_this));
        let is_held = fs::read_dir(Path::new(CLASS).join(&self.name).join("holders"))
            .is_ok_and(|mut holders| holders.next().is_some());
        let is_empty = attribute(&self.name, "size").is_none_or(|size| size == "0");
        !is_divided && !is_held && !is_empty
    }

    fn partition_entry(&self) -> Option<partition_table::Partition> {
        let (disk, number) = self.partition.as_ref()?;
        let disk = Path::new("/dev").join(disk.replace('!', "/"));
        // A disk that cannot be read has no partition to be found.
        let start = start_of(&disk, partition_table::WANTED).ok()?;
        Table::read(&start)?.partition(*number)
    }
}

fn existing(path: &Path) -> Option<PathBuf> {
    path.exists().then(|| path.to_owned())
}

fn start_of(device: &Path, length: usize) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(length);
    let limit = u64::try_from(length).unwrap_or(u64::MAX);
    File::open(device)?.take(limit).read_to_end(&mut start)?;
    Ok(start)
}
