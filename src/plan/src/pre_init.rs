//! A boot without an initramfs: what the first process mounts on `/usr`, and what it starts then.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::cmdline::Cmdline;
use crate::fstab::{self, Fstab};
use crate::mount_options::{Options, without_quotes};
use crate::mount_point::MountPoint;
use crate::partition_table::Partition;
use crate::plan::{Facts, Owner, enabled_fstab};
use crate::superblock::Superblock;
use crate::text::Shown;

/// Where `make install-init` puts a copy of the boot program: on the root file system, for `/usr` is not there yet.
pub const PRE_INIT: &str = "/usr-policy-init";

/// What is started where `usrpolicy.init=` says nothing else, in this order; the shell for whoever has to mend the rest.
pub const REAL_INITS: [&str; 3] = ["/sbin/init", "/usr/lib/systemd/systemd", SHELL];

/// The last of [`REAL_INITS`]. The kernel's words for an init would be a script's name to it.
pub const SHELL: &str = "/bin/sh";

/// A file system that every program expects, and that the kernel leaves to the first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiFileSystem {
    /// Its type.
    pub fs_type: &'static str,
    /// Where it belongs.
    pub mount_point: &'static str,
    /// Its options: systemd keeps what is mounted already, so they are the ones that it uses.
    pub options: &'static str,
}

/// Source: systemd src/shared/mount-setup.c, `mount_table`, and src/basic/mountpoint-util.h, `TMPFS_LIMITS_*`.
pub const API_FILE_SYSTEMS: [ApiFileSystem; 4] = [
    ApiFileSystem {
        fs_type: "proc",
        mount_point: "/proc",
        options: "nosuid,nodev,noexec",
    },
    ApiFileSystem {
        fs_type: "sysfs",
        mount_point: "/sys",
        options: "nosuid,nodev,noexec",
    },
    ApiFileSystem {
        fs_type: "devtmpfs",
        mount_point: "/dev",
        options: "mode=0755,size=4m,nr_inodes=64k,nosuid,strictatime",
    },
    ApiFileSystem {
        fs_type: "tmpfs",
        mount_point: "/run",
        options: "mode=0755,size=20%,nr_inodes=800k,nosuid,nodev,strictatime",
    },
];

/// What is to be mounted on `/usr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Who asks for it.
    pub owner: Owner,
    /// The device or share, as it was written, for messages.
    pub spec: Vec<u8>,
    /// The same, understood.
    pub source: Source,
    /// The type of its file system; `None` where it is to be found out.
    pub fs_type: Option<Vec<u8>>,
    /// Its options.
    pub options: Options,
    /// Whether it is checked first.
    pub check: Check,
    /// How long its device is waited for; `None` is for ever.
    pub patience: Option<Duration>,
}

/// Whether fsck(8) runs before the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// No.
    Never,
    /// If the file system says that it needs it.
    AsNeeded,
    /// Whatever it says: `fsck.mode=force`.
    Always,
}

impl Order {
    /// What command line and fstab want on `/usr`; `None` where they want nothing, and `/usr` is a directory of the root.
    ///
    /// `mount.usr=` goes before fstab, as it does in an initramfs. Source: systemd-fstab-generator(8), "Kernel Command Line".
    ///
    /// # Errors
    /// [`Unsupported`], where something else than a first process must mount it.
    #[must_use]
    pub fn new(facts: &Facts) -> Option<Result<Self, Unsupported>> {
        let fstab = Fstab::parse(enabled_fstab(facts));
        command_line(&facts.cmdline).or_else(|| fstab_line(&fstab, &facts.cmdline))
    }
}

fn command_line(cmdline: &Cmdline) -> Option<Result<Order, Unsupported>> {
    let last = |key| cmdline.with_key(key).next_back()?.value.as_deref();
    // Flags add up. Source: systemd src/fstab-generator/fstab-generator.c, `parse_proc_cmdline_item`.
    let all = |key| {
        let values: Vec<&[u8]> = cmdline
            .with_key(key)
            .filter_map(|word| word.value.as_deref())
            .collect();
        (!values.is_empty()).then(|| values.join(&b','))
    };
    let (fs_type, flags) = (last("mount.usrfstype"), all("mount.usrflags"));
    // With type or flags alone, /usr is on the root's device: another subvolume of it.
    let spec = match last("mount.usr") {
        Some(spec) => spec,
        None if fs_type.is_some() || flags.is_some() => last("root")?,
        None => return None,
    };
    let fs_type = fs_type.or(last("rootfstype")).unwrap_or(b"auto");
    let mut options = flags.or_else(|| all("rootflags")).unwrap_or_default();
    // Before them, so that they win.
    let writable = cmdline
        .words()
        .filter(|word| word.value.is_none() && matches!(word.key.as_slice(), b"ro" | b"rw"))
        .last()
        .is_some_and(|word| word.key == b"rw");
    let default: &[u8] = if writable { b"rw," } else { b"ro," };
    options.splice(..0, default.iter().copied());
    let request = Request {
        owner: Owner::CommandLine,
        spec,
        fs_type,
        options: &fstab::options(&options),
        is_checked: true,
    };
    Some(request.order(cmdline))
}

fn fstab_line(fstab: &Fstab, cmdline: &Cmdline) -> Option<Result<Order, Unsupported>> {
    let entry = fstab.entry_at(&MountPoint::new(b"/usr").ok()?)?;
    let request = Request {
        owner: Owner::Fstab { line: entry.line },
        spec: &entry.spec,
        fs_type: &entry.vfstype,
        options: &entry.mntops,
        is_checked: entry.passno > 0,
    };
    Some(request.order(cmdline))
}

/// A mount of `/usr` as somebody wrote it.
struct Request<'a> {
    owner: Owner,
    spec: &'a [u8],
    fs_type: &'a [u8],
    options: &'a [Vec<u8>],
    is_checked: bool,
}

impl Request<'_> {
    fn order(&self, cmdline: &Cmdline) -> Result<Order, Unsupported> {
        let refuse = |reason| Unsupported {
            owner: self.owner,
            spec: self.spec.to_vec(),
            reason,
        };
        if self
            .options
            .iter()
            .any(|option| matches!(option.as_slice(), b"bind" | b"rbind"))
        {
            return Err(refuse(Reason::Bind));
        }
        let mut options = Options::new(self.options);
        let source = Source::new(self.spec, self.fs_type).map_err(refuse)?;
        if let Source::Share { address } = &source {
            options.for_share(address);
        }
        // A list of types is for mount(8) to try.
        let fs_type = match self.fs_type {
            b"" | b"auto" => None,
            list if list.contains(&b',') => None,
            one => Some(one.to_vec()),
        };
        let mode = cmdline
            .with_key("fsck.mode")
            .next_back()
            .and_then(|word| word.value.as_deref());
        let check = match (&source, mode) {
            (Source::Share { .. }, _) | (_, Some(b"skip")) => Check::Never,
            _ if !self.is_checked => Check::Never,
            (_, Some(b"force")) => Check::Always,
            _ => Check::AsNeeded,
        };
        Ok(Order {
            owner: self.owner,
            spec: self.spec.to_vec(),
            source,
            fs_type,
            options,
            check,
            patience: patience(self.options),
        })
    }
}

/// Where a file system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A device with this path.
    Node(Vec<u8>),
    /// A device of the device mapper, with this name.
    Mapper(Vec<u8>),
    /// A device with this mark.
    Tagged(Tag, Vec<u8>),
    /// A share of a server with this address.
    Share {
        /// The server's address.
        address: Vec<u8>,
    },
}

/// What a device can be known by. Source: mount(8), "Indicating the device".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// UUID of the file system.
    Uuid,
    /// Label of the file system.
    Label,
    /// UUID of the partition.
    PartUuid,
    /// Name of the partition.
    PartLabel,
}

/// The words of fstab(5), and the directories in which udev has links by the same marks.
const TAGS: [(&[u8], &[u8], Tag); 4] = [
    (b"UUID=", b"/dev/disk/by-uuid/", Tag::Uuid),
    (b"LABEL=", b"/dev/disk/by-label/", Tag::Label),
    (b"PARTUUID=", b"/dev/disk/by-partuuid/", Tag::PartUuid),
    (b"PARTLABEL=", b"/dev/disk/by-partlabel/", Tag::PartLabel),
];

impl Source {
    fn new(spec: &[u8], fs_type: &[u8]) -> Result<Self, Reason> {
        if fs_type == b"nfs" || fs_type == b"nfs4" {
            return share(spec).ok_or(Reason::ServerByName);
        }
        for (word, directory, tag) in TAGS {
            if let Some(mark) = spec.strip_prefix(word) {
                return Ok(Source::Tagged(tag, without_quotes(mark).to_vec()));
            }
            if let Some(name) = spec.strip_prefix(directory) {
                return Ok(Source::Tagged(tag, without_udev_escapes(name)));
            }
        }
        if spec.starts_with(b"/dev/disk/") {
            return Err(Reason::UdevLink);
        }
        match spec.strip_prefix(b"/dev/mapper/") {
            Some(name) => Ok(Source::Mapper(name.to_vec())),
            None if spec.starts_with(b"/dev/") => Ok(Source::Node(spec.to_vec())),
            None => Err(Reason::NoDevice),
        }
    }

    /// Whether a device of this kind must be opened to tell.
    #[must_use]
    pub fn is_of_file_system(&self) -> bool {
        matches!(self, Source::Tagged(Tag::Uuid | Tag::Label, _))
    }

    /// Whether a file system is the one.
    #[must_use]
    pub fn is_file_system(&self, superblock: &Superblock) -> bool {
        match self {
            Source::Tagged(Tag::Uuid, mark) => superblock
                .uuid
                .as_ref()
                .is_some_and(|uuid| mark.eq_ignore_ascii_case(uuid.as_bytes())),
            Source::Tagged(Tag::Label, mark) => superblock.label == *mark,
            _ => false,
        }
    }

    /// Whether a partition is the one.
    #[must_use]
    pub fn is_partition(&self, partition: &Partition) -> bool {
        match self {
            Source::Tagged(Tag::PartUuid, mark) => {
                mark.eq_ignore_ascii_case(partition.uuid.as_bytes())
            }
            Source::Tagged(Tag::PartLabel, mark) => partition.label == *mark,
            _ => false,
        }
    }
}

/// `ADDRESS:/PATH` or `[ADDRESS]:/PATH`; nobody is there to look up a name.
fn share(spec: &[u8]) -> Option<Source> {
    let at = spec.windows(2).position(|pair| pair == b":/")?;
    let server = &spec[..at];
    let address = server
        .strip_prefix(b"[")
        .and_then(|server| server.strip_suffix(b"]"))
        .unwrap_or(server);
    // The kernel reads it; here it is only told from a name.
    let is_address = address
        .iter()
        .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':'))
        && address.iter().any(|byte| matches!(byte, b'.' | b':'));
    is_address.then(|| Source::Share {
        address: address.to_vec(),
    })
}

/// `\x20` is a blank in a link of udev's. Source: systemd src/libudev/libudev-util.c, `udev_util_encode_string`.
fn without_udev_escapes(name: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    loop {
        match rest {
            [b'\\', b'x', high, low, tail @ ..]
                if digit(*high).is_some() && digit(*low).is_some() =>
            {
                let value = digit(*high).unwrap_or(0) * 16 + digit(*low).unwrap_or(0);
                bytes.push(u8::try_from(value).unwrap_or(b'?'));
                rest = tail;
            }
            [byte, tail @ ..] => {
                bytes.push(*byte);
                rest = tail;
            }
            [] => return bytes,
        }
    }
}

/// A mount of `/usr` that pre-init leaves to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    owner: Owner,
    spec: Vec<u8>,
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Bind,
    UdevLink,
    NoDevice,
    ServerByName,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.reason {
            Reason::Bind => {
                "a bind of another directory cannot be made before that is mounted; boot with an initramfs"
            }
            Reason::UdevLink => {
                "a link that udev makes, and udev is not running yet; write UUID=, LABEL=, PARTUUID=, PARTLABEL= or a name such as /dev/sda2"
            }
            Reason::NoDevice => {
                "neither a block device nor an NFS share, which is all that can be mounted here; boot with an initramfs"
            }
            Reason::ServerByName => "the server's name cannot be looked up yet; write its address",
        };
        write!(f, "{}: /usr from {}: {what}", self.owner, Shown(&self.spec))
    }
}

/// The kernel has mounted the root by itself: its drivers are in the kernel, and most disks are there. Ten seconds are for
/// one that still spins up behind another bus.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a device is waited for: `x-systemd.device-timeout=`, 0 and infinity for ever.
fn patience(options: &[Vec<u8>]) -> Option<Duration> {
    let asked = options
        .iter()
        .filter_map(|option| option.strip_prefix(b"x-systemd.device-timeout="))
        .next_back()
        .and_then(|value| core::str::from_utf8(value).ok());
    match asked {
        None => Some(PATIENCE),
        Some("infinity") => None,
        Some(span) => match time_span(span) {
            Some(Duration::ZERO) => None,
            Some(limit) => Some(limit),
            None => Some(PATIENCE),
        },
    }
}

/// `90`, `90s`, `1min 30s`: what people write of systemd.time(7), in whole numbers.
fn time_span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut span = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (digits, tail) = rest.split_at(
            rest.find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len()),
        );
        let tail = tail.trim_start();
        let (unit, tail) = tail.split_at(
            tail.find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(tail.len()),
        );
        let milliseconds: u64 = match unit {
            "ms" | "msec" => 1,
            "" | "s" | "sec" | "second" | "seconds" => 1000,
            "m" | "min" | "minute" | "minutes" => 60_000,
            "h" | "hr" | "hour" | "hours" => 3_600_000,
            _ => return None,
        };
        let number: u64 = digits.parse().ok()?;
        span = span.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = tail.trim_start();
    }
    Some(span)
}

/// What fsck(8) says by its exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// Nothing is wrong any more.
    Clean,
    /// Something is, or may be: the file system must not be written.
    NotClean,
    /// Nobody knows: the helper ended with this status before it looked.
    NotAtAll(i32),
}

impl Checked {
    /// Reads an exit status; `None` is the end by a signal.
    ///
    /// Source: fsck(8), "EXIT STATUS"; of 126 and 127 POSIX, "Exit Status for Commands". With 127 the loader ends a program
    /// without its libraries.
    #[must_use]
    pub fn new(status: Option<i32>) -> Self {
        match status {
            Some(0 | 1) => Checked::Clean,
            Some(status @ (16 | 32 | 126..=128)) => Checked::NotAtAll(status),
            _ => Checked::NotClean,
        }
    }
}

/// What can be started, the wish of the command line first.
pub fn real_inits(asked: Option<&MountPoint>) -> impl Iterator<Item = &[u8]> {
    asked
        .map(MountPoint::as_bytes)
        .into_iter()
        .chain(REAL_INITS.iter().map(|path| path.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::{format, vec};

    use super::*;
    use crate::mount_options::Attribute;
    use crate::mount_options::tests::settings;

    fn facts(cmdline: &str, fstab: &str) -> Facts {
        Facts {
            cmdline: Cmdline::parse(cmdline.as_bytes()),
            configuration: Vec::new(),
            fstab: Some(fstab.into()),
            database: None,
        }
    }

    fn order(cmdline: &str, fstab: &str) -> Order {
        Order::new(&facts(cmdline, fstab)).unwrap().unwrap()
    }

    fn refusal(fstab: &str) -> String {
        Order::new(&facts("", fstab))
            .unwrap()
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn where_nobody_wants_anything_on_usr_nothing_is_mounted() {
        for (cmdline, fstab) in [
            ("", ""),
            (
                "root=/dev/vda1 rw",
                "/dev/vda1 / ext4\n/dev/vda3 /usr/local ext4\n",
            ),
            ("fstab=no", "/dev/vda2 /usr ext4\n"),
            ("mount.usrflags=ro", ""),
        ] {
            assert_eq!(
                Order::new(&facts(cmdline, fstab)),
                None,
                "{cmdline} {fstab}"
            );
        }
    }

    #[test]
    fn the_line_of_fstab_is_the_order() {
        let line = "# x\nLABEL=my\\040usr /usr ext4 rw,nodev,data=ordered,x-systemd.device-timeout=1min 0 2\n";
        assert_eq!(
            order("root=/dev/vda1 usrpolicy=strict", line),
            Order {
                owner: Owner::Fstab { line: 2 },
                spec: b"LABEL=my usr".to_vec(),
                source: Source::Tagged(Tag::Label, b"my usr".to_vec()),
                fs_type: Some(b"ext4".to_vec()),
                options: Options {
                    read_only: false,
                    read_only_file_system: false,
                    attributes: vec![Attribute::NoDev],
                    settings: vec![(b"data".to_vec(), Some(b"ordered".to_vec()))],
                },
                check: Check::AsNeeded,
                patience: Some(Duration::from_mins(1)),
            }
        );
    }

    #[test]
    fn the_command_line_goes_before_fstab() {
        let order = order(
            "mount.usr=UUID=a mount.usr=/dev/vdb mount.usrfstype=btrfs mount.usrflags=subvol=usr mount.usrflags=noatime",
            "/dev/vda2 /usr ext4 rw 0 0\n",
        );
        assert_eq!(order.owner, Owner::CommandLine);
        assert_eq!(order.source, Source::Node(b"/dev/vdb".to_vec()));
        assert_eq!(order.fs_type, Some(b"btrfs".to_vec()));
        assert_eq!(settings(&order.options), ["subvol=usr"]);
        assert_eq!(order.options.attributes, [Attribute::NoAtime]);
        assert_eq!(order.check, Check::AsNeeded);
    }

    #[test]
    fn on_the_command_line_usr_is_as_writable_as_the_root_if_its_flags_say_nothing() {
        for (cmdline, read_only) in [
            ("mount.usr=/dev/vdb", true),
            ("mount.usr=/dev/vdb rw ro", true),
            ("mount.usr=/dev/vdb ro rw", false),
            ("mount.usr=/dev/vdb rw mount.usrflags=ro", true),
            ("mount.usr=/dev/vdb mount.usrflags=noatime,rw", false),
        ] {
            let options = order(cmdline, "").options;
            assert_eq!(
                (options.read_only, options.read_only_file_system),
                (read_only, read_only),
                "{cmdline}"
            );
        }
    }

    #[test]
    fn with_flags_alone_usr_is_on_the_device_of_the_root() {
        let order = order(
            "root=PARTUUID=12-03 rootfstype=btrfs rootflags=subvol=root mount.usrflags=subvol=usr",
            "",
        );
        assert_eq!(
            order.source,
            Source::Tagged(Tag::PartUuid, b"12-03".to_vec())
        );
        assert_eq!(order.fs_type, Some(b"btrfs".to_vec()));
        assert_eq!(settings(&order.options), ["subvol=usr"]);
    }

    #[test]
    fn a_type_that_is_to_be_tried_is_found_out() {
        for fs_type in ["auto", "ext4,btrfs"] {
            let line = format!("/dev/vdb /usr {fs_type}\n");
            assert_eq!(order("", &line).fs_type, None, "{fs_type}");
        }
        assert_eq!(order("mount.usr=/dev/vdb", "").fs_type, None);
    }

    #[test]
    fn every_way_to_name_a_device_is_understood() {
        let node = |path: &str| Source::Node(path.into());
        let tagged = |tag, mark: &str| Source::Tagged(tag, mark.into());
        for (spec, source) in [
            ("/dev/vda2", node("/dev/vda2")),
            ("/dev/cciss/c0d0p2", node("/dev/cciss/c0d0p2")),
            ("/dev/mapper/usr", Source::Mapper(b"usr".to_vec())),
            ("UUID=12-AB", tagged(Tag::Uuid, "12-AB")),
            ("UUID=\"12-AB\"", tagged(Tag::Uuid, "12-AB")),
            ("LABEL='usr'", tagged(Tag::Label, "usr")),
            ("PARTUUID=12-02", tagged(Tag::PartUuid, "12-02")),
            ("PARTLABEL=usr", tagged(Tag::PartLabel, "usr")),
            ("/dev/disk/by-uuid/12-AB", tagged(Tag::Uuid, "12-AB")),
            (
                "/dev/disk/by-label/a\\x20b\\x2",
                tagged(Tag::Label, "a b\\x2"),
            ),
            ("/dev/disk/by-partuuid/1", tagged(Tag::PartUuid, "1")),
            ("/dev/disk/by-partlabel/usr", tagged(Tag::PartLabel, "usr")),
        ] {
            assert_eq!(Source::new(spec.as_bytes(), b"ext4"), Ok(source), "{spec}");
        }
    }

    #[test]
    fn a_uuid_is_the_same_in_capitals_and_a_label_is_not() {
        let superblock = Superblock {
            fs_type: "ext4",
            uuid: Some("12-ab".into()),
            label: b"usr".to_vec(),
        };
        let is = |tag, mark: &str| Source::Tagged(tag, mark.into()).is_file_system(&superblock);
        assert!(is(Tag::Uuid, "12-AB") && is(Tag::Label, "usr"));
        assert!(!is(Tag::Uuid, "12-a") && !is(Tag::Label, "USR") && !is(Tag::PartLabel, "usr"));
        let partition = Partition {
            uuid: "12-ab".into(),
            label: b"usr".to_vec(),
        };
        let is = |tag, mark: &str| Source::Tagged(tag, mark.into()).is_partition(&partition);
        assert!(is(Tag::PartUuid, "12-AB") && is(Tag::PartLabel, "usr"));
        assert!(!is(Tag::PartUuid, "12-a") && !is(Tag::PartLabel, "USR") && !is(Tag::Label, "usr"));
    }

    #[test]
    fn what_a_first_process_cannot_mount_is_told_what_to_write_instead() {
        for (line, message) in [
            (
                "/data/usr /usr none bind",
                "/etc/fstab:1: /usr from /data/usr: a bind of another directory cannot be made before that is mounted; boot with an initramfs",
            ),
            (
                "/dev/disk/by-id/x /usr ext4",
                "/etc/fstab:1: /usr from /dev/disk/by-id/x: a link that udev makes, and udev is not running yet; write UUID=, LABEL=, PARTUUID=, PARTLABEL= or a name such as /dev/sda2",
            ),
            (
                "tank/usr /usr zfs",
                "/etc/fstab:1: /usr from tank/usr: neither a block device nor an NFS share, which is all that can be mounted here; boot with an initramfs",
            ),
            (
                "server:/usr /usr nfs",
                "/etc/fstab:1: /usr from server:/usr: the server's name cannot be looked up yet; write its address",
            ),
        ] {
            assert_eq!(refusal(line), message);
        }
    }

    #[test]
    fn a_share_is_given_the_address_and_a_version_that_needs_no_other_program() {
        let four = order("", "192.0.2.1:/usr /usr nfs rw,hard 0 2\n");
        assert_eq!(
            settings(&four.options),
            ["hard", "addr=192.0.2.1", "vers=4.2"]
        );
        assert_eq!(four.check, Check::Never);
        let six = order("", "[2001:db8::1]:/usr /usr nfs4 nfsvers=4.1,addr=::2\n");
        assert_eq!(settings(&six.options), ["nfsvers=4.1", "addr=::2"]);
    }

    #[test]
    fn fsck_runs_where_fstab_asks_unless_the_command_line_says_otherwise() {
        for (cmdline, passno, check) in [
            ("", 0, Check::Never),
            ("", 2, Check::AsNeeded),
            ("fsck.mode=auto", 1, Check::AsNeeded),
            ("fsck.mode=skip", 2, Check::Never),
            ("fsck.mode=force", 2, Check::Always),
            ("fsck.mode=force", 0, Check::Never),
        ] {
            let line = format!("/dev/vdb /usr ext4 rw 0 {passno}\n");
            assert_eq!(order(cmdline, &line).check, check, "{cmdline} {passno}");
        }
    }

    #[test]
    fn only_a_file_system_without_errors_left_is_clean() {
        for (status, checked) in [
            (Some(0), Checked::Clean),
            (Some(1), Checked::Clean),
            (Some(2), Checked::NotClean),
            (Some(4), Checked::NotClean),
            (Some(8), Checked::NotClean),
            (Some(12), Checked::NotClean),
            (None, Checked::NotClean),
        ] {
            assert_eq!(Checked::new(status), checked, "{status:?}");
        }
    }

    #[test]
    fn a_helper_that_could_not_look_says_nothing_of_the_file_system() {
        for status in [16, 32, 126, 127, 128] {
            assert_eq!(Checked::new(Some(status)), Checked::NotAtAll(status));
        }
    }

    #[test]
    fn the_limit_for_the_device_is_read_as_systemd_does_and_ten_seconds_otherwise() {
        let of = |value: &str| {
            let line = format!("/dev/vdb /usr ext4 x-systemd.device-timeout={value}\n");
            order("", &line).patience
        };
        for (value, milliseconds) in [
            ("30", 30_000),
            ("90s", 90_000),
            ("1min30s", 90_000),
            ("500ms", 500),
            ("2h", 7_200_000),
            ("soon", 10_000),
            ("", 10_000),
            ("-1", 10_000),
            ("99999999999999999999", 10_000),
        ] {
            assert_eq!(
                of(value),
                Some(Duration::from_millis(milliseconds)),
                "{value}"
            );
        }
        assert_eq!((of("0"), of("infinity")), (None, None));
        assert_eq!(
            order("", "/dev/vdb /usr ext4\n").patience,
            Some(Duration::from_secs(10))
        );
    }

    #[test]
    fn the_init_that_is_asked_for_comes_first_and_a_shell_last() {
        let asked = MountPoint::new(b"/sbin/openrc-init").unwrap();
        let of = |asked| real_inits(asked).collect::<Vec<_>>();
        let found: [&[u8]; 3] = [b"/sbin/init", b"/usr/lib/systemd/systemd", b"/bin/sh"];
        assert_eq!(of(None), found);
        assert_eq!(
            of(Some(&asked))[..2],
            [b"/sbin/openrc-init".as_slice(), b"/sbin/init"]
        );
        assert_eq!(of(Some(&asked)).last(), Some(&SHELL.as_bytes()));
    }
}
