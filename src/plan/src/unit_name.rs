//! Unit names of mount points, as systemd-escape(1) `--path` makes them.

use core::fmt;

use crate::mount_point::MountPoint;

/// systemd's `UNIT_NAME_MAX` less the final NUL; longer names are an error, never cut.
pub type UnitName = heapless::String<255>;

/// The mount point's unit name would be longer than systemd takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLong {
    /// The path whose name does not fit.
    pub mount_point: MountPoint,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} makes a unit name of more than 255 bytes; use a shorter path",
            self.mount_point
        )
    }
}

/// Returns the name of the mount unit that systemd knows for a mount point: `/var/tmp` is `var-tmp.mount`.
///
/// # Errors
/// [`TooLong`] if systemd would refuse the name.
///
/// Source: systemd.unit(5), "String escaping for inclusion in unit names".
pub fn mount_unit(mount_point: &MountPoint) -> Result<UnitName, TooLong> {
    let mut name = UnitName::new();
    match push_mount_unit(&mut name, mount_point) {
        Ok(()) => Ok(name),
        Err(_) => Err(TooLong {
            mount_point: mount_point.clone(),
        }),
    }
}

fn push_mount_unit(
    name: &mut UnitName,
    mount_point: &MountPoint,
) -> Result<(), heapless::CapacityError> {
    match mount_point.as_bytes() {
        b"/" => name.push('-')?,
        path => {
            for (index, &byte) in path.iter().skip(1).enumerate() {
                match byte {
                    b'/' => name.push('-')?,
                    // A unit file whose name starts with a dot is a hidden file to systemd.
                    b'.' if index == 0 => push_escaped(name, byte)?,
                    b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b':' | b'_' | b'.' => {
                        name.push(char::from(byte))?
                    }
                    _ => push_escaped(name, byte)?,
                }
            }
        }
    }
    name.push_str(".mount")
}

fn push_escaped(name: &mut UnitName, byte: u8) -> Result<(), heapless::CapacityError> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    name.push_str("\\x")?;
    name.push(char::from(HEX[usize::from(byte >> 4)]))?;
    name.push(char::from(HEX[usize::from(byte & 15)]))
}
