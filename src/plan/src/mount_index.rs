//! [`MountIndex`]: a mount table in which looking up is cheap, for whoever asks it about every mount.
//!
//! It answers as [`MountTable`] does. That one walks all mounts for each question, which is less work for the one or two
//! questions of the boot program; `usr-policy verify` asks once per mount, and there may be ten thousand.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::mount_point::MountPoint;
use crate::mountinfo::{MountInfo, MountTable};

/// What is seen at every mount point of a table.
#[derive(Debug, Clone)]
pub struct MountIndex<'a> {
    table: &'a MountTable,
    /// Each mount point once, what lies below another directly after it.
    places: Vec<Place<'a>>,
    /// The mounts by id.
    by_id: Vec<&'a MountInfo>,
}

#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    path: &'a MountPoint,
    /// The mount that a path lookup has reached there; `None` where the table has no way to it.
    reached: Option<&'a MountInfo>,
}

impl<'a> MountIndex<'a> {
    /// Walks from each mount to those on it, once: n log n steps for n mounts.
    #[must_use]
    pub fn new(table: &'a MountTable) -> Self {
        let mut mounts: Vec<&MountInfo> = table.mounts.iter().collect();
        // A stable sort: of two mounts that one parent has at one place (kernels before 4.12) the later line is on top.
        mounts.sort_by(|a, b| {
            by_component(&a.mount_point, &b.mount_point).then(a.parent_id.cmp(&b.parent_id))
        });
        let mut walk = Walk::default();
        let stacks = mounts.chunk_by(|a, b| a.mount_point == b.mount_point);
        let places: Vec<Place<'a>> = stacks.filter_map(|stack| walk.enter(stack)).collect();
        mounts.sort_by_key(|mount| mount.mount_id);
        MountIndex {
            table,
            places,
            by_id: mounts,
        }
    }

    /// The table that this is an index of.
    #[must_use]
    pub fn table(&self) -> &'a MountTable {
        self.table
    }

    /// The mount with this id.
    #[must_use]
    pub fn by_id(&self, mount_id: u64) -> Option<&'a MountInfo> {
        let at = self
            .by_id
            .partition_point(|mount| mount.mount_id < mount_id);
        let mount = self.by_id.get(at).copied();
        mount.filter(|mount| mount.mount_id == mount_id)
    }

    /// The mount that holds `path` for a process: the top mount at the nearest mount point at or above it.
    #[must_use]
    pub fn holding(&self, path: &MountPoint) -> Option<&'a MountInfo> {
        let place = self.nearest(path)?;
        place.reached
    }

    /// The mount that a process sees at `mount_point`; `None` where nothing is mounted there, or it is hidden.
    #[must_use]
    pub fn top_at(&self, mount_point: &MountPoint) -> Option<&'a MountInfo> {
        self.holding(mount_point)
            .filter(|mount| mount.mount_point == *mount_point)
    }

    /// Whether a process sees this mount where it is mounted: nothing above it or on top of it hides it.
    #[must_use]
    pub fn is_seen(&self, mount: &MountInfo) -> bool {
        self.top_at(&mount.mount_point)
            .is_some_and(|top| top.mount_id == mount.mount_id)
    }

    /// The mounts strictly below a path that a process sees and can write to, in the table's order.
    pub fn holes_below(&self, path: &MountPoint) -> impl Iterator<Item = &'a MountInfo> {
        self.table.mounts.iter().filter(|mount| {
            mount.mount_point.is_below(path) && !mount.is_read_only() && self.is_seen(mount)
        })
    }

    /// The nearest mount point at or above a path: one search for each of its components, from the longest.
    fn nearest(&self, path: &MountPoint) -> Option<&Place<'a>> {
        let mut above = Some(path.clone());
        while let Some(path) = above {
            let found = self
                .places
                .binary_search_by(|place| by_component(place.path, &path));
            if let Ok(at) = found {
                return self.places.get(at);
            }
            above = path.parent();
        }
        None
    }
}

/// A walk through the mount points, from each to those below it.
#[derive(Default)]
struct Walk<'a> {
    /// The mount points at or above the one that was entered last, and the mounts that are stacked there.
    above: Vec<(Place<'a>, Vec<u64>)>,
    /// How many of those mounts have an id. The kernel gives each its own.
    ids: BTreeMap<u64, usize>,
}

impl<'a> Walk<'a> {
    /// Enters the mount point of a stack; `stack` is sorted by parent.
    fn enter(&mut self, stack: &[&'a MountInfo]) -> Option<Place<'a>> {
        let path = &stack.first()?.mount_point;
        while self
            .above
            .last()
            .is_some_and(|(place, _)| !path.is_below(place.path))
        {
            self.leave();
        }
        let ids: Vec<u64> = stack.iter().map(|mount| mount.mount_id).collect();
        for id in &ids {
            *self.ids.entry(*id).or_default() += 1;
        }
        let mut reached = self.above.last().and_then(|(place, _)| place.reached);
        if reached.is_none() {
            // The parent of a mount on the way is on the way too, or the process does not see it: it lies outside the root
            // directory, or the root directory is no mount point (chroot(2)).
            reached = stack
                .iter()
                .rfind(|mount| {
                    mount.parent_id == mount.mount_id || !self.ids.contains_key(&mount.parent_id)
                })
                .copied();
        }
        // A lookup starts in the root directory itself: what is stacked on that, it never enters.
        if path.as_bytes() != b"/" {
            reached = reached.map(|below| top_of(stack, below));
        }
        let place = Place { path, reached };
        self.above.push((place, ids));
        Some(place)
    }

    fn leave(&mut self) {
        for id in self.above.pop().map(|(_, ids)| ids).unwrap_or_default() {
            if let Some(count) = self.ids.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    self.ids.remove(&id);
                }
            }
        }
    }
}

/// Climbs a stack from what is below it, each mount to the one that is attached to it.
fn top_of<'a>(stack: &[&'a MountInfo], mut below: &'a MountInfo) -> &'a MountInfo {
    // Bounded: the parents of a table that the kernel did not write can go round in circles.
    for _ in stack {
        let after = stack.partition_point(|mount| mount.parent_id <= below.mount_id);
        match stack[..after].last() {
            Some(above)
                if above.parent_id == below.mount_id && above.mount_id != below.mount_id =>
            {
                below = above;
            }
            _ => break,
        }
    }
    below
}

/// Compares paths component by component, so that nothing stands between a path and what lies below it: `/a-b` comes after
/// `/a/b`.
fn by_component(a: &MountPoint, b: &MountPoint) -> Ordering {
    #[cfg(test)]
    count(1);
    sort_key(a).cmp(sort_key(b))
}

/// No path holds a NUL, so it can stand for the slash. The root is the one that ends in the slash itself.
fn sort_key(path: &MountPoint) -> impl Iterator<Item = u8> {
    let path = path.as_bytes();
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.iter().map(|&byte| if byte == b'/' { 0 } else { byte })
}

#[cfg(test)]
std::thread_local! {
    static COMPARISONS: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// How often this thread has compared two paths or mounts: the work of every question, but for constants.
#[cfg(test)]
pub(crate) fn comparisons() -> usize {
    COMPARISONS.get()
}

/// Counts comparisons that are made elsewhere.
#[cfg(test)]
pub(crate) fn count(more: usize) {
    COMPARISONS.set(COMPARISONS.get() + more);
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;

    use super::*;

    fn point(path: &str) -> MountPoint {
        MountPoint::new(path.as_bytes()).unwrap()
    }

    fn table(mounts: &[(u64, u64, &str)]) -> MountTable {
        let lines: Vec<String> = mounts
            .iter()
            .map(|(id, parent, at)| format!("{id} {parent} 0:1 / {at} rw - tmpfs t rw\n"))
            .collect();
        let table = MountTable::parse(lines.concat().as_bytes());
        assert_eq!(table.bad_lines, []);
        table
    }

    #[test]
    fn a_name_with_a_byte_that_sorts_before_the_slash_parts_no_place_from_what_lies_below_it() {
        let table = table(&[
            (1, 0, "/"),
            (2, 1, "/a"),
            (3, 1, "/a-b"),
            (4, 1, "/a#b"),
            (5, 2, "/a/b"),
        ]);
        let index = MountIndex::new(&table);
        for (path, id) in [
            ("/a/b/c", 5),
            ("/a/c", 2),
            ("/a-b/c", 3),
            ("/a#b", 4),
            ("/c", 1),
        ] {
            assert_eq!(index.holding(&point(path)).unwrap().mount_id, id, "{path}");
        }
    }

    #[test]
    fn fifty_mounts_at_one_place_have_one_on_top() {
        let mut mounts: Vec<(u64, u64, &str)> = (2..52).map(|id| (id, id - 1, "/usr")).collect();
        mounts.push((1, 0, "/"));
        mounts.reverse();
        let table = table(&mounts);
        let index = MountIndex::new(&table);
        let seen: Vec<u64> = table
            .mounts
            .iter()
            .filter(|mount| index.is_seen(mount))
            .map(|mount| mount.mount_id)
            .collect();
        assert_eq!(seen, [1, 51]);
    }

    #[test]
    fn parents_that_go_round_in_circles_end() {
        let table = table(&[
            (1, 0, "/"),
            (2, 1, "/a"),
            (3, 2, "/a"),
            (2, 3, "/a"),
            (4, 4, "/b"),
        ]);
        let index = MountIndex::new(&table);
        for path in ["/a", "/b", "/a/c"] {
            assert_eq!(
                index.holding(&point(path)),
                table.holding(&point(path)),
                "{path}"
            );
        }
        let circle = self::table(&[(1, 2, "/a"), (2, 1, "/a")]);
        assert_eq!(MountIndex::new(&circle).holding(&point("/a/b")), None);
    }
}
