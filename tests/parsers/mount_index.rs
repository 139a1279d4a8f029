//! The index of a mount table answers as the table does.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use usr_policy_plan::mount_index::MountIndex;
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::MountTable;

use super::point;

/// Asks both about each mount, and about places at, above and below each.
fn answers_alike(table: &MountTable) {
    let index = MountIndex::new(table);
    let id = |mount: Option<&usr_policy_plan::mountinfo::MountInfo>| mount.map(|it| it.mount_id);
    for mount in &table.mounts {
        assert_eq!(index.is_seen(mount), table.is_seen(mount), "{mount:?}");
        let found = index.by_id(mount.mount_id).map(|it| it.mount_id);
        assert_eq!(found, Some(mount.mount_id));
        let mut path = mount.mount_point.as_bytes().to_vec();
        path.extend(b"/x");
        let mut place = MountPoint::seen(&path).ok();
        while let Some(path) = place {
            assert_eq!(id(index.holding(&path)), id(table.holding(&path)), "{path}");
            assert_eq!(id(index.top_at(&path)), id(table.top_at(&path)), "{path}");
            place = path.parent();
        }
    }
}

fn holes(table: &MountTable, below: &MountPoint) -> Vec<u64> {
    let index = MountIndex::new(table);
    let holes = index.holes_below(below);
    holes.map(|mount| mount.mount_id).collect()
}

#[test]
fn every_real_table_answers_as_its_index_does() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/mountinfo");
    let mut mounts = 0;
    let machine = ["/proc/self/mountinfo".into()];
    let files = fs::read_dir(fixtures).unwrap();
    for path in files.map(|file| file.unwrap().path()).chain(machine) {
        let table = MountTable::parse(&fs::read(&path).unwrap());
        answers_alike(&table);
        mounts += table.mounts.len();
        for below in ["/", "/usr", "/var"].map(point) {
            let seen: Vec<u64> = table
                .mounts
                .iter()
                .filter(|mount| {
                    let is_hole = mount.mount_point.is_below(&below) && !mount.is_read_only();
                    is_hole && table.is_seen(mount)
                })
                .map(|mount| mount.mount_id)
                .collect();
            assert_eq!(holes(&table, &below), seen, "{}", path.display());
        }
    }
    assert!(mounts > 1_000, "{mounts} mounts are too few");
}

/// Where a mount hangs, and at which place of it.
fn mount() -> impl Strategy<Value = (proptest::sample::Index, &'static str)> {
    let places = vec!["", "", "/a", "/b", "/a/b", "/a-b", "/a#"];
    (
        any::<proptest::sample::Index>(),
        proptest::sample::select(places),
    )
}

proptest! {
    // A regression is a test with a name; a checkout may be read-only.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_of_mounts_in_any_order_answers_as_its_index_does(
        tree in vec(mount(), 0..40),
        without_root in any::<bool>(),
        order in any::<u64>(),
    ) {
        let mut mounts: Vec<(usize, String)> = vec![(99, String::new())];
        for (parent, place) in tree {
            let parent = parent.index(mounts.len());
            let place = format!("{}{place}", mounts[parent].1);
            mounts.push((parent, place));
        }
        let mut lines: Vec<String> = mounts
            .iter()
            .enumerate()
            // In another root directory the first ones are out of sight.
            .skip(usize::from(without_root))
            .map(|(id, (parent, place))| format!("{id} {parent} 0:1 / /{} rw - tmpfs t rw\n", place.trim_start_matches('/')))
            .collect();
        lines.sort_by_key(|line| (line.len() as u64 ^ u64::from(line.as_bytes()[0])).wrapping_mul(order | 1).rotate_left(17));
        answers_alike(&MountTable::parse(lines.concat().as_bytes()));
    }

    #[test]
    fn parents_that_the_kernel_would_not_write_are_answered_alike_too(
        mounts in vec((1..12_u64, 0..12_u64, proptest::sample::select(vec!["/", "/a", "/a/b", "/b", "/a-b"])), 0..20),
    ) {
        let lines: Vec<String> = mounts
            .iter()
            .map(|(id, parent, place)| format!("{id} {parent} 0:1 / {place} rw - tmpfs t rw\n"))
            .collect();
        let table = MountTable::parse(lines.concat().as_bytes());
        // What a mount hangs on is never mounted below it: no path would lead there.
        let hangs_below = table.mounts.iter().any(|child| {
            table.mounts.iter().any(|parent| parent.mount_id == child.parent_id && parent.mount_point.is_below(&child.mount_point))
        });
        // The kernel gives each mount an id of its own.
        let mut ids: Vec<u64> = mounts.iter().map(|(id, ..)| *id).collect();
        ids.sort_unstable();
        let is_unique = ids.windows(2).all(|pair| pair[0] != pair[1]);
        if is_unique && !hangs_below {
            answers_alike(&table);
        }
        let index = MountIndex::new(&table);
        for place in ["/", "/a", "/a/b/c", "/x"].map(point) {
            let _ = index.holding(&place);
        }
    }
}
