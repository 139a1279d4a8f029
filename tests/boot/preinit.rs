//! Boots without an initramfs, of a root whose /usr is a disk of its own: pre-init.

use std::fs;
use std::path::Path;

use usr_policy_tests::machine::{At, Extra, Format, Image, Initramfs, Layout, Result, Suite, uml};

use crate::case::{Case, installed, with};
use crate::checks;
use crate::guest;
use crate::layouts::USR;
use crate::steps::{MERGE_BY_HAND, PACMAN};
use crate::words::{said_in_the_log, verify_says};

/// As genfstab writes it.
const FSTAB: &str =
    "LABEL=root\t/\text4\trw,relatime\t0 1\nLABEL=usr\t/usr\text4\trw,relatime\t0 2\n";

/// The names by which the witness knows its disks.
const RULES: &str = r#"KERNEL=="ubdc", SYMLINK+="disk/by-id/virtio-input"
KERNEL=="ubdd", SYMLINK+="disk/by-id/virtio-output"
"#;

const OFF: &str = "trixie-pre-init-without-the-word-usr-is-mounted-as-fstab-says";

/// What cannot hold where /usr is a disk of its own, and mounted by us: systemd has a usr.mount for it, from fstab.
const SPLIT_AND_SAID: [&str; 4] = [
    "nothing-is-mounted-at-a-path-of-the-policy",
    "no-unit-of-ours-is-loaded",
    "no-record-has-our-name",
    "an-unmerge-gives-the-writable-usr-back",
];

/// The cases.
///
/// # Errors
/// The witness or the kernel's modules cannot be read.
pub fn cases() -> Result<Vec<Case>> {
    let mut extras = vec![
        Extra::file("/etc/fstab", FSTAB),
        Extra::file("/etc/udev/rules.d/60-witness.rules", RULES),
    ];
    extras.extend(modules()?);
    let contents = with(installed(&[]), extras);
    let image = Image {
        name: "trixie-split-usr".to_owned(),
        suite: Suite::Trixie,
        root: contents.clone(),
        root_extras: guest::root()?,
        layout: Layout::of(Format::Ext4, [USR]),
        initramfs: Initramfs::None,
        initramfs_tree: contents,
        initramfs_extras: Vec::new(),
    };
    let steps = [&PACMAN[..], &MERGE_BY_HAND].concat();
    Ok(vec![
        Case {
            name: OFF,
            image: image.clone(),
            words: "init=/usr-policy-init",
            steps: steps.clone(),
            twin: None,
            judge: |seen, _| {
                let mut complaints =
                    checks::off_without_initramfs(seen).broken_but_for(&SPLIT_AND_SAID);
                complaints.extend(said_in_the_log(
                    seen,
                    &["/usr: mounted", "starting /sbin/init"],
                ));
                complaints
            },
        },
        Case {
            name: "trixie-pre-init-strict-holds-from-the-first-process-to-shutdown",
            image,
            words: "init=/usr-policy-init usrpolicy=strict",
            steps,
            twin: Some(OFF),
            judge: |seen, twin| {
                let Some(twin) = twin else {
                    return vec!["this needs its twin".to_owned()];
                };
                let mut complaints = checks::strict_from_pre_init(seen, twin).broken();
                complaints.extend(verify_says(seen, "read-only since pre-init"));
                complaints
            },
        },
    ])
}

/// The one driver that this kernel has as a module and a merge needs. None where the kernel is not installed: its boot
/// says so.
fn modules() -> Result<Vec<Extra>> {
    let Ok(versions) = fs::read_dir(uml::MODULES) else {
        return Ok(Vec::new());
    };
    let mut extras = Vec::new();
    for version in versions {
        let version = version.at(Path::new(uml::MODULES))?.path();
        let mut add = |name: &str| {
            let bytes = fs::read(version.join(name)).at(&version.join(name))?;
            let to = version.strip_prefix("/usr/lib/uml").unwrap_or(&version);
            let to = Path::new("/usr/lib").join(to).join(name);
            extras.push(Extra::program(&to.to_string_lossy(), bytes));
            Ok(())
        };
        add("kernel/fs/overlayfs/overlay.ko")?;
        for list in [
            "modules.dep",
            "modules.dep.bin",
            "modules.alias",
            "modules.alias.bin",
        ] {
            add(list)?;
        }
    }
    Ok(extras)
}
