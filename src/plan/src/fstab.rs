//! fstab(5), with line numbers. A line that cannot be read is one error, not the end.

use alloc::vec::Vec;
use core::fmt;

use crate::mount_point::{MountPoint, NotAMountPoint};
use crate::octal;
use crate::text::{Shown, numbered_lines};

/// One line of fstab(5), escapes decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Line number in the file, from 1.
    pub line: u32,
    /// First field: the device, share or label.
    pub spec: Vec<u8>,
    /// Second field: where it is mounted.
    pub file: MountPoint,
    /// Third field: the type of the file system; empty where it is missing.
    pub vfstype: Vec<u8>,
    /// Fourth field, split at commas (quotes protect a comma, as libmount has it); `defaults` where it is missing.
    pub mntops: Vec<Vec<u8>>,
    /// Sixth field: in which round fsck(8) checks it; 0, or a field that is missing or no such number, is never.
    pub passno: u32,
}

/// A line that mount(8) leaves out, or that names no place, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Line number in the file, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a line of fstab(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Fewer than the three fields that libmount insists on.
    MissingFields,
    /// A NUL byte, where libmount gives the line up and systemd reads on as if the line ended there.
    NulByte,
    /// Field 5 or 6 is no number.
    NotANumber,
    /// The second field is no mount point (and not `none` or `swap`, which name no place).
    MountPoint(Vec<u8>, NotAMountPoint),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::MissingFields => {
                f.write_str("fewer than three fields; write device, mount point and type")
            }
            Problem::NulByte => f.write_str("a NUL byte; write the line as text"),
            Problem::NotANumber => {
                f.write_str("something other than a number after the options; write 0 0 there")
            }
            Problem::MountPoint(field, why) => write!(f, "mount point \"{}\" {why}", Shown(field)),
        }
    }
}

/// What an fstab says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fstab {
    /// The lines that name a mount point, in order. Some are bad lines too: systemd makes a mount unit of a line that
    /// mount(8) leaves out, for instance of one without a type.
    pub entries: Vec<Entry>,
    /// The lines that something is wrong with.
    pub bad_lines: Vec<BadLine>,
}

impl Fstab {
    /// Reads the text of an fstab. Total: no input panics. Comments, blank lines, `swap` and `none` lines make no entry.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut fstab = Fstab::default();
        for (line, bytes) in numbered_lines(text) {
            let (entry, problem) = read(line, bytes);
            fstab.entries.extend(entry);
            fstab
                .bad_lines
                .extend(problem.map(|problem| BadLine { line, problem }));
        }
        fstab
    }

    /// The last entry for a mount point: the one that is mounted last, and seen.
    #[must_use]
    pub fn entry_at(&self, mount_point: &MountPoint) -> Option<&Entry> {
        self.entries
            .iter()
            .rev()
            .find(|entry| entry.file == *mount_point)
    }
}

/// When what lies at a path is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// With the local file systems, before anything that could change packages.
    Local,
    /// With the network, long after the local file systems.
    Network,
    /// At any time: the boot does not wait for it, and it may need all that the boot brings.
    Late,
    /// When somebody mounts this place, which the boot does not.
    ByHand(MountPoint),
}

/// When what lies at a path is there, as the mounts at it and above it say. The root file system and `/usr` do not count,
/// for the initramfs mounts them.
pub(crate) fn arrival<'a>(entries: impl Iterator<Item = &'a Entry>, path: &MountPoint) -> Arrival {
    let mut nearest: Option<&Entry> = None;
    let mut is_from_network = false;
    for entry in entries {
        let is_mounted_before = [&b"/"[..], b"/usr"].contains(&entry.file.as_bytes());
        if is_mounted_before || !path.is_at_or_below(&entry.file) {
            continue;
        }
        is_from_network |= entry.needs_network();
        if nearest.is_none_or(|nearest| entry.file.is_at_or_below(&nearest.file)) {
            nearest = Some(entry);
        }
    }
    // What the nearest one lies on comes before it: systemd mounts that first, and makes local-fs.target wait for both.
    match nearest {
        Some(entry) if entry.is_by_hand() => Arrival::ByHand(entry.file.clone()),
        Some(_) if is_from_network => Arrival::Network,
        Some(entry) if entry.is_late() => Arrival::Late,
        None | Some(_) => Arrival::Local,
    }
}

/// Types of file systems that systemd orders after the network. Source: systemd src/basic/mountpoint-util.c
/// (`fstype_is_network`).
const NETWORK_TYPES: [&str; 17] = [
    "afs",
    "ceph",
    "cifs",
    "davfs",
    "gfs",
    "gfs2",
    "glusterfs",
    "lustre",
    "ncp",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "pvfs2",
    "smb3",
    "smbfs",
    "sshfs",
];

/// Whether a file system of this type, or with the option `_netdev`, is mounted when the network is up.
pub(crate) fn needs_network<'a>(
    vfstype: &[u8],
    options: impl IntoIterator<Item = &'a [u8]>,
) -> bool {
    let vfstype = vfstype.strip_prefix(b"fuse.").unwrap_or(vfstype);
    NETWORK_TYPES.iter().any(|name| name.as_bytes() == vfstype)
        || options.into_iter().any(|option| option == b"_netdev")
}

impl Entry {
    /// Whether the line carries an option, as a whole word: `errors=remount-ro` is not `ro`.
    #[must_use]
    pub fn has_option(&self, option: &str) -> bool {
        self.mntops.iter().any(|o| o == option.as_bytes())
    }

    fn needs_network(&self) -> bool {
        needs_network(&self.vfstype, self.mntops.iter().map(Vec::as_slice))
    }

    /// Whether nothing mounts it at boot, not even the first look at it. Source: systemd.mount(5), `noauto`.
    fn is_by_hand(&self) -> bool {
        let is_automount = ["x-systemd.automount", "comment=systemd.automount"]
            .iter()
            .any(|option| self.has_option(option));
        !is_automount && self.is_last("noauto", "auto")
    }

    /// Whether local-fs.target does not wait for it. Source: systemd.mount(5), `nofail`.
    fn is_late(&self) -> bool {
        self.is_last("nofail", "fail")
    }

    /// Whether of two options that exclude each other the first one counts: the later one of both does.
    fn is_last(&self, option: &str, other: &str) -> bool {
        let mut last = self.mntops.iter().rev();
        let found = last.find(|o| [option.as_bytes(), other.as_bytes()].contains(&o.as_slice()));
        found.is_some_and(|found| found == option.as_bytes())
    }
}

/// Returns the text of an fstab without its lines for one mount point; every other byte stays.
#[must_use]
pub fn without(text: &[u8], mount_point: &MountPoint) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        if !is_for(line, mount_point) {
            kept.extend_from_slice(line);
        }
    }
    kept
}

/// Reads one line: the mount that it asks for, and what is wrong with it. It can have both.
fn read(line: u32, bytes: &[u8]) -> (Option<Entry>, Option<Problem>) {
    let mut problem = bytes.contains(&0).then_some(Problem::NulByte);
    let mut fields = fields(bytes);
    let Some(spec) = fields.next() else {
        return (None, problem);
    };
    let Some(file) = fields.next() else {
        return (None, problem.or(Some(Problem::MissingFields)));
    };
    let vfstype = fields.next().unwrap_or_default();
    if names_no_place(file, vfstype) {
        return (None, problem);
    }
    let path = octal::decoded(file);
    let file = match MountPoint::new(&path) {
        Ok(file) => file,
        Err(why) => {
            return (
                None,
                problem.or(Some(Problem::MountPoint(path.into_owned(), why))),
            );
        }
    };
    let mntops = options(&octal::decoded(fields.next().unwrap_or(b"defaults")));
    let numbers = [fields.next(), fields.next()];
    if vfstype.is_empty() {
        problem = problem.or(Some(Problem::MissingFields));
    } else if !numbers.into_iter().flatten().all(is_number) {
        problem = problem.or(Some(Problem::NotANumber));
    }
    let passno = numbers[1].and_then(|field| str::from_utf8(field).ok()?.parse().ok());
    (
        Some(Entry {
            line,
            spec: octal::decode(spec),
            file,
            vfstype: octal::decode(vfstype),
            mntops,
            passno: passno.unwrap_or(0),
        }),
        problem,
    )
}

fn is_number(field: &[u8]) -> bool {
    let digits = field
        .strip_prefix(b"-")
        .or(field.strip_prefix(b"+"))
        .unwrap_or(field);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// Whether a line is for one mount point, even if something else is wrong with it.
fn is_for(line: &[u8], mount_point: &MountPoint) -> bool {
    let mut fields = fields(line.strip_suffix(b"\n").unwrap_or(line)).skip(1);
    let Some(file) = fields.next() else {
        return false;
    };
    !names_no_place(file, fields.next().unwrap_or_default())
        && MountPoint::new(&octal::decoded(file)).is_ok_and(|file| file == *mount_point)
}

fn names_no_place(file: &[u8], vfstype: &[u8]) -> bool {
    matches!(file, b"none" | b"swap") || vfstype == b"swap"
}

/// The fields of a line, as far as C reads it: to the first NUL. None in a comment.
fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = line.split(|&byte| byte == 0).next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut fields = line
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|field| !field.is_empty())
        .peekable();
    let comment = fields.peek().is_some_and(|first| first.starts_with(b"#"));
    fields.filter(move |_| !comment)
}

/// Splits options at commas, save where `"` or a backslash protects them.
///
/// Source: util-linux libmount/src/optstr.c, `mnt_optstr_next_option`.
pub(crate) fn options(list: &[u8]) -> Vec<Vec<u8>> {
    let mut quoted = false;
    let mut previous = 0;
    let separates = |&byte: &u8| {
        let escaped = previous == b'\\';
        quoted ^= byte == b'"' && !escaped;
        previous = byte;
        byte == b',' && !quoted && !escaped
    };
    list.split(separates)
        .filter(|option| !option.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::{format, vec};

    use super::*;

    fn point(path: &str) -> MountPoint {
        MountPoint::new(path.as_bytes()).unwrap()
    }

    fn one(text: &str) -> Entry {
        let fstab = Fstab::parse(text.as_bytes());
        assert_eq!(fstab.bad_lines, [], "{text:?}");
        assert_eq!(fstab.entries.len(), 1, "{text:?}");
        fstab.entries.into_iter().next().unwrap()
    }

    fn problem(text: &str) -> Problem {
        let fstab = Fstab::parse(text.as_bytes());
        assert_eq!(fstab.bad_lines.len(), 1, "{text:?}");
        fstab.bad_lines.into_iter().next().unwrap().problem
    }

    fn options_of(list: &str) -> Vec<String> {
        let entry = one(&format!("LABEL=x /x ext4 {list}"));
        entry
            .mntops
            .into_iter()
            .map(|option| String::from_utf8(option).unwrap())
            .collect()
    }

    #[test]
    fn a_line_has_its_device_place_type_options_and_number() {
        let fstab = Fstab::parse(
            b"# root\n\nUUID=1 / ext4 rw 0 1\nLABEL=usr\t/usr \t ext4  ro,noatime 0 2\n",
        );
        assert_eq!(fstab.bad_lines, []);
        assert_eq!(
            fstab.entries[1],
            Entry {
                line: 4,
                spec: b"LABEL=usr".to_vec(),
                file: point("/usr"),
                vfstype: b"ext4".to_vec(),
                mntops: vec![b"ro".to_vec(), b"noatime".to_vec()],
                passno: 2,
            }
        );
    }

    #[test]
    fn comments_blank_lines_swap_and_none_make_no_entry_and_no_problem() {
        let text = b"#/dev/a /a ext4\n \t# /dev/b /b ext4\n\n \t \n\r\n/dev/c swap swap\n/dev/d none swap sw\n\
            /dev/e / swap\n/dev/f none ext4\n";
        assert_eq!(Fstab::parse(text), Fstab::default());
    }

    #[test]
    fn a_hash_within_a_line_is_no_comment() {
        assert_eq!(one("#1 /a ext4\n/dev/#2 /b#c ext4").file, point("/b#c"));
    }

    #[test]
    fn a_line_may_start_with_blanks() {
        assert_eq!(one(" \t/dev/a /a ext4").spec, b"/dev/a");
    }

    #[test]
    fn the_last_line_needs_no_newline_and_lines_may_end_as_on_dos() {
        let fstab = Fstab::parse(b"/dev/a /a ext4\r\n/dev/b /b ext4 ro\r");
        assert_eq!(fstab.entries[0].vfstype, b"ext4");
        assert!(fstab.entries[1].has_option("ro"));
    }

    #[test]
    fn missing_options_are_defaults() {
        assert_eq!(one("/dev/a /a ext4").mntops, [b"defaults"]);
    }

    #[test]
    fn only_a_number_above_zero_in_the_sixth_field_asks_for_a_check() {
        for (line, passno) in [
            ("/dev/a /a ext4", 0),
            ("/dev/a /a ext4 rw 1", 0),
            ("/dev/a /a ext4 rw 1 2", 2),
            ("/dev/a /a ext4 rw 0 +1", 1),
            ("/dev/a /a ext4 rw 0 -1", 0),
            ("/dev/a /a ext4 rw 0 99999999999999999999", 0),
        ] {
            assert_eq!(one(line).passno, passno, "{line}");
        }
    }

    #[test]
    fn a_space_in_every_field_survives() {
        let entry = one(r"/dev/disk/by-label/a\040b /mnt/a\040b fuse.a\040b x=\040y");
        assert_eq!(entry.spec, b"/dev/disk/by-label/a b");
        assert_eq!(entry.file, point("/mnt/a b"));
        assert_eq!(entry.vfstype, b"fuse.a b");
        assert!(entry.has_option("x= y"));
    }

    #[test]
    fn a_comma_in_quotes_or_behind_a_backslash_splits_nothing() {
        assert_eq!(
            options_of(r#"context="a,ro",nodev"#),
            [r#"context="a,ro""#, "nodev"]
        );
        assert_eq!(
            options_of(r"lowerdir=/a\,ro,nodev"),
            [r"lowerdir=/a\,ro", "nodev"]
        );
        assert_eq!(options_of(r#"x=\",ro"#), [r#"x=\""#, "ro"]);
        assert_eq!(options_of(r#"x="a,ro"#), [r#"x="a,ro"#]);
    }

    #[test]
    fn empty_options_are_none() {
        assert_eq!(options_of(",,ro,,nodev,"), ["ro", "nodev"]);
    }

    #[test]
    fn remounting_read_only_on_errors_is_not_read_only() {
        assert!(!one("/dev/a / ext4 errors=remount-ro,rw").has_option("ro"));
        assert!(one("/dev/a / ext4 errors=remount-ro,ro").has_option("ro"));
    }

    #[test]
    fn usr_with_slashes_around_it_is_usr() {
        assert!(
            Fstab::parse(b"/dev/a //usr/ ext4\n")
                .entry_at(&point("/usr"))
                .is_some()
        );
    }

    #[test]
    fn of_two_lines_for_one_place_the_last_is_seen() {
        let fstab = Fstab::parse(b"/dev/a /usr ext4\n/dev/b /usr ext4\n/dev/c /usr/local ext4\n");
        assert_eq!(fstab.entry_at(&point("/usr")).unwrap().spec, b"/dev/b");
        assert_eq!(fstab.entry_at(&point("/var")), None);
    }

    #[test]
    fn what_lies_at_a_path_is_there_with_the_nearest_mount() {
        let by_hand = |place| Arrival::ByHand(point(place));
        for (text, expected) in [
            ("", Arrival::Local),
            (
                "a / ext4 nofail\nb /usr ext4 noauto\nc /var/libx ext4 nofail",
                Arrival::Local,
            ),
            ("a /var ext4 nofail", Arrival::Late),
            ("a /var ext4 nofail,fail", Arrival::Local),
            ("a /var ext4 nofail\nb /var/lib ext4 rw", Arrival::Local),
            ("b /var/lib ext4 nofail\na /var ext4 noauto", Arrival::Late),
            (
                "a /var ext4 nofail\nb /var/lib ext4 noauto",
                by_hand("/var/lib"),
            ),
            ("a /var ext4 nofail,noauto", by_hand("/var")),
            ("a /var ext4 noauto,auto", Arrival::Local),
            ("a /var ext4 noauto,x-systemd.automount", Arrival::Local),
            (
                "a /var ext4 nofail,comment=systemd.automount",
                Arrival::Late,
            ),
            ("a /var nfs nofail", Arrival::Network),
            (
                "a /var nfs rw\nb /var/lib none bind,nofail",
                Arrival::Network,
            ),
            (
                "a /var ext4 _netdev,noauto,x-systemd.automount",
                Arrival::Network,
            ),
            ("a /var nfs noauto", by_hand("/var")),
        ] {
            let entries = Fstab::parse(text.as_bytes()).entries;
            let found = arrival(entries.iter(), &point("/var/lib/pacman"));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_bad_line_is_not_the_end() {
        let fstab = Fstab::parse(b"/dev/a\n/dev/b usr ext4\n/dev/c /c ext4\n");
        assert_eq!(
            fstab
                .bad_lines
                .iter()
                .map(|bad| bad.line)
                .collect::<Vec<_>>(),
            [1, 2]
        );
        assert_eq!(fstab.entries[0].line, 3);
    }

    #[test]
    fn a_line_that_mount_leaves_out_but_systemd_mounts_is_an_entry_and_a_problem() {
        for (line, expected) in [
            ("/dev/a /usr", Problem::MissingFields),
            ("/dev/a /usr ext4 ro 0 # the system", Problem::NotANumber),
            ("/dev/a /usr ext4 ro x", Problem::NotANumber),
            ("/dev/a /usr ext4 ro 0 2x", Problem::NotANumber),
            ("/dev/a /usr ext4 ro\0x", Problem::NulByte),
        ] {
            assert!(
                Fstab::parse(line.as_bytes())
                    .entry_at(&point("/usr"))
                    .is_some(),
                "{line:?}"
            );
            assert_eq!(problem(line), expected, "{line:?}");
        }
    }

    #[test]
    fn what_stands_behind_the_sixth_field_is_nobodys_business() {
        assert_eq!(
            one("/dev/a /usr ext4 ro 0 -2 # the system").file,
            point("/usr")
        );
    }

    #[test]
    fn without_one_place_every_other_byte_stays() {
        let text =
            b"# /usr\n/dev/a / ext4\r\n\n/dev/b  /usr// ext4\n/dev/c /usr/local\xff ext4 # /usr\n \
            /dev/d\t/./usr\text4\r\n/usr /srv none bind\nbroken";
        let kept = b"# /usr\n/dev/a / ext4\r\n\n/dev/c /usr/local\xff ext4 # /usr\n/usr /srv none bind\nbroken";
        assert_eq!(without(text, &point("/usr")), kept);
    }

    #[test]
    fn without_a_place_its_line_goes_even_where_something_else_is_wrong_with_it() {
        for line in [
            "/dev/a /usr",
            "/dev/a /usr ext4 ro x\n",
            "/dev/a /usr\0/x ext4\r\n",
            "/dev/a /\\165sr ext4",
        ] {
            assert_eq!(without(line.as_bytes(), &point("/usr")), b"", "{line:?}");
        }
    }

    #[test]
    fn without_a_place_that_is_not_there_nothing_changes() {
        for text in [
            "",
            "\n",
            "/dev/a / ext4",
            "#/dev/a /usr ext4\n",
            "/usr\n",
            "/dev/a /usr swap\n",
        ] {
            assert_eq!(without(text.as_bytes(), &point("/usr")), text.as_bytes());
        }
    }

    #[test]
    fn a_line_of_one_field_is_told_what_it_lacks() {
        assert_eq!(
            problem("/dev/a\n").to_string(),
            "fewer than three fields; write device, mount point and type"
        );
    }

    #[test]
    fn a_mount_point_that_is_none_is_shown_with_what_to_write() {
        assert_eq!(
            problem("/dev/a usr ext4").to_string(),
            "mount point \"usr\" is not absolute; start it with /"
        );
        assert_eq!(
            problem("/dev/a /var/../etc ext4").to_string(),
            "mount point \"/var/../etc\" contains ..; write the path that it leads to"
        );
        assert_eq!(
            problem("/dev/a /a\\012b ext4").to_string(),
            "mount point \"/a\\x0ab\" contains a newline or a NUL byte; use a path without it"
        );
    }

    #[test]
    fn a_comment_where_a_number_belongs_is_told_what_to_write() {
        assert_eq!(
            problem("/dev/a /a ext4 ro # x").to_string(),
            "something other than a number after the options; write 0 0 there"
        );
    }

    #[test]
    fn a_nul_byte_is_told_apart() {
        assert_eq!(
            problem("/dev/a /a ext4\0").to_string(),
            "a NUL byte; write the line as text"
        );
    }
}
