//! A boot without an initramfs: what the first process mounts on `/usr`, and what it starts then.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::cmdline::Cmdline;
use crate::fstab::{self, Fstab};
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

fn without_quotes(mark: &[u8]) -> &[u8] {
    match mark {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        mark => mark,
    }
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

/// An option of one mount, beside read-only. Source: fsmount(2), `MOUNT_ATTR_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// `nosuid`
    NoSuid,
    /// `nodev`
    NoDev,
    /// `noexec`
    NoExec,
    /// `noatime`
    NoAtime,
    /// `strictatime`
    StrictAtime,
    /// `nodiratime`
    NoDirAtime,
    /// `nosymfollow`
    NoSymFollow,
}

/// The words for attributes: what each takes away, and what it sets then. `relatime` is what the kernel does by itself,
/// with or without the word.
const FLAGS: [(&str, &[Attribute], Option<Attribute>); 16] = {
    use Attribute::{NoAtime, NoDev, NoDirAtime, NoExec, NoSuid, NoSymFollow, StrictAtime};
    [
        ("suid", &[NoSuid], None),
        ("nosuid", &[NoSuid], Some(NoSuid)),
        ("dev", &[NoDev], None),
        ("nodev", &[NoDev], Some(NoDev)),
        ("exec", &[NoExec], None),
        ("noexec", &[NoExec], Some(NoExec)),
        ("symfollow", &[NoSymFollow], None),
        ("nosymfollow", &[NoSymFollow], Some(NoSymFollow)),
        ("diratime", &[NoDirAtime], None),
        ("nodiratime", &[NoDirAtime], Some(NoDirAtime)),
        ("relatime", &[NoAtime, StrictAtime], None),
        ("norelatime", &[], None),
        ("atime", &[NoAtime], None),
        ("noatime", &[NoAtime, StrictAtime], Some(NoAtime)),
        ("nostrictatime", &[StrictAtime], None),
        ("strictatime", &[NoAtime, StrictAtime], Some(StrictAtime)),
    ]
};

/// Options of mount(8), sorted by who they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether the mount is to be read-only.
    pub read_only: bool,
    /// Whether its file system is to be read-only.
    pub read_only_file_system: bool,
    /// What else counts for the mount alone.
    pub attributes: Vec<Attribute>,
    /// What the file system is given, key and value.
    pub settings: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Options {
    /// Sorts a list of options. Those for mount(8) and systemd go.
    ///
    /// Source: mount(8), "FILESYSTEM-INDEPENDENT MOUNT OPTIONS".
    #[must_use]
    pub fn new(list: &[Vec<u8>]) -> Self {
        let mut options = Options::default();
        for option in list {
            options.add(option);
        }
        options
    }

    /// The same from a list with commas.
    #[must_use]
    pub fn parse(list: &str) -> Self {
        Self::new(&fstab::options(list.as_bytes()))
    }

    fn add(&mut self, option: &[u8]) {
        let (key, value) = match option.iter().position(|&byte| byte == b'=') {
            Some(at) => (&option[..at], Some(without_quotes(&option[at + 1..]))),
            None => (option, None),
        };
        if matches!(key, b"ro" | b"rw") {
            let read_only = key == b"ro";
            // For one layer alone, since util-linux 2.39: ro=vfs, ro=fs.
            if value != Some(b"fs") {
                self.read_only = read_only;
            }
            if value != Some(b"vfs") {
                self.read_only_file_system = read_only;
            }
        } else if let Some((_, cleared, set)) =
            FLAGS.iter().find(|(word, ..)| word.as_bytes() == key)
        {
            self.attributes
                .retain(|attribute| !cleared.contains(attribute));
            self.attributes.extend(set);
        } else if !is_for_others(key) {
            let value = value.map(<[u8]>::to_vec);
            self.settings.push((key.to_vec(), value));
        }
    }

    /// The least with which there is a `/usr`: read-only, and with no settings but those that say what is mounted. The
    /// others go where the file system refuses one of them.
    ///
    /// Source: btrfs(5), xfs(5) and nfs(5), "MOUNT OPTIONS".
    #[must_use]
    pub fn least(&self) -> Self {
        const KEYS: [&str; 8] = [
            "subvol", "subvolid", "device", "logdev", "rtdev", "addr", "vers", "nfsvers",
        ];
        let is_kept = |key: &[u8]| KEYS.iter().any(|kept| kept.as_bytes() == key);
        let mut least = Options {
            read_only: true,
            read_only_file_system: true,
            ..self.clone()
        };
        least.settings.retain(|(key, _)| is_kept(key));
        least
    }

    /// What mount.nfs(8) would add: the address, and a version that needs no other program.
    fn for_share(&mut self, address: &[u8]) {
        let has = |keys: &[&[u8]]| {
            self.settings
                .iter()
                .any(|(key, _)| keys.contains(&key.as_slice()))
        };
        let (has_address, has_version) = (has(&[b"addr"]), has(&[b"vers", b"nfsvers"]));
        if !has_address {
            self.settings
                .push((b"addr".to_vec(), Some(address.to_vec())));
        }
        if !has_version {
            self.settings
                .push((b"vers".to_vec(), Some(b"4.2".to_vec())));
        }
    }
}

/// Options that mean something to mount(8), to systemd, to mount(2) or to people, and nothing to a file system.
/// `noauto` and `nofail` are among them: systemd ignores both for `/usr`, since v254. So are the four kinds of propagation:
/// the real init sets its own.
///
/// Source: util-linux libmount/src/optmap.c.
fn is_for_others(key: &[u8]) -> bool {
    const WORDS: [&str; 31] = [
        "defaults",
        "auto",
        "noauto",
        "nofail",
        "_netdev",
        "user",
        "nouser",
        "users",
        "nousers",
        "owner",
        "noowner",
        "group",
        "nogroup",
        "comment",
        "loop",
        "helper",
        "uhelper",
        // Flags of mount(2) that fsconfig(2) has no word for.
        "silent",
        "loud",
        "iversion",
        "noiversion",
        "sub",
        "nosub",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "private",
        "rprivate",
        "unbindable",
        "runbindable",
    ];
    WORDS.iter().any(|word| word.as_bytes() == key)
        || key.starts_with(b"x-")
        || key.starts_with(b"X-")
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

    fn settings(options: &Options) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let setting = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| match value {
            Some(value) => format!("{}={}", text(key), text(value)),
            None => text(key),
        };
        options.settings.iter().map(setting).collect()
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
    fn read_only_is_for_the_mount_and_its_file_system_unless_one_is_named() {
        for (list, mount, file_system) in [
            ("defaults", false, false),
            ("ro", true, true),
            ("ro,rw", false, false),
            ("ro=vfs", true, false),
            ("ro=fs", false, true),
            ("ro,rw=fs", true, false),
            ("errors=remount-ro", false, false),
        ] {
            let options = Options::parse(list);
            assert_eq!(
                (options.read_only, options.read_only_file_system),
                (mount, file_system),
                "{list}"
            );
        }
    }

    #[test]
    fn of_two_words_for_one_attribute_the_last_counts() {
        use Attribute::{NoAtime, NoExec, NoSuid, StrictAtime};
        for (list, attributes) in [
            ("nosuid,noexec,suid", [NoExec].as_slice()),
            ("nosuid,nosuid", &[NoSuid]),
            ("noatime,strictatime", &[StrictAtime]),
            ("strictatime,noatime", &[NoAtime]),
            ("noatime,relatime", &[]),
            ("noatime=recursive", &[NoAtime]),
        ] {
            assert_eq!(Options::parse(list).attributes, attributes, "{list}");
        }
    }

    #[test]
    fn options_for_others_go_and_those_of_the_file_system_stay_without_their_quotes() {
        let list = "defaults,noauto,nofail,_netdev,x-initrd.mount,X-mount.mkdir,comment=x,user,discard,\
            context=\"system_u:object_r:usr_t:s0\",errors=remount-ro";
        assert_eq!(
            settings(&Options::parse(list)),
            [
                "discard",
                "context=system_u:object_r:usr_t:s0",
                "errors=remount-ro"
            ]
        );
    }

    #[test]
    fn every_word_that_mount_knows_is_understood_and_only_those_that_the_kernel_takes_are_settings()
    {
        let flags = "ro,rw,exec,noexec,suid,nosuid,dev,nodev,sub,nosub,silent,loud,atime,noatime,iversion,noiversion,\
            diratime,nodiratime,relatime,norelatime,strictatime,nostrictatime,symfollow,nosymfollow,\
            unbindable,runbindable,private,rprivate,slave,rslave,shared,rshared";
        let others = "defaults,auto,noauto,user=x,nouser,users,nousers,owner,noowner,group,nogroup,_netdev,comment=x,x-a,X-b,\
            loop,nofail,uhelper=x,helper=x";
        for list in [flags, others] {
            assert_eq!(settings(&Options::parse(list)), [""; 0]);
        }
        // Source: Linux fs/fs_context.c, `common_set_sb_flag` and `common_clear_sb_flag`.
        let kernel = "sync,async,dirsync,mand,nomand,lazytime,nolazytime";
        assert_eq!(settings(&Options::parse(kernel)).join(","), kernel);
        assert_eq!(
            Options::parse("noatime,norelatime").attributes,
            [Attribute::NoAtime]
        );
    }

    #[test]
    fn the_least_is_read_only_and_of_the_same_tree() {
        let least =
            Options::parse("rw,nodev,subvol=usr,compress=x,device=/dev/vdc,addr=::1").least();
        assert!(least.read_only && least.read_only_file_system);
        assert_eq!(least.attributes, [Attribute::NoDev]);
        assert_eq!(
            settings(&least),
            ["subvol=usr", "device=/dev/vdc", "addr=::1"]
        );
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
