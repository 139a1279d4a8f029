//! Mount tables of real boots and of this machine, against what a write did, what the kernel says and what libmount reads.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use usr_policy_plan::mountinfo::{MountInfo, MountTable};

use super::{point, run, skip};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn table(path: &Path) -> MountTable {
    let table = MountTable::parse(&fs::read(path).unwrap());
    assert_eq!(table.bad_lines, [], "{}", path.display());
    assert!(!table.mounts.is_empty(), "{}", path.display());
    table
}

fn is_read_only(mount: &MountInfo) -> bool {
    let overlay_without_upper =
        mount.fs_type == b"overlay" && mount.super_options.value("upperdir").is_none();
    mount.mount_options.has("ro") || mount.super_options.has("ro") || overlay_without_upper
}

#[test]
fn the_top_mount_of_every_real_table_is_as_writable_as_a_write_found_it() {
    let expected = fs::read_to_string(fixtures().join("expected.tsv")).unwrap();
    let mut named = BTreeSet::new();
    let (mut read_only, mut writable) = (0, 0);
    for row in expected.lines().filter(|row| !row.starts_with('#')) {
        let [name, usr, usr_is, database_is] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        named.insert(format!("{name}.mountinfo"));
        let table = table(
            &fixtures()
                .join("mountinfo")
                .join(format!("{name}.mountinfo")),
        );
        let database = usr.replace("/usr", "/var/lib/pacman");
        for (path, is) in [(usr, usr_is), (&*database, database_is)] {
            let found = is_read_only(table.holding(&point(path)).unwrap());
            match is {
                "ro" => read_only += 1,
                "rw" => writable += 1,
                "-" | "absent" => continue,
                other => panic!("{name}: {other}"),
            }
            assert_eq!(found, is == "ro", "{name}: {path}");
        }
    }
    assert!(
        read_only >= 100 && writable >= 100,
        "{read_only} read-only and {writable} writable places are too few"
    );

    let files: BTreeSet<_> = fs::read_dir(fixtures().join("mountinfo"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, named, "a table without a row is checked by nobody");
}

/// `NAME="value"` of `findmnt --pairs`, its `\xNN` decoded.
fn values(line: &str) -> Vec<Vec<u8>> {
    let decode = |value: &str| {
        let mut parts = value.split("\\x");
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend(&part.as_bytes()[2..]);
        }
        bytes
    };
    line.split('"').skip(1).step_by(2).map(decode).collect()
}

/// What `findmnt` reads in a table, each mount a row of columns; `None` where it is not installed.
pub(crate) fn findmnt(table: &Path, columns: &str) -> Option<(Vec<Vec<Vec<u8>>>, String)> {
    let arguments = [
        OsStr::new("--tab-file"),
        table.as_os_str(),
        OsStr::new("--nofsroot"),
        OsStr::new("--pairs"),
    ];
    let output = run(
        "findmnt",
        &[
            &arguments[..],
            &[OsStr::new("--output"), OsStr::new(columns)],
        ]
        .concat(),
        &[],
    )?;
    let rows = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(values)
        .collect();
    Some((rows, String::from_utf8(output.stderr).unwrap()))
}

fn agrees_with_findmnt(path: &Path) -> bool {
    let columns = "ID,PARENT,MAJ:MIN,FSROOT,TARGET,VFS-OPTIONS,FSTYPE,SOURCE,FS-OPTIONS";
    let Some((rows, _)) = findmnt(path, columns) else {
        return false;
    };
    let mut ours: Vec<Vec<Vec<u8>>> = table(path)
        .mounts
        .iter()
        .map(|mount| {
            vec![
                mount.mount_id.to_string().into_bytes(),
                mount.parent_id.to_string().into_bytes(),
                format!("{}:{}", mount.st_dev.0, mount.st_dev.1).into_bytes(),
                mount.root.clone(),
                mount.mount_point.as_bytes().to_vec(),
                mount.mount_options.iter().collect::<Vec<_>>().join(&b','),
                mount.fs_type.clone(),
                mount.mount_source.clone(),
                mount.super_options.iter().collect::<Vec<_>>().join(&b','),
            ]
        })
        .collect();
    let mut theirs = rows;
    // findmnt sorts; the ids make every row another one.
    ours.sort();
    theirs.sort();
    assert_eq!(shown(&ours), shown(&theirs), "{}", path.display());
    true
}

fn shown(rows: &[Vec<Vec<u8>>]) -> Vec<String> {
    rows.iter()
        .map(|row| row.join(&b' ').escape_ascii().to_string())
        .collect()
}

#[test]
fn findmnt_reads_the_same_in_every_real_table() {
    for file in fs::read_dir(fixtures().join("mountinfo")).unwrap() {
        if !agrees_with_findmnt(&file.unwrap().path()) {
            return;
        }
    }
}

#[test]
fn findmnt_reads_the_same_in_names_with_odd_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mountinfo");
    fs::write(
        &path,
        b"1 9 0:1 / / rw - tmpfs tmpfs rw\n\
          2 1 0:2 /a\\040b\\011\\134 /c\\134d\xff\\040\\040e rw,noatime shared:1 master:2 - fuse.x a#b rw,size=1k\n\
          3 1 4095:1048575 / /caf\xc3\xa9 ro unbindable - overlay over rw,lowerdir=/a\\054b:/c,upperdir=/d\\040e\n",
    )
    .unwrap();
    agrees_with_findmnt(&path);
}

#[test]
fn the_mount_at_every_mount_point_of_this_machine_is_the_one_that_the_kernel_names() {
    let table = table(Path::new("/proc/self/mountinfo"));
    let mut checked = 0;
    for mount in &table.mounts {
        let path = Path::new(OsStr::from_bytes(mount.mount_point.as_bytes()));
        // Not every mount point is ours to open; PROBE below sees to the rest.
        let Ok(directory) = fs::File::open(path) else {
            continue;
        };
        let id = mount_id(&directory);
        let found = table.holding(&mount.mount_point).unwrap();
        assert_eq!(found.mount_id, id, "{}", path.display());
        assert_eq!(
            table.top_at(&mount.mount_point).unwrap(),
            table.by_id(id).unwrap()
        );
        checked += 1;
    }
    assert!(checked > 0);
}

/// The mount that an open file is on, as statx(2) `STATX_MNT_ID` has it. Source: `proc_pid_fdinfo(5)`.
fn mount_id(file: &fs::File) -> u64 {
    let number = std::os::fd::AsRawFd::as_raw_fd(file);
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
    let id = info
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .unwrap();
    id.trim().parse().unwrap()
}

/// Prints the mount id of every directory that it is given on standard input, then the mount table.
const PROBE: &str = r#"
while IFS= read -r path; do
    exec 3<"$path"
    while read -r key id; do [ "$key" = mnt_id: ] && printf '%s %s\n' "$id" "$path"; done </proc/self/fdinfo/3
done
echo
cat /proc/self/mountinfo
"#;

/// Runs a script that mounts, in a mount namespace of its own, and compares what the kernel says with what the table says.
fn agrees_with_the_kernel(script: &str, at_least: usize) {
    let directory = tempfile::tempdir().unwrap();
    let arguments = [
        "--user",
        "--map-root-user",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-ec",
        script,
    ];
    let variables = [
        ("T", directory.path().as_os_str()),
        ("PROBE", OsStr::new(PROBE)),
    ];
    let Some(output) = run("unshare", &arguments, &variables) else {
        return;
    };
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if errors.contains("unshare failed") || errors.contains("uid_map") {
        return skip(&format!("no mount namespace to be had here: {errors}"));
    }
    assert!(output.status.success(), "{errors}");

    let (answers, lines) = std::str::from_utf8(&output.stdout)
        .unwrap()
        .split_once("\n\n")
        .unwrap();
    let table = MountTable::parse(lines.as_bytes());
    assert_eq!(table.bad_lines, []);
    let mut checked = 0;
    for answer in answers.lines() {
        let (id, path) = answer.split_once(' ').unwrap();
        let found = table
            .holding(&point(path))
            .map(|mount| mount.mount_id.to_string());
        // Where the root directory is no mount point, what is on it is on a mount that the table does not show.
        let shown = table
            .mounts
            .iter()
            .any(|mount| mount.mount_id.to_string() == id);
        assert_eq!(found.as_deref(), shown.then_some(id), "{path}\n{lines}");
        checked += 1;
    }
    assert!(
        checked >= at_least,
        "{checked} places are too few\n{}{errors}",
        answers
    );
}

#[test]
fn stacked_hidden_and_tucked_mounts_are_seen_as_the_kernel_sees_them() {
    let script = r#"
        mount -t tmpfs t "$T"
        cd "$T"
        mkdir -p usr/local "a b" stack shared/d other

        # Hidden: /usr/local was mounted before something covered /usr, and once more on what covers it.
        mount -t tmpfs t usr/local
        mount --bind usr usr
        mkdir -p usr/local/lib
        mount -t tmpfs t usr
        mkdir -p usr/local/lib usr/share
        mount -t tmpfs t usr/share

        mount -t tmpfs t "a b"
        mkdir "a b/c"
        mount -t tmpfs t "a b/c"

        n=0; while [ $n -lt 50 ]; do mount -t tmpfs t stack; n=$((n + 1)); done

        # Tucked: what comes by propagation goes below what is mounted there already.
        mount -t tmpfs t shared
        mkdir shared/d shared/e
        mount --make-shared shared
        mount --bind shared other
        mount --make-slave other
        mount -t tmpfs t other/d
        mkdir other/d/mine
        mount -t tmpfs t other/d/mine
        mount -t tmpfs t shared/d
        mount -t tmpfs t shared/e
        mkdir shared/e/x
        mount -t tmpfs t shared/e/x

        { find "$T" -type d; printf '%s\n' / /usr /proc /dev /usr/lib; } | sh -ec "$PROBE"
    "#;
    agrees_with_the_kernel(script, 18);
}

#[test]
fn a_mount_over_the_root_directory_is_not_seen_by_the_kernel_either() {
    let script = r#"
        mount -t tmpfs t "$T"
        mkdir "$T/usr"
        mount --bind "$T" /
        printf '%s\n' / /usr /proc "$T" "$T/usr" | sh -ec "$PROBE"
    "#;
    agrees_with_the_kernel(script, 5);
}

#[test]
fn a_root_directory_that_is_no_mount_point_is_seen_as_the_kernel_sees_it() {
    let script = r#"
        cd "$T"
        mkdir -p root/usr root/proc root/mnt
        for name in bin sbin lib lib32 lib64 libx32; do
            if [ -L /$name ]; then cp -P /$name root/$name
            elif [ -d /$name ]; then mkdir root/$name; mount --rbind /$name root/$name; fi
        done
        mount --rbind /usr root/usr
        mount --rbind /proc root/proc
        mount -t tmpfs t root/mnt
        mkdir root/mnt/a
        mount -t tmpfs t root/mnt/a
        mount -t tmpfs t root/mnt
        printf '%s\n' / /usr /usr/lib /proc /mnt /proc/sys | chroot root sh -ec "$PROBE"
    "#;
    agrees_with_the_kernel(script, 6);
}
