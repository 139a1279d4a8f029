//! The first bytes of a file system: its type, UUID and label, for a boot without udev and blkid.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// How much of a device [`Superblock::read`] wants to see: btrfs has the farthest superblock.
pub const WANTED: usize = BTRFS + 0x1000;

/// Where btrfs has its first superblock. Source: btrfs(5), "FILESYSTEM LIMITS"; Linux `include/uapi/linux/btrfs_tree.h`.
const BTRFS: usize = 0x1_0000;

/// Where ext2, ext3, ext4 and erofs have theirs. Source: Linux `fs/ext4/super.c`, `fs/erofs/erofs_fs.h`.
const AT_1024: usize = 1024;

/// What a file system says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Its type, as mount(8) names it.
    pub fs_type: &'static str,
    /// Its UUID, as fstab(5) has it; `None` where the type has none.
    pub uuid: Option<String>,
    /// Its label; empty where it has none.
    pub label: Vec<u8>,
}

impl Superblock {
    /// Recognises a file system by the first [`WANTED`] bytes of its device, or fewer. Total: no input panics.
    #[must_use]
    pub fn read(device: &[u8]) -> Option<Self> {
        btrfs(device)
            .or_else(|| xfs(device))
            .or_else(|| ext(device))
            .or_else(|| erofs(device))
            .or_else(|| squashfs(device))
    }
}

/// Source: Linux `fs/ext4/ext4.h`, `struct ext4_super_block`.
fn ext(device: &[u8]) -> Option<Superblock> {
    /// Features that ext2 and ext3 do not have. Source: Linux `fs/ext4/ext4.h`, `EXT3_FEATURE_*_SUPP`.
    const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;
    const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x10;
    const HAS_JOURNAL: u32 = 0x4;
    const JOURNAL_DEVICE: u32 = 0x8;

    let block = device.get(AT_1024..)?;
    if block.get(56..58)? != [0x53, 0xef] {
        return None;
    }
    let (compat, incompat, ro_compat) =
        (u32_at(block, 92)?, u32_at(block, 96)?, u32_at(block, 100)?);
    // A journal of its own is not a file system, though it has the UUID of one.
    if incompat & JOURNAL_DEVICE != 0 {
        return None;
    }
    let fs_type = if incompat & !EXT3_INCOMPAT != 0 || ro_compat & !EXT3_RO_COMPAT != 0 {
        "ext4"
    } else if compat & HAS_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    };
    found(fs_type, block, 104, 120..136)
}

/// Source: Linux `fs/xfs/libxfs/xfs_format.h`, `struct xfs_dsb`.
fn xfs(device: &[u8]) -> Option<Superblock> {
    device
        .starts_with(b"XFSB")
        .then(|| found("xfs", device, 32, 108..120))?
}

/// Source: Linux `include/uapi/linux/btrfs_tree.h`, `struct btrfs_super_block`.
fn btrfs(device: &[u8]) -> Option<Superblock> {
    let block = device.get(BTRFS..)?;
    (block.get(64..72)? == b"_BHRfS_M").then(|| found("btrfs", block, 32, 299..555))?
}

/// Source: Linux `fs/erofs/erofs_fs.h`, `struct erofs_super_block`.
fn erofs(device: &[u8]) -> Option<Superblock> {
    let block = device.get(AT_1024..)?;
    block
        .starts_with(&[0xe2, 0xe1, 0xf5, 0xe0])
        .then(|| found("erofs", block, 48, 64..80))?
}

/// It has neither UUID nor label. Source: Linux `fs/squashfs/squashfs_fs.h`.
fn squashfs(device: &[u8]) -> Option<Superblock> {
    device.starts_with(b"hsqs").then(|| Superblock {
        fs_type: "squashfs",
        uuid: None,
        label: Vec::new(),
    })
}

fn found(
    fs_type: &'static str,
    block: &[u8],
    uuid: usize,
    label: core::ops::Range<usize>,
) -> Option<Superblock> {
    let uuid = block.get(uuid..)?.first_chunk()?;
    let label = block.get(label)?;
    let end = label
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(label.len());
    Some(Superblock {
        fs_type,
        uuid: Some(uuid_text(uuid)),
        label: label[..end].to_vec(),
    })
}

fn u32_at(block: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*block.get(at..)?.first_chunk()?))
}

/// Sixteen bytes as a UUID is written, in the order in which they stand.
pub(crate) fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
