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
                        name.push(char::from(byte))?;
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

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;

    use super::*;

    fn name(path: &str) -> UnitName {
        mount_unit(&MountPoint::new(path.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn slashes_become_dashes_and_the_root_is_a_dash() {
        assert_eq!(name("/var/tmp"), "var-tmp.mount");
        assert_eq!(name("/usr"), "usr.mount");
        assert_eq!(name("/"), "-.mount");
    }

    #[test]
    fn a_dash_in_the_path_is_told_from_a_slash() {
        assert_eq!(name("/var/lib-pacman"), "var-lib\\x2dpacman.mount");
    }

    #[test]
    fn a_space_a_percent_sign_and_a_backslash_are_escaped() {
        assert_eq!(name("/a b%c\\d"), "a\\x20b\\x25c\\x5cd.mount");
    }

    #[test]
    fn only_a_dot_at_the_very_beginning_is_escaped() {
        assert_eq!(name("/.snapshots/.x/y.z"), "\\x2esnapshots-.x-y.z.mount");
    }

    #[test]
    fn bytes_beyond_ascii_are_escaped_one_by_one() {
        assert_eq!(name("/é"), "\\xc3\\xa9.mount");
    }

    #[test]
    fn colon_underscore_dot_and_digits_stay() {
        assert_eq!(name("/Az09:_.x"), "Az09:_.x.mount");
    }

    #[test]
    fn a_name_of_255_bytes_is_taken_and_one_of_256_is_refused_whole() {
        assert_eq!(name(&format!("/{}", "a".repeat(249))).len(), 255);
        let mount_point = MountPoint::new(format!("/{}", "a".repeat(250)).as_bytes()).unwrap();
        assert_eq!(mount_unit(&mount_point), Err(TooLong { mount_point }));
    }

    #[test]
    fn an_escape_that_does_not_fit_is_not_cut() {
        let mount_point = MountPoint::new(format!("/{} ", "a".repeat(247)).as_bytes()).unwrap();
        assert!(mount_unit(&mount_point).is_err());
    }

    #[test]
    fn the_refusal_names_the_path_and_the_limit() {
        let mount_point = MountPoint::new(b"/var/x y").unwrap();
        assert_eq!(
            TooLong { mount_point }.to_string(),
            "/var/x y makes a unit name of more than 255 bytes; use a shorter path"
        );
    }
}
