//! `/usr` shared over NFS: its disk is in a second machine, and the share is mounted as the fstab of the root says.

use std::process::Command;

use usr_policy_tests::machine::neighbour::SERVER;
use usr_policy_tests::machine::{
    Contents, Extra, Format, Image, Initramfs, Layout, Result, Server, Share, Suite, command, uml,
};

use crate::case::{Case, dracut, installed, with};
use crate::guest;
use crate::layouts::{HOLDS, OFF_WITH_USR, ROOT_LINE, USR, case, holds_but_for, with_fstab};
use crate::preinit::{OFF_AND_MOUNTED, holds_since_pre_init};
use crate::verdict::{FSTAB_OPENS_USR, warned};
use crate::words::verify_says;

const STRICT: &str = "usrpolicy=strict";

/// How long systemd waits for the share.
const PATIENCE: &str = "30s";

/// Pre-init on such a machine.
pub const PRE_INIT: &str = "trixie-pre-init-usr-over-nfs-holds-from-the-first-process-to-shutdown";

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    let writable = image("nfs-dracut", "rw")?;
    let mut cases = Vec::from(served(&writable, &image("nfs-dracut-ro", "ro")?));
    cases.extend(dead(&writable));
    cases.extend(pre_init(&writable)?);
    Ok(cases)
}

/// A machine that dracut starts, with the share in its fstab; the server takes writes.
fn image(name: &str, access: &str) -> Result<Image> {
    Ok(Image {
        layout: Layout::of(Format::Ext4, [USR]),
        share: Some(by(Server::ReadWrite)),
        initramfs: Initramfs::DracutNfs,
        ..dracut(name, Suite::Nfs, &contents(access))?
    })
}

fn by(server: Server) -> Share {
    Share {
        label: USR.label,
        server,
    }
}

/// A system with the share in its fstab.
fn contents(access: &str) -> Contents {
    let line =
        format!("{SERVER}:/usr\t/usr\tnfs\t{access},x-systemd.mount-timeout={PATIENCE}\t0 0\n");
    // Debian starts the server wherever its programs are.
    let no_server = Extra::link("/etc/systemd/system/nfs-server.service", "/dev/null");
    with(with_fstab(installed(&[]), ROOT_LINE, &line), [no_server])
}

/// One twin for all: what is written somewhere else is a word in fstab, or one that only the server reads.
fn served(writable: &Image, read_only: &Image) -> [Case; 4] {
    let refuses = Image {
        share: Some(by(Server::ReadOnly)),
        ..writable.clone()
    };
    let off = "trixie-dracut-usr-over-nfs-stays-writable-without-the-word";
    [
        case(off, writable, "", None, OFF_WITH_USR),
        case(
            "trixie-dracut-usr-over-nfs-is-never-writable-though-fstab-and-export-say-rw",
            writable,
            STRICT,
            Some(off),
            |seen, twin| {
                let mut complaints = holds_but_for(seen, twin, &[]);
                complaints.extend(verify_says(seen, "read-only since the initramfs"));
                complaints
            },
        )
        .says(warned(&[FSTAB_OPENS_USR])),
        case(
            "trixie-dracut-usr-over-nfs-with-ro-in-the-export-is-read-only",
            &refuses,
            STRICT,
            Some(off),
            HOLDS,
        )
        .says(warned(&[FSTAB_OPENS_USR])),
        case(
            "trixie-dracut-usr-over-nfs-with-ro-in-fstab-is-read-only",
            read_only,
            STRICT,
            Some(off),
            HOLDS,
        ),
    ]
}

/// The same machines where nobody answers: systemd gives up when fstab says so, and that is the end of the boot.
fn dead(image: &Image) -> [Case; 2] {
    let image = Image {
        share: Some(by(Server::IsDead)),
        ..image.clone()
    };
    let off = "trixie-dracut-a-dead-nfs-server-ends-the-boot-when-fstab-says-without-the-word";
    [
        case(off, &image, "", None, |seen, _| {
            let mut complaints = ends_when_fstab_says(&seen.console);
            // A judge who cannot turn red proves nothing.
            let other = |wait: &str| format!("{}\n{wait}\n", seen.console);
            for wrong in [
                other("Job usr-policy-late.service/start running (6s / 20s)"),
                other("Job sysusr-usr.mount/start running (30s / no limit)"),
            ] {
                if ends_when_fstab_says(&wrong).is_empty() {
                    complaints.push("a boot that is held goes unseen".to_owned());
                }
            }
            complaints
        }),
        case(
            "trixie-dracut-a-dead-nfs-server-holds-the-boot-no-longer-than-fstab-says",
            &image,
            STRICT,
            Some(off),
            |seen, twin| {
                let mut complaints = ends_when_fstab_says(&seen.console);
                // Not that usr-policy is to be installed there.
                if !seen.console.contains("/sysroot/usr: not mounted, although") {
                    complaints.push("the console does not say what is wrong with /usr".to_owned());
                }
                let twin = twin.map(|twin| failures(&twin.console));
                if twin.as_ref() != Some(&failures(&seen.console)) {
                    complaints.push(format!(
                        "fails: {:?}, without the word: {twin:?}",
                        failures(&seen.console)
                    ));
                }
                complaints
            },
        ),
    ]
}

/// What the console of such a boot says, in this order.
const END: [&str; 5] = [
    "Mounting sysusr-usr.mount",
    "Failed to mount sysusr-usr.mount",
    "Dependency failed for initrd-fs.target",
    "Reached target emergency.target",
    "Powering off.",
];

/// systemd tells how long a job runs and may run when it takes a while: `Job NAME/start running (12s / 30s)`.
const WAITING: &str = "Job sysusr-usr.mount/start running (";

/// The boot waited for the share as long as fstab says, for nothing of ours, and then went on to its end.
fn ends_when_fstab_says(console: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let limit = format!("/ {PATIENCE})");
    let mut rest = console;
    for line in END {
        match rest.split_once(line) {
            Some((_, after)) => rest = after,
            None => complaints.push(format!("the console does not say, in its turn: {line}")),
        }
    }
    let mut waits = console
        .lines()
        .filter(|line| line.contains(WAITING))
        .peekable();
    if waits.peek().is_none() {
        complaints.push("nobody waited for the share".to_owned());
    }
    complaints.extend(
        waits
            .filter(|line| !line.contains(&limit))
            .chain(
                console
                    .lines()
                    .filter(|line| line.contains("Job usr-policy")),
            )
            .map(str::to_owned),
    );
    complaints
}

/// What failed, in its order, on the console.
fn failures(console: &str) -> Vec<&str> {
    console
        .lines()
        .filter_map(|line| {
            ["[FAILED]", "[DEPEND]"]
                .iter()
                .find_map(|mark| Some(&line[line.find(mark)?..]))
        })
        .collect()
}

/// Pre-init mounts the share itself. An initramfs of busybox does before what only a kernel does that has NFS and `ip=`
/// built in: it loads drivers, sets the address, and starts the root.
fn pre_init(image: &Image) -> Result<[Case; 2]> {
    let drivers = [
        Extra::file(
            "/etc/initcpio/install/nfs-drivers",
            include_str!("guest/nfs-drivers.install"),
        ),
        Extra::file(
            "/etc/initcpio/hooks/nfs-drivers",
            include_str!("guest/nfs-drivers.hook"),
        ),
    ];
    let image = Image {
        name: "nfs-pre-init".to_owned(),
        initramfs: Initramfs::Busybox(&["nfs-drivers"]),
        initramfs_tree: with(contents("rw"), drivers),
        initramfs_extras: guest::busybox_initrd()?,
        ..image.clone()
    };
    let off = "trixie-pre-init-usr-over-nfs-is-mounted-as-fstab-says-without-the-word";
    Ok([
        case(off, &image, "init=/usr-policy-init", None, OFF_AND_MOUNTED),
        case(
            PRE_INIT,
            &image,
            "init=/usr-policy-init usrpolicy=strict",
            Some(off),
            holds_since_pre_init,
        )
        .says(warned(&[FSTAB_OPENS_USR])),
    ])
}

/// Why the kernel that starts a root without an initramfs does not start this one: it is asked for its configuration.
pub fn why_not_without_an_initramfs() -> String {
    let config = match command::output(Command::new(uml::PROGRAM).arg("--showconfig")) {
        Ok(config) => config,
        Err(error) => return error.to_string(),
    };
    let lacks: Vec<&str> = ["CONFIG_NFS_V4", "CONFIG_IP_PNP"]
        .into_iter()
        .filter(|option| !config.lines().any(|line| line == format!("{option}=y")))
        .collect();
    if lacks.is_empty() {
        return format!(
            "{} could, and is not joined to a second machine",
            uml::PROGRAM
        );
    }
    format!("{} has no {}=y", uml::PROGRAM, lacks.join("=y, no "))
}
