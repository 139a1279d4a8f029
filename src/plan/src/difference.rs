//! `usr-policy plan --diff`: what the generator would write beside what it wrote, and the plan beside what is mounted.
//!
//! Each line is looked for in the rest of the other file, which for units of twenty lines says as much as a search for the
//! shortest difference would: no library is worth it.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::mount_point::MountPoint;
use crate::mountinfo::MountTable;
use crate::plan::Plan;
use crate::policy::Treatment;
use crate::unit::{Directory, Entry, FSTAB_WITHOUT_USR, HEADER, UnitTree};
use crate::verify::{Kind, Observed, SYSEXT_SERVICE, is_open, wanted};

/// What is in the three directories now: links and files.
pub type Running = BTreeMap<(Directory, String), Entry>;

/// The directory of the link with which `AtBoot=yes` pulls in a unit that is not ours; no other generator writes it.
const AT_BOOT: &str = "sysinit.target.wants/";

/// Whether an entry of the running system is ours: by its first line, or by its name.
fn is_ours(running: &Running, directory: Directory, name: &str, entry: &Entry) -> bool {
    match entry {
        Entry::File(bytes) | Entry::FileNeeding(_, bytes) => {
            name == FSTAB_WITHOUT_USR
                || bytes
                    .split(|&byte| byte == b'\n')
                    .next()
                    .is_some_and(|line| line == HEADER.trim_ascii_end().as_bytes())
        }
        Entry::Link(_) => {
            let unit = name.rsplit('/').next().unwrap_or(name);
            let file = running.get(&(directory, unit.to_string()));
            name.strip_prefix(AT_BOOT) == Some(SYSEXT_SERVICE)
                || unit.starts_with("usr-policy-")
                || file.is_some_and(|file| {
                    !matches!(file, Entry::Link(_)) && is_ours(running, directory, unit, file)
                })
        }
    }
}

/// The differences between what the generator would write and what of ours is there, as `-` and `+` lines below the name of
/// each file; empty where there are none.
#[must_use]
pub fn units(tree: &UnitTree, running: &Running) -> Vec<u8> {
    let planned: BTreeMap<(Directory, &str), &Entry> = tree
        .iter()
        .map(|(directory, name, entry)| ((directory, name), entry))
        .collect();
    let ours = running
        .iter()
        .filter(|((directory, name), entry)| {
            planned.contains_key(&(*directory, name.as_str()))
                || is_ours(running, *directory, name, entry)
        })
        .map(|((directory, name), entry)| ((*directory, name.as_str()), entry))
        .collect::<BTreeMap<_, _>>();
    let mut names: Vec<(Directory, &str)> = planned.keys().chain(ours.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let mut out = Vec::new();
    for name in names {
        entry(
            &mut out,
            name,
            ours.get(&name).copied(),
            planned.get(&name).copied(),
        );
    }
    out
}

fn entry(
    out: &mut Vec<u8>,
    (directory, name): (Directory, &str),
    before: Option<&Entry>,
    after: Option<&Entry>,
) {
    let bytes = |entry: Option<&Entry>| match entry {
        Some(Entry::File(bytes) | Entry::FileNeeding(_, bytes)) => Some(bytes.clone()),
        _ => None,
    };
    let target = |entry: Option<&Entry>| match entry {
        Some(Entry::Link(target)) => Some(target.clone()),
        _ => None,
    };
    let head = [directory.to_string().as_str(), "/", name].concat();
    // Only the name of a link counts for systemd, and whoever wanted the unit first has made it.
    if let (Some(Entry::Link(_)), Some(Entry::Link(_))) = (before, after) {
        return;
    }
    for (sign, entry) in [("-", before), ("+", after)] {
        if let Some(target) = target(entry) {
            out.extend_from_slice([sign, &head, " -> ", &target, "\n"].concat().as_bytes());
        }
    }
    let (old, new) = (bytes(before), bytes(after));
    if old == new {
        return;
    }
    out.extend_from_slice(["==> ", &head, " <==\n"].concat().as_bytes());
    let new = lines(new.as_deref().unwrap_or_default());
    let mut rest = new.as_slice();
    let mut say = |sign: u8, line: &[u8]| {
        out.push(sign);
        out.extend_from_slice(line);
        out.push(b'\n');
    };
    for line in lines(old.as_deref().unwrap_or_default()) {
        if let Some(at) = rest.iter().position(|other| *other == line) {
            for line in &rest[..at] {
                say(b'+', line);
            }
            rest = &rest[at + 1..];
        } else {
            say(b'-', line);
        }
    }
    for line in rest {
        say(b'+', line);
    }
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|&byte| byte == b'\n').collect()
}

/// What a path is, as far as the policy makes it so.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    ReadOnly,
    Memory,
    Writable,
}

impl Made {
    fn word(self) -> &'static str {
        match self {
            Made::ReadOnly => "read-only",
            Made::Memory => "tmpfs",
            Made::Writable => "writable",
        }
    }
}

/// The paths that are mounted otherwise than the plan has them, one `-` and one `+` line each. What is open because somebody
/// unlocked it, or because the lock table says so, is no difference.
#[must_use]
pub fn mounts(plan: &Plan, running: &Running, observed: &Observed) -> Vec<u8> {
    let wanted = wanted(plan, observed);
    let mut changes: BTreeMap<&MountPoint, (Made, Made)> = BTreeMap::new();
    for mount in plan.mounts.iter().filter(|_| plan.is_strict()) {
        let rule = &mount.rule;
        let mut places = observed.places.iter();
        // systemd mounts nothing on what is missing, no directory, or behind a link.
        let place = places.find(|place| place.path == rule.mount_point);
        if is_open(&wanted, rule.role) || place.is_none_or(|place| place.kind != Kind::Directory) {
            continue;
        }
        let then = match rule.treatment {
            Treatment::ReadOnly => Made::ReadOnly,
            Treatment::Tmpfs(_) => Made::Memory,
            Treatment::ReadWrite => Made::Writable,
        };
        changes.insert(
            &rule.mount_point,
            (now(&observed.mounts, &rule.mount_point), then),
        );
    }
    let units: Vec<MountPoint> = running
        .iter()
        .filter(|((directory, name), entry)| is_ours(running, *directory, name, entry))
        .filter_map(|(_, entry)| mount_point_of(entry))
        .collect();
    for path in &units {
        let mut planned = plan.mounts.iter();
        let is_planned = plan.is_strict() && planned.any(|mount| mount.rule.mount_point == *path);
        let mut own = observed.mounts.stack_at(path).into_iter();
        if !is_planned && own.next_back().is_some() {
            changes.insert(path, (now(&observed.mounts, path), Made::Writable));
        }
    }
    let mut out = String::new();
    for (path, (now, then)) in changes {
        if now != then {
            let path = path.to_string();
            for (sign, made) in [("-", now), ("+", then)] {
                out.push_str(&[sign, path.as_str(), ": ", made.word(), "\n"].concat());
            }
        }
    }
    if !out.is_empty() {
        out.insert_str(0, "==> mounts <==\n");
    }
    out.into_bytes()
}

/// What a path is now, below any extensions that are merged over it.
fn now(table: &MountTable, path: &MountPoint) -> Made {
    let top = table.holding(path);
    let base = match top {
        Some(top) if top.is_sysext() => table.by_id(top.parent_id),
        top => top,
    };
    match base {
        Some(mount) if mount.fs_type == b"tmpfs" => Made::Memory,
        Some(mount) if mount.is_read_only() => Made::ReadOnly,
        _ => Made::Writable,
    }
}

/// Where a mount unit of ours mounts.
fn mount_point_of(entry: &Entry) -> Option<MountPoint> {
    let (Entry::File(bytes) | Entry::FileNeeding(_, bytes)) = entry else {
        return None;
    };
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let escaped = lines.find_map(|line| line.strip_prefix(b"Where="))?;
    // The other way round than the one function that escapes: a percent sign is written twice.
    let mut path = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter().copied();
    while let Some(byte) = bytes.next() {
        path.push(byte);
        if byte == b'%' {
            bytes.next();
        }
    }
    MountPoint::new(&path).ok()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn difference(old: &str, new: &str) -> String {
        let file = |text: &str| Entry::File(text.as_bytes().to_vec());
        let (old, new) = (file(old), file(new));
        let mut out = Vec::new();
        entry(
            &mut out,
            (Directory::Late, "usr.mount"),
            Some(&old),
            Some(&new),
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_lines_that_differ_are_said_and_no_others() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), "");
        let told = |old, new| {
            let told = difference(old, new);
            told.strip_prefix("==> late/usr.mount <==\n")
                .unwrap()
                .to_string()
        };
        assert_eq!(told("a\nb\nc\nd\n", "a\nB\nc\nD\n"), "-b\n+B\n-d\n+D\n");
        assert_eq!(told("", "a\nb\n"), "+a\n+b\n");
        assert_eq!(told("a\nb\n", ""), "-a\n-b\n");
        assert_eq!(told("a\na\n", "a\n"), "-a\n");
        assert_eq!(told("a\nb\n", "b\na\n"), "+b\n-b\n");
    }

    #[test]
    fn the_lines_add_up_to_the_new_file() {
        let texts = [
            "",
            "a\n",
            "a\nb\n",
            "b\na\n\n",
            "a\n\nb\n\nc\n",
            "c\nb\n\na\n",
        ];
        for (old, new) in texts.iter().flat_map(|old| texts.map(|new| (*old, new))) {
            let told = difference(old, new);
            let count = |sign| told.lines().filter(|line| line.starts_with(sign)).count();
            let (less, more) = (count('-'), count('+'));
            assert_eq!(
                old.lines().count() + more,
                new.lines().count() + less,
                "{old:?} {new:?}: {told}"
            );
        }
    }

    #[test]
    fn a_percent_sign_in_a_path_is_read_as_it_was_written() {
        let unit = Entry::File(b"[Mount]\nWhat=tmpfs\nWhere=/var/100%%\n".to_vec());
        let path = mount_point_of(&unit).unwrap();
        assert_eq!(path.as_bytes(), b"/var/100%");
        assert_eq!(mount_point_of(&Entry::Link("/x".to_string())), None);
    }
}
