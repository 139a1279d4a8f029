//! Options of mount(8), sorted by who they are for: a mount, its file system, or others.

use alloc::vec::Vec;

use crate::fstab;

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
    pub(crate) fn for_share(&mut self, address: &[u8]) {
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

/// A value of an option, or a mark of a device, as it was meant.
pub(crate) fn without_quotes(mark: &[u8]) -> &[u8] {
    match mark {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        mark => mark,
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

#[cfg(test)]
pub(crate) mod tests {
    use std::format;
    use std::string::String;

    use super::*;

    pub(crate) fn settings(options: &Options) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let setting = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| match value {
            Some(value) => format!("{}={}", text(key), text(value)),
            None => text(key),
        };
        options.settings.iter().map(setting).collect()
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
}
