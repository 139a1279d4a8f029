//! The files of units, found where the service manager finds them. It is not asked: that would be a call to PID 1.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use rustix::fs::OFlags;
use usr_policy_plan::config::ConfigFile;
use usr_policy_plan::verify::{Unit, UnitPart};
use usr_policy_system::drop_ins::drop_ins;
use usr_policy_system::root::Root;

/// Where units are looked for, the first one wins. Source: systemd.unit(5), "Unit File Load Path".
const LOAD_PATH: [&str; 12] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// Reads the files of these units. What cannot be read is left out.
pub(crate) fn observe_units(root: &Root, names: Vec<String>) -> Vec<Unit> {
    // Each directory is read once, whatever the number of units.
    let directories: Vec<(&str, HashSet<OsString>)> = LOAD_PATH
        .iter()
        .map(|directory| (*directory, entries(root, directory).into_iter().collect()))
        .collect();
    let units = names.into_iter().map(|name| Unit {
        parts: parts(root, &directories, &name),
        pulled_in_by: links(root, &directories, &name),
        name,
    });
    units.collect()
}

fn entries(root: &Root, directory: &str) -> Vec<OsString> {
    root.names(directory).unwrap_or_default()
}

fn parts(root: &Root, directories: &[(&str, HashSet<OsString>)], name: &str) -> Vec<UnitPart> {
    let read = |path: String, is_drop_in| {
        // A link that leads nowhere is no file.
        let text = root.read(&path).ok()??;
        Some(UnitPart {
            path,
            text,
            is_drop_in,
        })
    };
    let fragment = directories
        .iter()
        .filter(|(_, names)| names.contains(OsStr::new(name)))
        .find_map(|(directory, _)| read(format!("{directory}/{name}"), false));
    let mut with_drop_ins = Vec::new();
    for own in drop_in_directories(name) {
        for (directory, names) in directories {
            if names.contains(OsStr::new(&own)) {
                with_drop_ins.push(format!("{directory}/{own}"));
            }
        }
    }
    let drop_ins = drop_ins(root, with_drop_ins, &mut drop).into_iter();
    fragment
        .into_iter()
        .chain(drop_ins.filter_map(|path| read(path, true)))
        .collect()
}

/// The names of the directories in which a unit has drop-ins, the one that wins first: its own, those of each prefix of its
/// name that ends in a dash, and that of its type. Source: systemd.unit(5), "Description".
fn drop_in_directories(unit: &str) -> Vec<String> {
    let mut names = vec![format!("{unit}.d")];
    if let Some((name, kind)) = unit.rsplit_once('.') {
        let prefixes = name
            .rmatch_indices('-')
            .filter_map(|(at, _)| name.get(..=at));
        let shorter = prefixes.filter(|prefix| *prefix != name);
        names.extend(shorter.map(|prefix| format!("{prefix}.{kind}.d")));
        names.push(format!("{kind}.d"));
    }
    names
}

/// A file with what it says; `None` where there is none, or none that can be read.
pub(crate) fn read_file(root: &Root, path: String) -> Option<ConfigFile> {
    Some(ConfigFile {
        text: root.read(&path).ok()??,
        path: path.into_bytes(),
    })
}

/// The links that pull a unit in. The name counts, wherever a link leads. Source: systemd.unit(5).
fn links(root: &Root, directories: &[(&str, HashSet<OsString>)], name: &str) -> Vec<String> {
    let mut links = Vec::new();
    for (directory, names) in directories {
        let mut names: Vec<&str> = names.iter().filter_map(|name| name.to_str()).collect();
        names.retain(|name| {
            let name = name.as_bytes();
            name.ends_with(b".wants") || name.ends_with(b".requires")
        });
        names.sort_unstable();
        for target in names {
            let path = format!("{directory}/{target}/{name}");
            if root.open_at(&path, OFlags::PATH | OFlags::NOFOLLOW).is_ok() {
                links.push(path);
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_of_a_prefix_and_of_the_type_belong_to_a_unit() {
        assert_eq!(
            drop_in_directories("var-lib-pacman.mount"),
            [
                "var-lib-pacman.mount.d",
                "var-lib-.mount.d",
                "var-.mount.d",
                "mount.d"
            ]
        );
        assert_eq!(drop_in_directories("usr.mount"), ["usr.mount.d", "mount.d"]);
    }
}
