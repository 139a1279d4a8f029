//! Superblocks and partition tables, as the tools that make them and libblkid have them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use usr_policy_plan::partition_table::{self, Table};
use usr_policy_plan::superblock::{self, Superblock};

use super::{run, skip};

const UUID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

/// Where a system has its tools for administrators, in no caller's path.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn start_of(path: &Path, length: usize) -> Vec<u8> {
    let mut start = Vec::new();
    let limit = u64::try_from(length).unwrap();
    File::open(path)
        .unwrap()
        .take(limit)
        .read_to_end(&mut start)
        .unwrap();
    start
}

fn image(directory: &TempDir, size: u64) -> PathBuf {
    let path = directory.path().join("image");
    File::create(&path).unwrap().set_len(size).unwrap();
    path
}

/// Runs a tool on an image; whether it is there.
fn make(words: &[&str], image: &Path) -> bool {
    let arguments: Vec<_> = words[1..]
        .iter()
        .map(|word| word.replace("IMAGE", image.to_str().unwrap()))
        .collect();
    let Some(output) = run(words[0], &arguments, &[("PATH", PATH.as_ref())]) else {
        return false;
    };
    assert!(output.status.success(), "{words:?}: {output:?}");
    true
}

/// What libblkid says of an image, by its own names.
fn blkid(image: &Path) -> BTreeMap<String, String> {
    let output = Command::new("blkid")
        .env("PATH", PATH)
        .args(["--probe", "--output", "export"])
        .arg(image)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        // A value for a shell: a blank has a backslash before it.
        .map(|(key, value)| (key.to_owned(), value.replace("\\ ", " ")))
        .collect()
}

fn is_what_blkid_says(words: &[&str], size: u64) {
    let directory = tempfile::tempdir().unwrap();
    let image = image(&directory, size);
    if !make(words, &image) {
        return;
    }
    let expected = blkid(&image);
    let start = start_of(&image, superblock::WANTED);
    let found = Superblock::read(&start).unwrap_or_else(|| panic!("{words:?}: not recognised"));
    assert_eq!(
        Some(found.fs_type),
        expected.get("TYPE").map(String::as_str)
    );
    assert_eq!(found.uuid.as_ref(), expected.get("UUID"), "{words:?}");
    let label = expected.get("LABEL").cloned().unwrap_or_default();
    assert_eq!(String::from_utf8(found.label).unwrap(), label, "{words:?}");
    // Nothing of it is left when the file system is gone.
    assert_eq!(Superblock::read(&vec![0; superblock::WANTED]), None);
    // The end of a small device is no panic, and a part of a superblock no file system.
    for length in (0..start.len()).step_by(100) {
        if let Some(part) = Superblock::read(&start[..length]) {
            assert_eq!(part.fs_type, found.fs_type);
        }
    }
}

const MIB: u64 = 1 << 20;

#[test]
fn every_generation_of_ext_is_told_from_the_others() {
    for fs_type in ["ext2", "ext3", "ext4"] {
        let words = [
            "mke2fs", "-q", "-F", "-t", fs_type, "-L", "my usr", "-U", UUID, "IMAGE",
        ];
        is_what_blkid_says(&words, 16 * MIB);
    }
}

#[test]
fn a_file_system_without_a_label_has_none() {
    is_what_blkid_says(&["mke2fs", "-q", "-F", "-t", "ext4", "IMAGE"], 16 * MIB);
}

#[test]
fn a_label_that_fills_its_field_is_read_to_its_last_byte() {
    let label = "0123456789abcdef";
    let words = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "IMAGE"];
    is_what_blkid_says(&words, 16 * MIB);
}

#[test]
fn the_journal_of_another_file_system_is_no_file_system() {
    let directory = tempfile::tempdir().unwrap();
    let image = image(&directory, 16 * MIB);
    if make(
        &["mke2fs", "-q", "-F", "-O", "journal_dev", "IMAGE"],
        &image,
    ) {
        assert_eq!(blkid(&image).get("TYPE").map(String::as_str), Some("jbd"));
        assert_eq!(
            Superblock::read(&start_of(&image, superblock::WANTED)),
            None
        );
    }
}

#[test]
fn btrfs_is_recognised() {
    let words = ["mkfs.btrfs", "-q", "-L", "my usr", "-U", UUID, "IMAGE"];
    is_what_blkid_says(&words, 128 * MIB);
}

#[test]
fn xfs_is_recognised() {
    let uuid = format!("uuid={UUID}");
    let words = ["mkfs.xfs", "-q", "-L", "usr", "-m", &uuid, "IMAGE"];
    is_what_blkid_says(&words, 512 * MIB);
}

#[test]
fn erofs_is_recognised() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "text").unwrap();
    let tree = directory.path().to_str().unwrap();
    is_what_blkid_says(&["mkfs.erofs", "--quiet", "-U", UUID, "IMAGE", tree], MIB);
}

#[test]
fn squashfs_is_recognised() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "text").unwrap();
    let tree = directory.path().to_str().unwrap();
    let words = [
        "mksquashfs",
        tree,
        "IMAGE",
        "-quiet",
        "-no-progress",
        "-noappend",
    ];
    is_what_blkid_says(&words, 0);
}

/// A name as partx shows it.
fn in_partx(name: &[u8]) -> String {
    let shown = name.iter().map(|&byte| match byte {
        b'!'..=b'~' => char::from(byte).to_string(),
        byte => format!("\\x{byte:02x}"),
    });
    shown.collect()
}

/// Makes a partition table by a script for sfdisk(8), and compares each partition with what partx(8) reads.
fn is_what_partx_says(script: &str, numbers: &[u32]) {
    let directory = tempfile::tempdir().unwrap();
    let image = image(&directory, 64 * MIB);
    let sfdisk = Command::new("sfdisk")
        .env("PATH", PATH)
        .arg("--quiet")
        .arg(&image)
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut sfdisk) = sfdisk else {
        skip("sfdisk is not installed; run make requirements");
        return;
    };
    let mut input = sfdisk.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    assert!(sfdisk.wait().unwrap().success());

    let arguments = ["--raw", "--noheadings", "--output", "NR,UUID,NAME"];
    let output = Command::new("partx")
        .env("PATH", PATH)
        .args(arguments)
        .arg(&image)
        .output()
        .unwrap();
    let start = start_of(&image, partition_table::WANTED);
    let table = Table::read(&start).unwrap();
    let mut seen = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (number, uuid, name) = (word().parse().unwrap(), word(), word());
        // An extended partition has no file system, and partx shows it all the same.
        let partition = table.partition(number).unwrap();
        assert_eq!((partition.uuid, in_partx(&partition.label)), (uuid, name));
        seen.push(number);
    }
    assert_eq!(seen, numbers);
    assert_eq!(table.partition(0).map(|partition| partition.uuid), None);
}

#[test]
fn partitions_of_a_gpt_have_their_uuid_and_their_name_and_a_gap_is_none() {
    let script = "label: gpt\n\
        size=4MiB, name=\"the root\", uuid=0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0\n\
        5: size=4MiB, name=\"usr of ä\"\n\
        128: size=4MiB\n";
    is_what_partx_says(script, &[1, 5, 128]);
}

#[test]
fn partitions_of_an_mbr_have_the_signature_of_the_disk_and_their_number() {
    let script = "label: dos\nlabel-id: 0xdeadBEEF\n\
        size=4MiB, type=83\nsize=40MiB, type=5\n5: size=4MiB, type=83\n6: size=4MiB, type=83\n";
    is_what_partx_says(script, &[1, 2, 5, 6]);
}
