//! Unit names of mount points, as systemd-escape(1) `--path` makes them.

use core::fmt;

use crate::mount_point::MountPoint;

/// systemd's UNIT_NAME_MAX less the final NUL; longer names are an error, never cut.
pub type UnitName = heapless::String<255>;

/// The mount point's unit name would be longer than systemd takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLong {
    /// The path whose name does not fit.
    pub mount_point: MountPoint,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} makes a unit name of more than 255 bytes; use a shorter path", self.mount_point)
    }
}

/// Returns the name of the mount unit that systemd knows for a mount point: `/var/tmp` is `var-tmp.mount`.
///
/// # Errors
/// [`TooLong`] if systemd would refuse the name.
///
/// Source: systemd.unit(5), "String escaping for inclusion in unit names".
pub fn mount_unit(mount_point: &MountPoint) -> Result<UnitName, TooLong> {
    todo!("{mount_point:?}")
}
