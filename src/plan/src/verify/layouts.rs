//! Systems that others lay out: the right verdict from their mount tables, and who makes it so.

use alloc::format;
use alloc::vec::Vec;

use super::tests::{machine, plan, says};
use super::*;

const STRICT: &str = "usrpolicy=strict";

fn verdict_on(table: &str) -> Report {
    let plan = plan(STRICT);
    report(&plan, &machine(&plan, table))
}

fn place(path: &str, mount_id: u64) -> Place {
    Place {
        path: MountPoint::new(path.as_bytes()).unwrap(),
        kind: Kind::Directory,
        mount_id: Some(mount_id),
        access: Access::NoWitness,
        statvfs_read_only: None,
    }
}

const COMPOSEFS: &str = "63 2 0:38 / / ro,relatime shared:1 - overlay composefs ro,seclabel,lowerdir+=/run/ostree/.private/cfsroot-lower,datadir+=/sysroot/ostree/repo/objects,redirect_dir=on,metacopy=on
65 63 252:4 / /sysroot ro,relatime shared:2 - xfs /dev/vda4 rw,seclabel,attr2,inode64,prjquota
66 63 252:4 /ostree/deploy/fedora-coreos/deploy/0a1b.0/etc /etc rw,relatime shared:3 - xfs /dev/vda4 rw,seclabel
67 63 252:4 /ostree/deploy/fedora-coreos/var /var rw,relatime shared:4 - xfs /dev/vda4 rw,seclabel
24 63 0:22 / /run rw,nosuid,nodev shared:12 - tmpfs tmpfs rw,seclabel,mode=755,inode64
";

#[test]
fn ostree_and_bootc_with_composefs_are_read_only_by_their_file_system() {
    for source in ["composefs", "composefs:8f3c"] {
        let table = COMPOSEFS.replace("overlay composefs", &format!("overlay {source}"));
        let report = verdict_on(&table);
        let by = "read-only by its file system, composefs";
        says(&report, Verdict::Holds, "/usr", by);
        says(&report, Verdict::Holds, "/etc", "writable");
        // bootc usr-overlay, ostree admin unlock.
        let unlocked = format!(
            "{table}90 63 0:50 / /usr rw,relatime shared:80 - overlay overlay rw,lowerdir=usr,upperdir=/var/tmp/ovl/upper,workdir=/var/tmp/ovl/work\n"
        );
        let report = verdict_on(&unlocked);
        says(&report, Verdict::Broken, "/usr", "writable");
        // With extensions over the image it is the image all the same.
        let merged = format!(
            "{table}91 63 0:51 / /usr ro,nodev,relatime shared:81 - overlay sysext ro,lowerdir=/run/systemd/sysext/meta/usr:/usr\n"
        );
        let by = format!("{by}, extensions merged over it");
        says(&verdict_on(&merged), Verdict::Holds, "/usr", &by);
    }
}

#[test]
fn an_overlay_that_only_bears_the_name_of_composefs_provides_nothing() {
    let table = COMPOSEFS.replace("lowerdir+=", "upperdir=/x,workdir=/y,lowerdir+=");
    let report = verdict_on(&table);
    let no_image = report
        .findings
        .iter()
        .all(|finding| !finding.what.contains("composefs"));
    assert!(no_image, "{report:#?}");
}

#[test]
fn ostree_without_composefs_binds_its_deployment_read_only() {
    let table = "61 1 252:4 /ostree/deploy/fedora/deploy/0a1b.0 / rw,relatime shared:1 - xfs /dev/vda4 rw,seclabel
62 61 252:4 /ostree/deploy/fedora/deploy/0a1b.0/usr /usr ro,relatime shared:2 - xfs /dev/vda4 rw,seclabel
";
    let by = "read-only by ostree, of a deployment that is mounted so";
    says(&verdict_on(table), Verdict::Holds, "/usr", by);
}

#[test]
fn a_root_that_is_a_read_only_btrfs_subvolume_is_what_keeps_usr_so() {
    // SteamOS: neither the mount nor the file system says ro, and a write meets EROFS.
    let table = "28 1 0:24 / / rw,noatime shared:1 - btrfs /dev/nvme0n1p4 rw,ssd,space_cache=v2,subvolid=5,subvol=/
40 28 259:6 / /var rw,relatime shared:20 - ext4 /dev/nvme0n1p6 rw
";
    let plan = plan(STRICT);
    let mut seen = machine(&plan, table);
    for place in &mut seen.places {
        if place.mount_id == Some(28) {
            place.access = Access::ReadOnly;
        }
    }
    let report = report(&plan, &seen);
    let by = "read-only by its root, a read-only btrfs subvolume";
    says(&report, Verdict::Holds, "/usr", by);
}

#[test]
fn a_read_only_subvolume_for_usr_is_what_keeps_it_so_when_the_flag_of_its_mount_is_gone() {
    let table = "28 1 0:24 /@ / rw,relatime shared:1 - btrfs /dev/vda rw,subvolid=257,subvol=/@
40 28 0:24 /@usr /usr ro,relatime shared:2 - btrfs /dev/vda rw,subvolid=256,subvol=/@usr
";
    let flag = "read-only since the initramfs";
    let property = "read-only by its file system, a read-only btrfs subvolume";
    for (flags, what) in [("ro,relatime", flag), ("rw,relatime", property)] {
        let plan = plan(STRICT);
        let mut seen = machine(&plan, &table.replace("ro,relatime", flags));
        for place in &mut seen.places {
            if place.mount_id == Some(40) {
                place.access = Access::ReadOnly;
            }
        }
        seen.events = Event::parse(b"1 early /usr read-only");
        says(&report(&plan, &seen), Verdict::Holds, "/usr", what);
    }
}

#[test]
fn the_snapshot_of_micro_os_is_named() {
    let table = "60 1 0:30 /@/.snapshots/1/snapshot / ro,relatime shared:1 - btrfs /dev/vda3 rw,space_cache=v2,subvolid=268,subvol=/@/.snapshots/1/snapshot
70 60 0:30 /@/var /var rw,relatime shared:30 - btrfs /dev/vda3 rw,space_cache=v2,subvolid=258,subvol=/@/var
71 60 0:40 / /etc rw,relatime shared:31 - overlay overlay rw,lowerdir=/sysroot/etc,upperdir=/sysroot/var/lib/overlay/1/etc,workdir=/sysroot/var/lib/overlay/work-etc
72 60 0:41 / /run rw,nosuid,nodev shared:32 - tmpfs tmpfs rw,mode=755
73 60 0:30 /@/usr/local /usr/local rw,relatime shared:33 - btrfs /dev/vda3 rw,space_cache=v2,subvolid=259,subvol=/@/usr/local
";
    let report = verdict_on(table);
    let by = "read-only by the mount of its root, btrfs subvolume /@/.snapshots/1/snapshot, that is not usr-policy's";
    says(&report, Verdict::Holds, "/usr", by);
    says(&report, Verdict::Holds, "/etc", "writable");
    says(&report, Verdict::Warning, "/usr/local", "a writable mount");
}

#[test]
fn a_root_that_is_mounted_read_only_is_named() {
    let table = "60 1 8:2 / / ro,relatime shared:1 - ext4 /dev/sda2 rw\n61 60 8:3 / /var rw - ext4 /dev/sda3 rw\n";
    let by = "read-only by the mount of its root, that is not usr-policy's";
    says(&verdict_on(table), Verdict::Holds, "/usr", by);
}

#[test]
fn a_store_in_place_of_usr_is_judged_beside_it() {
    let table = "30 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
31 30 8:2 /nix/store /nix/store ro,nosuid,nodev,relatime shared:2 - ext4 /dev/sda2 rw
32 30 8:2 /usr /usr ro,relatime shared:3 - ext4 /dev/sda2 rw
";
    let plan = plan(STRICT);
    for (mount_id, verdict, what) in [
        (31, Verdict::Holds, "in place of /usr, and is read-only"),
        (30, Verdict::Warning, "in place of /usr, and can be written"),
    ] {
        let mut seen = machine(&plan, table);
        seen.system.store = Some(place("/nix/store", mount_id));
        // /bin/sh and the loader are links into the store.
        seen.system.outside = [place("/bin", 30), place("/lib64", 30)].into();
        let report = report(&plan, &seen);
        says(&report, verdict, "/nix/store", what);
        let about_layout = report
            .findings
            .iter()
            .filter(|finding| finding.topic == Topic::Layout);
        assert_eq!(about_layout.count(), 1, "{report:#?}");
    }
}

#[test]
fn the_half_of_a_split_system_that_is_not_protected_is_named() {
    let table = "30 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
31 30 8:3 / /usr ro,relatime shared:2 - ext4 /dev/sda3 ro
32 30 0:40 / /lib32 ro - erofs /dev/loop0 ro
";
    let plan = plan(STRICT);
    let mut seen = machine(&plan, table);
    let on_root = ["/bin", "/sbin", "/lib", "/lib64"].map(|path| place(path, 30));
    seen.system.outside = Vec::from(on_root);
    seen.system.outside.push(place("/lib32", 32));
    let report = report(&plan, &seen);
    let halves = "/bin, /sbin, /lib, /lib64";
    says(
        &report,
        Verdict::Warning,
        halves,
        "outside /usr, and can be written",
    );
    says(
        &report,
        Verdict::Holds,
        "/lib32",
        "outside /usr, and read-only as well",
    );
}

#[test]
fn the_root_of_a_container_is_a_root_like_any_other() {
    let table =
        "900 800 0:60 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d
901 900 0:61 / /proc rw,nosuid - proc proc rw
902 900 254:1 /x/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda rw
";
    let report = verdict_on(table);
    assert_eq!(report.exit_code(), 1);
    says(&report, Verdict::Broken, "/usr", "writable");
    // No line for the root at all: a chroot that is no mount point.
    assert_ne!(
        verdict_on("901 900 0:61 / /proc rw - proc proc rw\n").exit_code(),
        0
    );
}
