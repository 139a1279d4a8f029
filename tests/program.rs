//! What the boot program is made of, and what a run of it costs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use usr_policy_tests::cost::{EMPTY, empty_program, instructions_of_generator};
use usr_policy_tests::machine::namespace::become_root;
use usr_policy_tests::product;
use usr_policy_tests::system::{GENERATOR, Installed, System};
use usr_policy_tests::trials;

fn main() -> ExitCode {
    // The root of a user namespace may not take this machine's root for a layer of an overlay: mounts below it are locked.
    become_root(&["USR_POLICY_STAGE", "CARGO", "HOME", "PATH"]).unwrap();
    let _installed = Installed::new();
    trials::run(TESTS)
}

const TESTS: &[(&str, fn())] = &[
    (
        "the boot program needs no loader and no library",
        needs_nothing,
    ),
    ("the boot program is at most 1.3 MB", is_small),
    (
        "the boot program is made of these packages and of no other",
        has_these_dependencies,
    ),
    (
        "a strict run costs at most two and a half times an empty program, and less than any generator of systemd",
        costs_little,
    ),
];

/// What readelf(1) says of a program.
fn readelf(option: &str, program: &Path) -> String {
    let ran = Command::new("readelf")
        .args([option, "--wide"])
        .arg(program)
        .output();
    let ran = ran.expect("readelf is needed: install binutils");
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

fn needs_nothing() {
    let loader = |program: &Path| readelf("--program-headers", program).contains("INTERP");
    let libraries = |program: &Path| readelf("--dynamic", program).contains("(NEEDED)");
    let program = product::boot_program();
    assert!(!loader(&program) && !libraries(&program));
    // So it looks where the answer is yes.
    let dynamic = Path::new(GENERATORS).join("systemd-fstab-generator");
    assert!(loader(&dynamic) && libraries(&dynamic));
}

fn is_small() {
    let size = fs::metadata(product::boot_program()).unwrap().len();
    println!("boot program: {size} bytes");
    assert!((1..=1_300_000).contains(&size), "{size} bytes");
}

/// No argument parser, no JSON, no procedural macro: all of it is in every initramfs, and read by whoever trusts it.
const PACKAGES: &[&str] = &[
    "bitflags",
    "byteorder",
    "cfg-if",
    "hash32",
    "heapless",
    "kernlog",
    "libc",
    "linux-raw-sys",
    "log",
    "nix",
    "rustix",
    "stable_deref_trait",
    "usr-policy-generator",
    "usr-policy-plan",
    "usr-policy-system",
];

fn has_these_dependencies() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ran = Command::new(cargo)
        .args([
            "tree",
            "--offline",
            "--locked",
            "--package",
            "usr-policy-generator",
        ])
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let text = String::from_utf8(ran.stdout).unwrap();
    let packages: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(packages, PACKAGES.iter().copied().collect());
}

/// Where systemd looks for generators.
const GENERATORS: &str = "/usr/lib/systemd/system-generators";

fn costs_little() {
    System::with("root=/dev/vda2 rw quiet usrpolicy=strict", |system| {
        let fstab = "UUID=0a3407de-014b-458b-b5c1-848e92a327a3 / ext4 rw,relatime 0 1\n";
        system.write("/etc/fstab", fstab);
        empty_program(system);
        assert!(!readelf("--program-headers", &system.path(EMPTY)).contains("INTERP"));
        let floor = instructions_of_generator(system, EMPTY);
        let ours = instructions_of_generator(system, GENERATOR);
        // It did what it is for.
        for path in ["generator/var-lib-pacman.mount", "generator.late/usr.mount"] {
            assert!(system.path("/run/systemd").join(path).exists(), "{path}");
        }
        println!("empty static program: {floor} instructions");
        println!(
            "usr-policy-generator, strict: {ours} ({:.2} times)",
            ratio(ours, floor)
        );
        assert!(
            ours * 2 <= floor * 5,
            "{ours} is more than 2.5 times {floor}"
        );

        let mut compared = 0;
        for entry in fs::read_dir(system.path(GENERATORS)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = format!("{GENERATORS}/{name}");
            let is_elf =
                fs::read(system.path(&path)).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
            if !name.starts_with("systemd-") || !is_elf {
                continue;
            }
            let theirs = instructions_of_generator(system, &path);
            println!("{name}: {theirs} ({:.2} times)", ratio(theirs, floor));
            assert!(theirs > ours, "{name} takes {theirs}, we take {ours}");
            compared += 1;
        }
        assert!(compared > 0, "{GENERATORS}: no generator to compare with");
    });
}

#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}
