//! GPT and MBR partition tables, as far as `PARTUUID=` and `PARTLABEL=` need them: kernels before 6.9 do not tell.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use crate::superblock::uuid_text;

/// The sizes that a logical sector can have.
const SECTOR_SIZES: [usize; 2] = [512, 4096];

/// How much of a disk [`Table::read`] wants to see: sectors of 4 KiB, and the 128 entries of a GPT of the usual size.
pub const WANTED: usize = 2 * 4096 + 128 * 128;

/// What identifies a partition, beside what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its UUID as the kernel takes it in `root=PARTUUID=`.
    pub uuid: String,
    /// Its name, in UTF-8; empty where the table has none.
    pub label: Vec<u8>,
}

/// The partition table of a disk.
#[derive(Debug, Clone, Copy)]
pub enum Table<'a> {
    /// The entries, and the size of one.
    Gpt(&'a [u8], usize),
    /// The disk's signature.
    Mbr(u32),
}

impl<'a> Table<'a> {
    /// Recognises the table at the start of a disk, by the first [`WANTED`] bytes or fewer. Total: no input panics.
    ///
    /// Source: UEFI specification, "GUID Partition Table (GPT) Disk Layout"; Linux `block/partitions/msdos.c`.
    #[must_use]
    pub fn read(disk: &'a [u8]) -> Option<Self> {
        SECTOR_SIZES
            .iter()
            .find_map(|&sector| gpt(disk, sector))
            .or_else(|| mbr(disk))
    }

    /// The partition with this number, as the kernel counts them, from 1.
    #[must_use]
    pub fn partition(&self, number: u32) -> Option<Partition> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        match *self {
            Table::Gpt(entries, size) => {
                let entry = entries.chunks_exact(size).nth(index)?;
                // An unused entry has no type.
                if entry.get(..16)?.iter().all(|&byte| byte == 0) {
                    return None;
                }
                Some(Partition {
                    uuid: guid(entry.get(16..)?.first_chunk()?),
                    label: utf8(entry.get(56..128)?),
                })
            }
            Table::Mbr(signature) => {
                let mut uuid = String::with_capacity(11);
                // A String takes everything.
                let _ = write!(uuid, "{signature:08x}-{number:02x}");
                Some(Partition {
                    uuid,
                    label: Vec::new(),
                })
            }
        }
    }
}

fn gpt(disk: &[u8], sector: usize) -> Option<Table<'_>> {
    let header = disk.get(sector..)?;
    if !header.starts_with(b"EFI PART") {
        return None;
    }
    let first = usize::try_from(u64::from_le_bytes(*header.get(72..)?.first_chunk()?)).ok()?;
    let count = usize::try_from(u32::from_le_bytes(*header.get(80..)?.first_chunk()?)).ok()?;
    let size = usize::try_from(u32::from_le_bytes(*header.get(84..)?.first_chunk()?)).ok()?;
    let start = first.checked_mul(sector)?;
    let entries = disk.get(start..)?;
    let end = count.checked_mul(size)?.min(entries.len());
    (size >= 128).then(|| Table::Gpt(&entries[..end], size))
}

fn mbr(disk: &[u8]) -> Option<Table<'_>> {
    if disk.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    Some(Table::Mbr(u32::from_le_bytes(
        *disk.get(440..)?.first_chunk()?,
    )))
}

/// Three numbers of a GUID are little-endian, the rest is bytes.
fn guid(bytes: &[u8; 16]) -> String {
    let mut bytes = *bytes;
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    uuid_text(&bytes)
}

/// UTF-16, little-endian, up to the first NUL.
fn utf8(name: &[u8]) -> Vec<u8> {
    let units = name
        .as_chunks()
        .0
        .iter()
        .map(|&pair| u16::from_le_bytes(pair))
        .take_while(|&unit| unit != 0);
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect::<String>()
        .into_bytes()
}
