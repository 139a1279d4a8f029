//! [`Ways`]: other mounts by which the files of a read-only rule can be written, here or in another mount namespace.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::mount_index::MountIndex;
use crate::mount_point::MountPoint;
use crate::mountinfo::{MountInfo, MountTable};
use crate::plan::Plan;
use crate::policy::{Role, Treatment};

/// A way to files that a rule makes read-only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The path of the rule.
    pub of: MountPoint,
    /// Where the same files, or a part of them, are on a mount that can be written.
    pub at: MountPoint,
}

/// The ways to what the plan makes read-only.
#[derive(Debug, Clone)]
pub struct Ways {
    trees: Vec<Tree>,
    /// Those in the mount table of PID 1, the rules' own paths and holes below them included.
    known: BTreeSet<Way>,
}

/// A directory that a rule makes read-only, by the file system that it lies in.
#[derive(Debug, Clone)]
struct Tree {
    path: MountPoint,
    /// Where links lead from there.
    real: MountPoint,
    /// As proc_pid_mountinfo(5) has it: btrfs has one number there for all its subvolumes, and their paths in field 4.
    st_dev: (u32, u32),
    /// The path in the file system.
    directory: MountPoint,
    /// What of it is to stay writable, by its path in the file system.
    writable: Vec<MountPoint>,
}

impl Ways {
    /// Looks for what the plan makes read-only in the mount table of PID 1. The database is followed to where it lies: that is
    /// `database_at` where links lead there.
    #[must_use]
    pub fn new(plan: &Plan, mounts: &MountTable, database_at: Option<&MountPoint>) -> Self {
        let index = MountIndex::new(mounts);
        let rules = plan.mounts.iter().map(|mount| &mount.rule);
        let read_only = rules.filter(|rule| {
            matches!(rule.role, Role::Usr | Role::Database) || rule.treatment == Treatment::ReadOnly
        });
        let trees: Vec<Tree> = read_only
            .filter_map(|rule| {
                let real = database_at.filter(|_| rule.role == Role::Database);
                Tree::new(plan, &index, &rule.mount_point, real)
            })
            .collect();
        let known = ways(&trees, &index).collect();
        Ways { trees, known }
    }

    /// The ways in the mount table of PID 1 that lead around a rule: elsewhere than at or below its path.
    pub fn elsewhere(&self) -> impl Iterator<Item = &Way> {
        self.known
            .iter()
            .filter(|way| !way.at.is_at_or_below(self.real(&way.of)))
    }

    /// Where a rule's path leads.
    fn real<'a>(&'a self, path: &'a MountPoint) -> &'a MountPoint {
        let mut trees = self.trees.iter();
        let tree = trees.find(|tree| tree.path == *path);
        tree.map_or(path, |tree| &tree.real)
    }

    /// The ways in the mount table of another namespace that PID 1 does not have.
    #[must_use]
    pub fn only_in(&self, mounts: &MountTable) -> Vec<Way> {
        let mut found: Vec<Way> = ways(&self.trees, &MountIndex::new(mounts))
            .filter(|way| !self.known.contains(way))
            .collect();
        // Where it is known best comes first: at the path itself.
        found.sort_by_key(|way| (way.of.clone(), way.at != way.of));
        found.dedup_by(|a, b| a.of == b.of);
        found
    }
}

fn ways<'a>(trees: &'a [Tree], index: &'a MountIndex<'a>) -> impl Iterator<Item = Way> + 'a {
    let mounts = index.table().mounts.iter();
    mounts
        .filter(|mount| !mount.is_read_only())
        .flat_map(move |mount| {
            trees.iter().filter_map(move |tree| {
                let at = tree.shown_by(mount)?;
                // Else another mount lies over it: the bind of the rule, for the mount in which /usr lies.
                let is_seen = index.holding(&at)?.mount_id == mount.mount_id;
                let of = tree.path.clone();
                is_seen.then_some(Way { of, at })
            })
        })
}

impl Tree {
    fn new(
        plan: &Plan,
        index: &MountIndex<'_>,
        path: &MountPoint,
        real: Option<&MountPoint>,
    ) -> Option<Self> {
        let real = real.unwrap_or(path);
        let mut mount = index.holding(real)?;
        // What lies beneath extensions is what they leave behind.
        let depth = index.table().mounts.len();
        for _ in 0..depth {
            if !mount.is_sysext() {
                break;
            }
            mount = index.by_id(mount.parent_id)?;
        }
        let root = MountPoint::seen(&mount.root).ok()?;
        let in_file_system = |path: &MountPoint| Some(root.join(path.below(&mount.mount_point)?));
        let writable = plan.writable.iter();
        Some(Tree {
            path: path.clone(),
            real: real.clone(),
            st_dev: mount.st_dev,
            directory: in_file_system(real)?,
            writable: writable
                .filter(|rule| rule.mount_point.is_below(path))
                .filter_map(|rule| in_file_system(&rule.mount_point))
                .collect(),
        })
    }

    /// Where a mount shows the directory, or a part of it.
    fn shown_by(&self, mount: &MountInfo) -> Option<MountPoint> {
        // A directory that was removed has another one's path, with this after it. Source: Linux fs/d_path.c.
        if mount.st_dev != self.st_dev || mount.root.ends_with(b"//deleted") {
            return None;
        }
        // What is no path is an object of the kernel: nsfs, or a cgroup above the namespace's own.
        let root = MountPoint::seen(&mount.root).ok()?;
        if let Some(rest) = self.directory.below(&root) {
            return Some(mount.mount_point.join(rest));
        }
        let is_part = root.is_below(&self.directory)
            && !self.writable.iter().any(|path| root.is_at_or_below(path));
        is_part.then(|| mount.mount_point.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};

    use super::*;
    use crate::cmdline::Cmdline;
    use crate::plan::Facts;

    fn plan(cmdline: &str) -> Plan {
        Plan::new(&Facts {
            cmdline: Cmdline::parse(cmdline.as_bytes()),
            ..Facts::default()
        })
    }

    fn table(text: &str) -> MountTable {
        let table = MountTable::parse(text.as_bytes());
        assert_eq!(table.bad_lines, []);
        table
    }

    fn shown<'a>(ways: impl IntoIterator<Item = &'a Way>) -> Vec<String> {
        let ways = ways.into_iter();
        ways.map(|way| std::format!("{} {}", way.of, way.at))
            .collect()
    }

    /// The ways around the rules in a table.
    fn elsewhere(text: &str) -> Vec<String> {
        shown(Ways::new(&plan("usrpolicy=strict"), &table(text), None).elsewhere())
    }

    const PLAIN: &str = "1 0 8:1 / / rw - ext4 a rw\n\
        2 1 8:1 /usr /usr ro - ext4 a rw\n\
        3 1 8:1 /var/lib/pacman /var/lib/pacman ro - ext4 a rw\n";

    #[test]
    fn the_root_in_which_usr_lies_is_no_way_around_its_bind() {
        assert_eq!(elsewhere(PLAIN), [""; 0]);
    }

    #[test]
    fn no_machine_that_is_mounted_as_most_are_has_a_way() {
        for more in [
            // Partitions of their own.
            "9 1 8:2 / /var rw - ext4 b rw\n8 9 8:2 /lib/pacman /var/lib/pacman ro - ext4 b rw\n",
            "9 1 8:2 / /home rw - ext4 b rw\n8 1 8:3 / /boot rw - vfat c rw\n",
            // What containers bind: other directories of the same file system.
            "9 1 8:1 /var/lib/docker/volumes/x /var/lib/docker/x rw - ext4 a rw\n",
            "9 1 8:1 /srv/usr /srv/x rw - ext4 a rw\n8 1 8:1 /usrlocal /opt rw - ext4 a rw\n",
            "9 1 0:50 / /var/lib/docker/merged rw - overlay overlay rw,lowerdir=/usr,upperdir=/x\n",
            // Extensions, with what lies beneath them.
            "9 2 0:60 / /usr ro - overlay sysext ro,lowerdir=/usr\n",
            // Binds that take the read-only mount along, and binds that are read-only.
            "9 1 8:1 / /mnt rw - ext4 a rw\n8 9 8:1 /usr /mnt/usr ro - ext4 a rw\n7 9 8:1 /var/lib/pacman /mnt/var/lib/pacman ro - ext4 a rw\n",
            "9 1 8:1 /usr/share /srv/share ro - ext4 a rw\n",
            // Hidden.
            "9 1 8:1 / /mnt rw - ext4 a rw\n8 9 0:70 / /mnt ro - tmpfs t rw\n",
            // Removed, and no directories at all.
            "9 1 8:1 /usr/x//deleted /srv/x rw - ext4 a rw\n8 1 0:4 net:[4026531840] /run/netns/a rw - nsfs nsfs rw\n",
            "9 1 8:1 /../usr /srv/x rw - ext4 a rw\n",
        ] {
            assert_eq!(elsewhere(&[PLAIN, more].concat()), [""; 0], "{more}");
        }
    }

    #[test]
    fn a_bind_of_the_root_or_of_usr_or_of_a_part_is_a_way() {
        for (more, ways) in [
            (
                "9 1 8:1 / /mnt rw - ext4 a rw\n",
                &["/usr /mnt/usr", "/var/lib/pacman /mnt/var/lib/pacman"][..],
            ),
            ("9 1 8:1 /usr /srv/usr rw - ext4 a rw\n", &["/usr /srv/usr"]),
            (
                "9 1 8:1 /usr/share /srv/share rw - ext4 a rw\n",
                &["/usr /srv/share"],
            ),
            (
                "9 1 8:1 /var/lib /srv/lib rw - ext4 a rw\n",
                &["/var/lib/pacman /srv/lib/pacman"],
            ),
        ] {
            assert_eq!(elsewhere(&[PLAIN, more].concat()), ways, "{more}");
            let read_only = more.replace(" rw - ext4 a", " ro - ext4 a");
            assert_eq!(elsewhere(&[PLAIN, &read_only].concat()), [""; 0]);
        }
    }

    #[test]
    fn a_way_stays_one_while_extensions_cover_usr() {
        let table = [
            PLAIN,
            "8 2 0:60 / /usr ro - overlay sysext ro,lowerdir=/usr\n9 1 8:1 / /mnt rw - ext4 a rw\n",
        ];
        let found = elsewhere(&table.concat());
        assert!(found.contains(&"/usr /mnt/usr".to_string()), "{found:?}");
    }

    #[test]
    fn the_top_of_a_btrfs_is_a_way_to_its_subvolumes_and_a_home_in_it_is_none() {
        let table = "1 0 0:30 /@ / rw - btrfs a rw,subvol=/@\n\
            2 1 0:30 /@/usr /usr ro - btrfs a rw,subvol=/@\n\
            3 1 0:30 /@home /home rw - btrfs a rw,subvol=/@home\n\
            4 1 0:30 /@/var/lib/pacman /var/lib/pacman ro - btrfs a rw,subvol=/@\n";
        assert_eq!(elsewhere(table), [""; 0]);
        let top = "9 1 0:30 / /mnt rw - btrfs a rw,subvol=/\n";
        assert_eq!(
            elsewhere(&[table, top].concat()),
            ["/usr /mnt/@/usr", "/var/lib/pacman /mnt/@/var/lib/pacman"]
        );
    }

    #[test]
    fn what_is_to_stay_writable_may_be_written_by_any_way() {
        let plan = plan("usrpolicy=strict usrpolicy.path=/usr/local:rw");
        let text = [
            PLAIN,
            "5 2 8:1 /usr/local /usr/local rw - ext4 a rw\n9 1 8:1 /usr/local/lib /srv/lib rw - ext4 a rw\n",
        ];
        let ways = Ways::new(&plan, &table(&text.concat()), None);
        assert_eq!(shown(ways.elsewhere()), [""; 0]);
    }

    #[test]
    fn a_namespace_with_the_same_mounts_has_no_way_of_its_own() {
        let ways = Ways::new(&plan("usrpolicy=strict"), &table(PLAIN), None);
        let copy = |text: &str| shown(&ways.only_in(&table(text)));
        let private_tmp = [PLAIN, "9 1 0:80 / /tmp rw - tmpfs t rw\n"].concat();
        assert_eq!(copy(&private_tmp), [""; 0]);
        // As ProtectSystem=strict and ReadWritePaths= make it.
        let protected = "1 0 8:1 / / ro - ext4 a rw\n2 1 8:1 /usr /usr ro - ext4 a rw\n\
            4 1 8:1 /var/lib/x /var/lib/x rw - ext4 a rw\n";
        assert_eq!(copy(protected), [""; 0]);
        // A container: another root.
        assert_eq!(
            copy("1 0 0:90 / / rw - overlay overlay rw,upperdir=/x\n"),
            [""; 0]
        );
        // Started before /usr was closed, and no bind has reached it; its flag was taken away; a part of it.
        let without_bind = "1 0 8:1 / / rw - ext4 a rw\n";
        assert_eq!(
            copy(without_bind),
            ["/usr /usr", "/var/lib/pacman /var/lib/pacman"]
        );
        let opened = PLAIN.replace("/usr /usr ro", "/usr /usr rw");
        assert_eq!(copy(&opened), ["/usr /usr"]);
        let host = "1 0 0:90 / / rw - overlay o rw\n2 1 8:1 / /host rw - ext4 a rw\n";
        assert_eq!(
            copy(host),
            ["/usr /host/usr", "/var/lib/pacman /host/var/lib/pacman"]
        );
        // What PID 1 has too is told once.
        let hole = [PLAIN, "9 2 8:1 /usr/local /usr/local rw - ext4 a rw\n"].concat();
        let ways = Ways::new(&plan("usrpolicy=strict"), &table(&hole), None);
        assert_eq!(shown(&ways.only_in(&table(&hole))), [""; 0]);
    }
}
