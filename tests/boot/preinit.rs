//! Boots without an initramfs: the real root alone, and pre-init, which a root needs whose /usr is a disk of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use usr_policy_tests::machine::{
    At, Extra, Format, Image, Initramfs, Layout, Result, Suite, command, uml,
};

use crate::case::{Case, Judge, installed, with};
use crate::checks;
use crate::guest;
use crate::halves::holds_late;
use crate::layouts::USR;
use crate::observed::Observed;
use crate::steps::{MERGE_BY_HAND, PACMAN};
use crate::verdict::{CLEAN, FSTAB_OPENS_USR, LATE, warned};
use crate::words::{said_in_the_log, verify_says};

/// As genfstab writes it.
const FSTAB: &str =
    "LABEL=root\t/\text4\trw,relatime\t0 1\nLABEL=usr\t/usr\text4\trw,relatime\t0 2\n";

/// The names by which the witness knows its disks.
const RULES: &str = r#"KERNEL=="ubdc", SYMLINK+="disk/by-id/virtio-input"
KERNEL=="ubdd", SYMLINK+="disk/by-id/virtio-output"
"#;

const OFF_IN_ROOT: &str = "trixie-without-an-initramfs-without-the-word-usr-stays-writable";

const OFF: &str = "trixie-pre-init-without-the-word-usr-is-mounted-as-fstab-says";

/// What cannot hold where /usr is a disk of its own, and mounted by us: systemd has a usr.mount for it, from fstab.
const SPLIT_AND_SAID: [&str; 4] = [
    "nothing-is-mounted-at-a-path-of-the-policy",
    "no-unit-of-ours-is-loaded",
    "no-record-has-our-name",
    "an-unmerge-gives-the-writable-usr-back",
];

/// Off, where pre-init mounts /usr as fstab says.
pub const OFF_AND_MOUNTED: Judge = |seen, _| {
    let mut complaints = checks::off_without_initramfs(seen).broken_but_for(&SPLIT_AND_SAID);
    complaints.extend(said_in_the_log(
        seen,
        &["/usr: mounted", "starting /sbin/init"],
    ));
    complaints
};

/// An image that user-mode-linux starts.
fn image(name: &str, layout: Layout, modules: &[Extra], fstab: Option<&str>) -> Result<Image> {
    let contents = with(
        installed(&[]),
        [Extra::file("/etc/udev/rules.d/60-witness.rules", RULES)]
            .into_iter()
            .chain(modules.iter().cloned())
            .chain(fstab.map(|text| Extra::file("/etc/fstab", text))),
    );
    Ok(Image {
        name: name.to_owned(),
        suite: Suite::Trixie,
        root: contents.clone(),
        root_extras: guest::root()?,
        layout,
        share: None,
        initramfs: Initramfs::None,
        initramfs_tree: contents,
        initramfs_extras: Vec::new(),
    })
}

/// The cases.
///
/// # Errors
/// The witness or the kernel's modules cannot be read.
pub fn cases() -> Result<Vec<Case>> {
    let modules = modules()?;
    let mut cases = usr_in_the_root(&modules)?;
    cases.extend(usr_on_its_own(&modules)?);
    Ok(cases)
}

fn usr_on_its_own(modules: &[Extra]) -> Result<Vec<Case>> {
    let image = image(
        "trixie-split-usr",
        Layout::of(Format::Ext4, [USR]),
        modules,
        Some(FSTAB),
    )?;
    let steps = [&PACMAN[..], &MERGE_BY_HAND].concat();
    Ok(vec![
        Case {
            name: OFF,
            image: image.clone(),
            words: "init=/usr-policy-init",
            steps: steps.clone(),
            twin: None,
            verdict: CLEAN,
            judge: OFF_AND_MOUNTED,
        },
        Case {
            name: "trixie-pre-init-strict-holds-from-the-first-process-to-shutdown",
            image,
            words: "init=/usr-policy-init usrpolicy=strict",
            steps,
            twin: Some(OFF),
            verdict: warned(&[FSTAB_OPENS_USR]),
            judge: holds_since_pre_init,
        },
    ])
}

fn usr_in_the_root(modules: &[Extra]) -> Result<Vec<Case>> {
    let image = image("trixie-without-initramfs", Layout::whole(), modules, None)?;
    let steps = [&PACMAN[..], &MERGE_BY_HAND].concat();
    Ok(vec![
        Case {
            name: OFF_IN_ROOT,
            image: image.clone(),
            words: "",
            steps: steps.clone(),
            twin: None,
            verdict: CLEAN,
            judge: |seen, _| checks::off_without_initramfs(seen).broken(),
        },
        Case {
            name: "trixie-without-an-initramfs-it-holds-late-and-verify-says-so",
            image: image.clone(),
            words: "usrpolicy=strict",
            steps: steps.clone(),
            twin: Some(OFF_IN_ROOT),
            verdict: warned(&[LATE]),
            judge: holds_late,
        },
        Case {
            name: "trixie-pre-init-usr-in-the-root-holds-from-the-first-process-to-shutdown",
            image,
            words: "init=/usr-policy-init usrpolicy=strict",
            steps,
            twin: Some(OFF_IN_ROOT),
            verdict: CLEAN,
            judge: holds_since_pre_init,
        },
    ])
}

/// All that strict promises where pre-init is the first process.
pub fn holds_since_pre_init(seen: &Observed, twin: Option<&Observed>) -> Vec<String> {
    let Some(twin) = twin else {
        return vec!["this needs its twin".to_owned()];
    };
    let mut complaints = checks::strict_from_pre_init(seen, twin).broken();
    complaints.extend(verify_says(seen, "read-only since pre-init"));
    complaints
}

/// The one driver that this kernel has as a module and a merge needs, alone: a list of others that are not there would
/// be an error with an address in it, which is new at every boot. None where the kernel is not installed: its boot says
/// so.
fn modules() -> Result<Vec<Extra>> {
    const OVERLAY: &str = "kernel/fs/overlayfs/overlay.ko";
    let Ok(mut versions) = fs::read_dir(uml::MODULES) else {
        return Ok(Vec::new());
    };
    let Some(from) = versions.next() else {
        return Ok(Vec::new());
    };
    let from = from.at(Path::new(uml::MODULES))?.path();
    let version = from.file_name().unwrap_or_default();
    let base = tempfile::tempdir().at(Path::new("a temporary directory"))?;
    let to = base.path().join("lib/modules").join(version);
    for name in ["modules.order", "modules.builtin", OVERLAY] {
        let (from, to) = (from.join(name), to.join(name));
        fs::create_dir_all(to.parent().unwrap_or(&to)).at(&to)?;
        fs::copy(&from, &to).at(&from)?;
    }
    let mut depmod = Command::new("depmod");
    // Debian has it where only root looks.
    depmod.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command::output(depmod.arg("-b").arg(base.path()).arg(version))?;
    [OVERLAY, "modules.dep.bin", "modules.alias.bin"]
        .iter()
        .map(|name| {
            let bytes = fs::read(to.join(name)).at(&to.join(name))?;
            let path = Path::new("/usr/lib/modules").join(version).join(name);
            Ok(Extra::program(&path.to_string_lossy(), bytes))
        })
        .collect()
}
