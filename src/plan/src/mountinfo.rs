//! `proc_pid_mountinfo(5)`: the mount table of a process.
//!
//! The order of the lines is not the order of stacking: the mount that is seen at a path is found by its mount id
//! (statx(2), `STATX_MNT_ID`) or by walking from parent to child.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::fstab::needs_network;
use crate::mount_point::MountPoint;
use crate::octal;
use crate::text::{Shown, decimal, numbered_lines};

/// Options, split at commas, escapes decoded.
// One buffer, each option ended by a NUL, which none of them can contain: a table has hundreds of options.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MountOptions(Vec<u8>);

impl MountOptions {
    /// Splits a comma-separated list.
    #[must_use]
    pub fn parse(list: &[u8]) -> Self {
        let mut options = Vec::with_capacity(list.len() + 1);
        for option in list
            .split(|&byte| byte == b',')
            .filter(|option| !option.is_empty())
        {
            // Decoded after the split: \054 is a comma within an option.
            options.extend_from_slice(&octal::decoded(option));
            options.push(0);
        }
        MountOptions(options)
    }

    /// Whether the list has an option as a whole word: `errors=remount-ro` is not `ro`.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.iter().any(|o| o == option.as_bytes())
    }

    /// The value of the last `key=value` in the list.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        let value_of = |option| <[u8]>::strip_prefix(option, key.as_bytes())?.strip_prefix(b"=");
        self.iter().filter_map(value_of).last()
    }

    /// The options, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|&byte| byte == 0)
            .filter(|option| !option.is_empty())
    }
}

impl fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(Shown)).finish()
    }
}

/// One line of `proc_pid_mountinfo(5)`, escapes decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// Field 1: unique while the mount exists.
    pub mount_id: u64,
    /// Field 2: the mount that this one is attached to; its own id at the root of the tree.
    pub parent_id: u64,
    /// Field 3: major and minor number of the device.
    pub st_dev: (u32, u32),
    /// Field 4: the directory of the file system that is this mount's root.
    pub root: Vec<u8>,
    /// Field 5: where it is mounted, below the process's root directory.
    pub mount_point: MountPoint,
    /// Field 6: options of this mount. `ro` here means this mount only.
    pub mount_options: MountOptions,
    /// Field 7: peer group, `shared:N`; `None` for a mount that is not shared.
    pub peer_group: Option<u32>,
    /// Field 9: type of the file system.
    pub fs_type: Vec<u8>,
    /// Field 10: source, as the file system shows it.
    pub mount_source: Vec<u8>,
    /// Field 11: options of the file system. `ro` here means every mount of it.
    pub super_options: MountOptions,
}

impl MountInfo {
    /// Whether it looks like the overlay of systemd-sysext(8).
    #[must_use]
    pub fn is_sysext(&self) -> bool {
        self.fs_type == b"overlay" && self.mount_source == b"sysext"
    }

    /// Whether a look at what lies there may wait for a server, a program or an automount, which may never answer.
    /// Source: fuse(4), autofs(5).
    fn may_wait(&self) -> bool {
        let of_programs: [&[u8]; 3] = [b"fuse", b"autofs", b"9p"];
        let fs_type = self.fs_type.split(|&byte| byte == b'.').next();
        of_programs.iter().any(|one| Some(*one) == fs_type) || needs_network(&self.fs_type, [])
    }

    /// Whether nothing can be written there: by the flag of this mount, or by that of its file system.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.mount_options.has("ro") || self.super_options.has("ro")
    }
}

/// A line that is no mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Line number in the table, from 1.
    pub line: u32,
    /// The field of `proc_pid_mountinfo(5)` that could not be read.
    pub field: &'static str,
}

impl BadLine {
    /// What is wrong with it.
    #[must_use]
    pub fn what(&self) -> String {
        format!(
            "{} is missing or not as proc_pid_mountinfo(5) has it",
            self.field
        )
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what())
    }
}

/// A mount table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountTable {
    /// The mounts, in the table's order.
    pub mounts: Vec<MountInfo>,
    /// The lines that could not be read.
    pub bad_lines: Vec<BadLine>,
}

impl MountTable {
    /// Reads the text of a mount table. Total: no input panics.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut table = MountTable::default();
        for (line, bytes) in numbered_lines(text).filter(|(_, bytes)| !bytes.is_empty()) {
            match mount_info(bytes) {
                Ok(mount) => table.mounts.push(mount),
                Err(field) => table.bad_lines.push(BadLine { line, field }),
            }
        }
        table
    }

    /// Returns the mount with this id.
    #[must_use]
    pub fn by_id(&self, mount_id: u64) -> Option<&MountInfo> {
        self.mounts.iter().find(|mount| mount.mount_id == mount_id)
    }

    /// Returns the mount that a process sees at `mount_point`, by walking from parent to child; `None` where nothing is
    /// mounted there, or what is there is hidden by a mount above it.
    ///
    /// Where the kernel can be asked, ask it for the mount id (statx(2)) and use [`MountTable::by_id`].
    #[must_use]
    pub fn top_at(&self, mount_point: &MountPoint) -> Option<&MountInfo> {
        self.way_to(mount_point)
            .pop()
            .filter(|mount| mount.mount_point == *mount_point)
    }

    /// Whether a process sees this mount where it is mounted: nothing above it or on top of it hides it.
    #[must_use]
    pub fn is_seen(&self, mount: &MountInfo) -> bool {
        self.top_at(&mount.mount_point)
            .is_some_and(|top| top.mount_id == mount.mount_id)
    }

    /// Returns the mount that holds `path` for a process: the top mount at the nearest mount point at or above it.
    #[must_use]
    pub fn holding(&self, path: &MountPoint) -> Option<&MountInfo> {
        self.way_to(path).pop()
    }

    /// Whether a look at what lies at `path` may wait for ever: it is held by a mount that may, and by another one than
    /// `beside`, which was looked at already.
    #[must_use]
    pub fn may_wait_at(&self, path: &MountPoint, beside: &MountPoint) -> bool {
        let is_beside = |mount: &MountInfo| {
            let beside = self.holding(beside);
            beside.is_some_and(|beside| beside.mount_id == mount.mount_id)
        };
        self.holding(path)
            .is_some_and(|mount| mount.may_wait() && !is_beside(mount))
    }

    /// Returns the mounts stacked at `mount_point`, lowest first, the visible one last.
    #[must_use]
    pub fn stack_at(&self, mount_point: &MountPoint) -> Vec<&MountInfo> {
        let mut way = self.way_to(mount_point);
        way.retain(|mount| mount.mount_point == *mount_point);
        way
    }

    /// Whether the mount that is seen at `mount_point` is a bind of the very directory that it covers.
    #[must_use]
    pub fn is_self_bind(&self, mount_point: &MountPoint) -> bool {
        let way = self.way_to(mount_point);
        let [.., below, top] = way.as_slice() else {
            return false;
        };
        let Some(inside) = mount_point.below(&below.mount_point) else {
            return false;
        };
        // Field 4 is "/" for the root of the file system, else a path without a slash at its end.
        let covered = match (below.root.as_slice(), inside) {
            (b"/", b"") => b"/".to_vec(),
            (b"/", inside) => inside.to_vec(),
            (root, inside) => [root, inside].concat(),
        };
        top.mount_point == *mount_point && top.st_dev == below.st_dev && top.root == covered
    }

    /// Whether that bind lies on a read-only mount of the same directory, so that one of the two is too many.
    #[must_use]
    pub fn is_doubled(&self, mount_point: &MountPoint) -> bool {
        self.is_self_bind(mount_point)
            && matches!(self.stack_at(mount_point).as_slice(), [.., below, _] if below.mount_options.has("ro"))
    }

    /// The mounts that a path lookup goes through on its way to `path`, each attached to the one before it.
    fn way_to(&self, path: &MountPoint) -> Vec<&MountInfo> {
        #[cfg(test)]
        crate::mount_index::count(self.mounts.len());
        let mut on_the_way: Vec<&MountInfo> = self
            .mounts
            .iter()
            .filter(|mount| path.is_at_or_below(&mount.mount_point))
            .collect();
        // A stable sort: of two mounts that one parent has at one place (kernels before 4.12) the later line is on top.
        on_the_way.sort_by_key(|mount| (mount.mount_point.as_bytes().len(), mount.parent_id));
        let mut ids: Vec<u64> = on_the_way.iter().map(|mount| mount.mount_id).collect();
        ids.sort_unstable();
        // The parent of a mount on the way is on the way too, or the process does not see it: it lies outside the root
        // directory, or the root directory is no mount point (chroot(2)).
        let is_attached_outside = |mount: &&&MountInfo| {
            mount.parent_id == mount.mount_id || ids.binary_search(&mount.parent_id).is_err()
        };

        let mut way: Vec<&MountInfo> = Vec::new();
        for place in on_the_way.chunk_by(|a, b| a.mount_point == b.mount_point) {
            if way.is_empty() {
                way.extend(place.iter().rfind(is_attached_outside));
            }
            // A lookup starts in the root directory itself: what is stacked on that, it never enters.
            if place
                .first()
                .is_some_and(|mount| mount.mount_point.as_bytes() == b"/")
            {
                continue;
            }
            // Bounded: the parents of a table that the kernel did not write can go round in circles.
            for _ in place {
                let Some(below) = way.last() else { break };
                let after = place.partition_point(|mount| mount.parent_id <= below.mount_id);
                let Some(above) = place[..after].last() else {
                    break;
                };
                if above.parent_id != below.mount_id || above.mount_id == below.mount_id {
                    break;
                }
                way.push(above);
            }
        }
        way
    }
}

/// Reads one line; on failure returns the field that could not be read.
///
/// Source: `proc_pid_mountinfo(5)`; Linux `fs/proc_namespace.c`, `show_mountinfo`.
fn mount_info(line: &[u8]) -> Result<MountInfo, &'static str> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut field = |name| fields.next().ok_or(name);
    let mount_id = decimal(field("mount ID")?).ok_or("mount ID")?;
    let parent_id = decimal(field("parent ID")?).ok_or("parent ID")?;
    let st_dev = device(field("major:minor")?).ok_or("major:minor")?;
    let root = octal::decode(field("root")?);
    let mount_point =
        MountPoint::seen(&octal::decoded(field("mount point")?)).map_err(|_| "mount point")?;
    let mount_options = MountOptions::parse(field("mount options")?);
    let mut peer_group = None;
    loop {
        match field("separator")? {
            b"-" => break,
            optional => {
                if let Some(group) = optional.strip_prefix(b"shared:") {
                    peer_group = Some(decimal(group).ok_or("optional fields")?);
                }
            }
        }
    }
    let fs_type = octal::decode(field("filesystem type")?);
    // The source can be empty: then two spaces follow one another.
    let mount_source = octal::decode(field("mount source")?);
    let super_options = MountOptions::parse(field("super options")?);
    Ok(MountInfo {
        mount_id,
        parent_id,
        st_dev,
        root,
        mount_point,
        mount_options,
        peer_group,
        fs_type,
        mount_source,
        super_options,
    })
}

fn device(field: &[u8]) -> Option<(u32, u32)> {
    let colon = field.iter().position(|&byte| byte == b':')?;
    Some((decimal(&field[..colon])?, decimal(&field[colon + 1..])?))
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec;

    use super::*;

    const ROOT: &str = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro\n";

    fn point(path: &str) -> MountPoint {
        MountPoint::new(path.as_bytes()).unwrap()
    }

    fn table(text: &str) -> MountTable {
        let table = MountTable::parse(text.as_bytes());
        assert_eq!(table.bad_lines, []);
        table
    }

    /// The ids of what is stacked at a place, of a table given as id, parent and mount point.
    fn stack(mounts: &[(u64, u64, &str)], at: &str) -> Vec<u64> {
        let lines: Vec<String> = mounts
            .iter()
            .map(|(id, parent, place)| format!("{id} {parent} 0:1 / {place} rw - tmpfs tmpfs rw\n"))
            .collect();
        let table = table(&lines.concat());
        let stack: Vec<u64> = table
            .stack_at(&point(at))
            .iter()
            .map(|mount| mount.mount_id)
            .collect();
        assert_eq!(
            table.top_at(&point(at)).map(|mount| mount.mount_id),
            stack.last().copied()
        );
        stack
    }

    #[test]
    fn what_may_wait_is_not_looked_at_but_where_that_was_done_already() {
        let mounts = table(
            "1 0 0:1 / / rw - nfs4 server:/root rw\n2 1 0:2 / /home rw - fuse.sshfs far: rw\n\
             3 1 0:3 / /boot rw - autofs systemd-1 rw\n4 1 0:4 / /opt rw - virtiofs opt rw\n5 1 0:5 / /srv rw - 9p srv rw\n",
        );
        for (path, may_wait) in [
            ("/etc/pacman.d/own.conf", false),
            ("/home/me/own.conf", true),
            ("/boot/own.conf", true),
            ("/opt/own.conf", false),
            ("/srv", true),
        ] {
            let found = mounts.may_wait_at(&point(path), &point("/etc/pacman.conf"));
            assert_eq!(found, may_wait, "{path}");
        }
        assert!(mounts.may_wait_at(&point("/etc"), &point("/opt")));
        assert!(!mounts.may_wait_at(&point("/home/a"), &point("/home/b")));
    }

    #[test]
    fn a_line_has_all_its_fields() {
        let table = table(
            "66 63 254:0 /usr /usr ro,relatime shared:2 master:1 - ext4 /dev/vda rw,discard\n",
        );
        let expected = MountInfo {
            mount_id: 66,
            parent_id: 63,
            st_dev: (254, 0),
            root: b"/usr".to_vec(),
            mount_point: point("/usr"),
            mount_options: MountOptions::parse(b"ro,relatime"),
            peer_group: Some(2),
            fs_type: b"ext4".to_vec(),
            mount_source: b"/dev/vda".to_vec(),
            super_options: MountOptions::parse(b"rw,discard"),
        };
        assert_eq!(table.mounts, [expected]);
    }

    #[test]
    fn a_mount_may_have_any_number_of_optional_fields_and_only_shared_is_a_peer_group() {
        for (fields, group) in [
            ("", None),
            ("shared:7 ", Some(7)),
            ("master:7 ", None),
            ("master:3 propagate_from:2 ", None),
            ("unbindable ", None),
            ("new:1 shared:9 ", Some(9)),
        ] {
            let table = table(&format!("1 1 0:1 / / rw {fields}- tmpfs tmpfs rw\n"));
            assert_eq!(table.mounts[0].peer_group, group, "{fields}");
        }
    }

    #[test]
    fn an_empty_source_is_a_source() {
        let table = table("1 1 0:1 / / rw - tmpfs  ro\n");
        assert_eq!(table.mounts[0].mount_source, b"");
        assert!(table.mounts[0].super_options.has("ro"));
    }

    #[test]
    fn a_space_survives_in_every_field_that_can_have_one() {
        let table =
            table(r"1 1 0:1 /a\040b /c\134\040d rw - fuse.e\040f g\043h rw,lowerdir=/i\054ro\040j");
        let mount = &table.mounts[0];
        assert_eq!(mount.root, b"/a b");
        assert_eq!(mount.mount_point, point("/c\\ d"));
        assert_eq!(mount.fs_type, b"fuse.e f");
        assert_eq!(mount.mount_source, b"g#h");
        assert_eq!(
            mount.super_options.value("lowerdir"),
            Some(b"/i,ro j".as_slice())
        );
        assert!(!mount.super_options.has("ro"));
    }

    #[test]
    fn anybody_may_mount_on_a_directory_with_a_newline_in_its_name() {
        let table = table("1 1 0:1 / /tmp/a\\012b rw - fuse.x s rw\n");
        assert_eq!(table.mounts[0].mount_point.as_bytes(), b"/tmp/a\nb");
    }

    #[test]
    fn options_are_whole_words_and_of_two_values_the_last_counts() {
        let options = MountOptions::parse(b"rw,errors=remount-ro,size=1k,size=20%,size,sizes=3");
        assert!(!options.has("ro"));
        assert!(options.has("rw"));
        assert_eq!(options.value("size"), Some(b"20%".as_slice()));
        assert_eq!(options.value("errors"), Some(b"remount-ro".as_slice()));
        assert_eq!(options.value("rw"), None);
    }

    #[test]
    fn empty_options_are_none() {
        assert_eq!(MountOptions::parse(b",,ro,"), MountOptions::parse(b"ro"));
        assert_eq!(MountOptions::parse(b"").iter().next(), None);
    }

    #[test]
    fn a_line_that_is_no_mount_names_its_number_and_the_field() {
        let text =
            format!("{ROOT}\nx 1 0:1 / / rw - t s rw\n1 2 0:1 / relative rw - t s rw\n1 2 0:1 / /");
        let table = MountTable::parse(text.as_bytes());
        assert_eq!(table.mounts.len(), 1);
        let messages: Vec<String> = table.bad_lines.iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "3: mount ID is missing or not as proc_pid_mountinfo(5) has it",
                "4: mount point is missing or not as proc_pid_mountinfo(5) has it",
                "5: mount options is missing or not as proc_pid_mountinfo(5) has it",
            ]
        );
    }

    #[test]
    fn every_field_that_is_missing_or_no_number_is_named() {
        for (line, field) in [
            ("99999999999999999999 1 0:1 / / rw - t s rw", "mount ID"),
            ("-1 1 0:1 / / rw - t s rw", "mount ID"),
            ("+1 1 0:1 / / rw - t s rw", "mount ID"),
            (" 1 0:1 / / rw - t s rw", "mount ID"),
            ("1", "parent ID"),
            ("1 2 0 / / rw - t s rw", "major:minor"),
            ("1 2 0:4294967296 / / rw - t s rw", "major:minor"),
            ("1 2 0:1", "root"),
            ("1 2 0:1 /", "mount point"),
            ("1 2 0:1 / /a\\000b rw - t s rw", "mount point"),
            ("1 2 0:1 / / rw shared:x - t s rw", "optional fields"),
            ("1 2 0:1 / / rw shared:1", "separator"),
            ("1 2 0:1 / / rw -", "filesystem type"),
            ("1 2 0:1 / / rw - t", "mount source"),
            ("1 2 0:1 / / rw - t s", "super options"),
        ] {
            let table = MountTable::parse(line.as_bytes());
            assert_eq!(table.bad_lines, [BadLine { line: 1, field }], "{line}");
        }
    }

    #[test]
    fn a_mount_is_found_by_its_id() {
        let table = table(ROOT);
        assert_eq!(table.by_id(27).unwrap().mount_point, point("/"));
        assert_eq!(table.by_id(1), None);
    }

    #[test]
    fn the_order_of_the_lines_is_not_the_order_of_stacking() {
        let mounts = [
            (30, 20, "/usr"),
            (1, 0, "/"),
            (20, 40, "/usr"),
            (40, 1, "/usr"),
        ];
        assert_eq!(stack(&mounts, "/usr"), [40, 20, 30]);
    }

    #[test]
    fn an_overlay_hides_what_is_mounted_below_the_place_that_it_covers() {
        let mounts = [
            (1, 0, "/"),
            (2, 1, "/usr"),
            (3, 2, "/usr/local"),
            (4, 2, "/usr"),
        ];
        assert_eq!(stack(&mounts, "/usr"), [2, 4]);
        assert_eq!(stack(&mounts, "/usr/local"), []);
    }

    #[test]
    fn a_mount_below_an_overlay_is_seen_where_it_is_the_overlays_child() {
        let mounts = [
            (1, 0, "/"),
            (2, 1, "/usr"),
            (4, 2, "/usr"),
            (3, 4, "/usr/local"),
        ];
        assert_eq!(stack(&mounts, "/usr/local"), [3]);
    }

    #[test]
    fn a_place_where_nothing_is_mounted_has_no_top_but_is_held_by_the_nearest_mount_above() {
        let table = table(
            "1 1 0:1 / / rw - t s rw\n2 1 0:2 / /var rw - t s rw\n3 2 0:3 / /var/lib/x rw - t s rw\n",
        );
        assert_eq!(table.top_at(&point("/var/lib")), None);
        assert_eq!(table.holding(&point("/var/lib")).unwrap().mount_id, 2);
        assert_eq!(table.holding(&point("/var/lib/x/y")).unwrap().mount_id, 3);
        assert_eq!(table.holding(&point("/variety")).unwrap().mount_id, 1);
    }

    #[test]
    fn a_root_may_be_its_own_parent_or_have_one_that_the_table_lacks() {
        assert_eq!(stack(&[(1, 1, "/"), (2, 1, "/usr")], "/usr"), [2]);
        assert_eq!(stack(&[(27, 1, "/"), (2, 27, "/usr")], "/usr"), [2]);
    }

    #[test]
    fn a_mount_over_the_root_directory_is_not_seen_before_someone_changes_into_it() {
        let mounts = [(1, 1, "/"), (27, 1, "/"), (2, 1, "/usr"), (3, 27, "/usr")];
        assert_eq!(stack(&mounts, "/"), [1]);
        assert_eq!(stack(&mounts, "/usr"), [2]);
    }

    #[test]
    fn a_root_directory_that_is_no_mount_point_has_mounts_all_the_same() {
        let mounts = [(5, 99, "/usr"), (6, 5, "/usr"), (7, 99, "/proc")];
        assert_eq!(stack(&mounts, "/usr"), [5, 6]);
        assert_eq!(stack(&mounts, "/proc"), [7]);
        assert_eq!(stack(&mounts, "/"), []);
    }

    #[test]
    fn a_self_bind_shows_what_it_covers() {
        let is_bind = |text: &str| {
            let table = MountTable::parse(text.as_bytes());
            assert!(table.bad_lines.is_empty(), "{:?}", table.bad_lines);
            (
                table.is_self_bind(&point("/usr")),
                table.is_doubled(&point("/usr")),
            )
        };
        let root = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n";
        let bind = "2 1 8:1 /usr /usr ro - ext4 /dev/sda1 rw\n";
        assert_eq!(is_bind(&[root, bind].concat()), (true, false));
        let again = "3 2 8:1 /usr /usr ro - ext4 /dev/sda1 rw\n";
        assert_eq!(is_bind(&[root, bind, again].concat()), (true, true));
        // A partition of its own, then a bind of it, over what is read-only or not.
        let own = "2 1 8:2 / /usr rw - ext4 /dev/sda2 rw\n";
        assert_eq!(is_bind(&[root, own].concat()), (false, false));
        let over = "3 2 8:2 / /usr ro - ext4 /dev/sda2 rw\n";
        assert_eq!(is_bind(&[root, own, over].concat()), (true, false));
        // Subvolumes have one device: the one below this is another.
        let subvolume = "1 0 0:9 /@ / rw - btrfs /dev/sda1 rw\n";
        let other = "2 1 0:9 /@usr /usr ro - btrfs /dev/sda1 rw\n";
        assert_eq!(is_bind(&[subvolume, other].concat()), (false, false));
        let same = "2 1 0:9 /@/usr /usr ro - btrfs /dev/sda1 rw\n";
        assert_eq!(is_bind(&[subvolume, same].concat()), (true, false));
        // Another directory, another file system, nothing.
        let else_where = "2 1 8:1 /srv/usr /usr ro - ext4 /dev/sda1 rw\n";
        assert_eq!(is_bind(&[root, else_where].concat()), (false, false));
        let overlay = "2 1 0:40 / /usr ro - overlay sysext ro\n";
        assert_eq!(is_bind(&[root, overlay].concat()), (false, false));
        assert_eq!(is_bind(root), (false, false));
        assert_eq!(is_bind(""), (false, false));
    }

    #[test]
    fn an_empty_table_has_no_mount_anywhere() {
        assert_eq!(stack(&[], "/"), []);
        assert_eq!(stack(&[], "/usr"), []);
    }

    #[test]
    fn parents_that_go_round_in_circles_come_to_an_end() {
        assert_eq!(
            stack(&[(1, 0, "/"), (2, 3, "/usr"), (3, 2, "/usr")], "/usr"),
            []
        );
        assert_eq!(stack(&[(2, 3, "/"), (3, 2, "/")], "/"), []);
        assert_eq!(stack(&[(1, 0, "/"), (2, 2, "/usr")], "/usr"), []);
        // The same id twice: whatever is said about it, it is said soon.
        let twice = [(1, 0, "/"), (2, 1, "/usr"), (3, 2, "/usr"), (2, 3, "/usr")];
        assert!(stack(&twice, "/usr").len() <= twice.len());
    }

    #[test]
    fn of_two_mounts_that_one_parent_has_at_one_place_the_later_line_is_on_top() {
        assert_eq!(
            stack(&[(1, 0, "/"), (3, 1, "/usr"), (2, 1, "/usr")], "/usr"),
            [2]
        );
    }

    #[test]
    fn a_hundred_thousand_mounts_on_one_another_are_walked_in_a_moment() {
        // In steps that grow with the square of the table this would take minutes.
        let mut mounts = vec![(1, 0, "/")];
        mounts.extend((2..100_000).rev().map(|id| (id, id - 1, "/usr")));
        assert_eq!(stack(&mounts, "/usr").last(), Some(&99_999));
    }
}
