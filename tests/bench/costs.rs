//! What a run of each program costs, beside programs of others on the same machine.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::unistd::{chroot, fchdir};
use usr_policy_tests::cost::{
    EMPTY, ENVIRONMENT, OUTPUT, empty_output, empty_program, instructions,
    instructions_of_generator,
};
use usr_policy_tests::system::{GENERATOR, System};

use crate::busy::{self, Services};
use crate::{DATABASE, STRICT, milliseconds};

/// How often each program is timed.
const ROUNDS: usize = 101;

const FSTAB_GENERATOR: &str = "/usr/lib/systemd/system-generators/systemd-fstab-generator";
const FINDMNT: &str = "/usr/bin/findmnt";
const VERIFY: [&str; 2] = ["/usr/bin/usr-policy", "verify"];

/// Of an installation.
const ROOT_LINE: &str = "UUID=0a3407de-014b-458b-b5c1-848e92a327a3 / ext4 rw,relatime 0 1\n";

/// Makes a system what it is after a boot.
fn boot(system: &System) {
    system.write("/etc/fstab", ROOT_LINE);
    assert_eq!(system.early().0, 0);
    system.does(&[GENERATOR, "sync"]);
    for (path, options) in [
        ("/var/tmp", "mode=1777,size=25%,nosuid,nodev"),
        (
            "/var/cache/pacman",
            "mode=0755,size=25%,nosuid,nodev,noexec",
        ),
    ] {
        system.does(&["mount", "-t", "tmpfs", "-o", options, "tmpfs", path]);
    }
    system.does(&VERIFY);
}

/// Instructions and wall times of our programs and of others that do something like it.
pub fn beside_others() {
    System::with(STRICT, |system| {
        boot(system);
        compare("a run of", system);
    });
    busy::with(boot, |system| compare("on a working day", system));
    println!(
        "{ROUNDS} rounds, in which the programs take turns; ratios are medians of those of one round"
    );
}

fn compare(title: &str, system: &System) {
    empty_program(system);
    let generator = |program| [&[program], &OUTPUT[..]].concat();
    let programs: [(&str, Vec<&str>); 5] = [
        ("empty static program", vec![EMPTY]),
        ("findmnt", vec![FINDMNT]),
        ("systemd-fstab-generator", generator(FSTAB_GENERATOR)),
        ("usr-policy-generator", generator(GENERATOR)),
        ("usr-policy verify", VERIFY.to_vec()),
    ];
    let commands: Vec<&[&str]> = programs.iter().map(|(_, words)| &words[..]).collect();
    let times = times(system, &commands, ROUNDS, &[0]);
    println!(
        "\n{title:<26}{:>14}{:>10}{:>10}{:>12}{:>12}",
        "instructions", "median", "fastest", "of empty", "of findmnt"
    );
    for ((name, words), own) in programs.iter().zip(&times) {
        empty_output(system);
        let instructions = if words[..] == VERIFY {
            // What counts them knows no openat2(2): it would read no file.
            "-".to_owned()
        } else {
            instructions(system, words).to_string()
        };
        println!(
            "{name:<26}{instructions:>14}{:>10}{:>10}{:>12.2}{:>12.2}",
            milliseconds(median(own.clone())),
            milliseconds(*own.iter().min().unwrap()),
            median(ratios(own, &times[0])),
            median(ratios(own, &times[1])),
        );
    }
}

/// The wall time of each command in each round; it ends with one of these codes. They take turns: what else the machine does meets all of them.
fn times(
    system: &System,
    commands: &[&[&str]],
    rounds: usize,
    codes: &[i32],
) -> Vec<Vec<Duration>> {
    let mut times = vec![Vec::with_capacity(rounds); commands.len()];
    // The thread's own root, as its mounts are: no other program stands between it and what is timed.
    let outside = File::open("/").unwrap();
    chroot(&system.root()).unwrap();
    for round in 0..=rounds {
        for (words, times) in commands.iter().zip(&mut times) {
            for path in OUTPUT {
                let _ = fs::remove_dir_all(path);
                fs::create_dir_all(path).unwrap();
            }
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).env_clear().envs(ENVIRONMENT);
            command.stdin(Stdio::null()).stdout(Stdio::null());
            let began = Instant::now();
            let status = command.status().unwrap();
            let time = began.elapsed();
            let code = status.code().unwrap_or(-1);
            assert!(codes.contains(&code), "{words:?}: {status}");
            // The first round reads the programs from the disk.
            if round > 0 {
                times.push(time);
            }
        }
    }
    fchdir(outside).unwrap();
    chroot(".").unwrap();
    times
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

fn ratios(ours: &[Duration], theirs: &[Duration]) -> Vec<f64> {
    ours.iter()
        .zip(theirs)
        .map(|(a, b)| a.as_secs_f64() / b.as_secs_f64())
        .collect()
}

/// How many mounts, and how many lines of fstab.
const SIZES: [u64; 4] = [10, 100, 1_000, 10_000];

/// How often a program is timed whose growth is shown.
const TIMES: usize = 5;

/// The time of the fastest of several runs. Much of what there is to read is a finding, which may end with 1.
fn microseconds(system: &System, words: &[&str]) -> u64 {
    let times = times(system, &[words], TIMES, &[0, 1]).remove(0);
    let fastest = times.iter().min().unwrap().as_micros();
    u64::try_from(fastest).unwrap()
}

/// How the instructions, of verify the microseconds, grow with what there is to read.
pub fn growth() {
    println!(
        "\n{:<44}{:>14}{:>14}{:>14}{:>14}",
        "instructions, of verify \u{b5}s, with more", 10, 100, "1 000", "10 000"
    );
    // Its last size alone would take minutes.
    row("findmnt, mounts", &SIZES[..3], |size| {
        with_mounts(size, "/var/lib", |system| instructions(system, &[FINDMNT]))
    });
    row("usr-policy verify, mounts", &SIZES, |size| {
        with_mounts(size, "/var/lib", |system| microseconds(system, &VERIFY))
    });
    // Each of these is a finding, or may be.
    row("usr-policy verify, mounts below /usr", &SIZES, |size| {
        with_mounts(size, "/usr", |system| microseconds(system, &VERIFY))
    });
    row("usr-policy verify, below the database", &SIZES, |size| {
        with_mounts(size, DATABASE, |system| microseconds(system, &VERIFY))
    });
    row("usr-policy verify, binds of /usr", &SIZES, |size| {
        with_binds(size, |system| microseconds(system, &VERIFY))
    });
    row("usr-policy verify, services", &SIZES[..2], |size| {
        with_services(size, |system| microseconds(system, &VERIFY))
    });
    row("usr-policy-generator, lines of fstab", &SIZES, |size| {
        with_lines(size, "/srv", |system| {
            instructions_of_generator(system, GENERATOR)
        })
    });
    row("systemd-fstab-generator, lines of fstab", &SIZES, |size| {
        with_lines(size, "/srv", |system| {
            instructions_of_generator(system, FSTAB_GENERATOR)
        })
    });
    row("usr-policy verify, lines of fstab", &SIZES, |size| {
        with_lines(size, "/srv", |system| microseconds(system, &VERIFY))
    });
    row("usr-policy verify, lines below /usr", &SIZES, |size| {
        with_lines(size, "/usr", |system| microseconds(system, &VERIFY))
    });
    row("usr-policy verify, below the database", &SIZES, |size| {
        with_lines(size, DATABASE, |system| microseconds(system, &VERIFY))
    });
    println!(
        "below each number: its exponent, with what a run costs anyway taken off; 1 is linear, - is too little to tell"
    );
}

fn row(name: &str, sizes: &[u64], cost: impl Fn(u64) -> u64) {
    let anyway = cost(0);
    let costs = sizes
        .iter()
        .map(|size| cost(*size).saturating_sub(anyway).max(1));
    let costs: Vec<u64> = costs.collect();
    let (mut numbers, mut exponents) = (String::new(), format!("{:<58}", ""));
    for (index, cost) in costs.iter().enumerate() {
        let _ = write!(numbers, "{:>14}", cost + anyway);
        if let Some(before) = index.checked_sub(1) {
            // What is lost in a run itself tells of nothing but the clock.
            let _ = if costs[before] * 2 < anyway {
                write!(exponents, "{:>14}", "-")
            } else {
                write!(exponents, "{:>14.2}", exponent(costs[before], *cost))
            };
        }
    }
    println!("{name:<44}{numbers}\n{exponents}");
}

/// Of what costs that much more where there is ten times as much to do.
#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
fn exponent(before: u64, after: u64) -> f64 {
    (after as f64 / before as f64).log10()
}

/// With so many mounts below a directory, in the order of their numbers.
fn with_mounts(count: u64, below: &str, cost: impl FnOnce(&System) -> u64 + Send) -> u64 {
    System::with(STRICT, |system| {
        let path = |number| system.path(&format!("{below}/many/{number}"));
        // Where nothing can be made any more after a boot.
        for number in 0..count {
            fs::create_dir_all(path(number)).unwrap();
        }
        boot(system);
        for number in 0..count {
            let none = MsFlags::empty();
            let (from, to) = (Some("many"), path(number));
            mount(from, &to, Some("tmpfs"), none, Some("size=4k")).unwrap();
        }
        cost(system)
    })
}

/// With so many other ways to the files of /usr, by which they can be written.
fn with_binds(count: u64, cost: impl FnOnce(&System) -> u64 + Send) -> u64 {
    System::with(STRICT, |system| {
        for number in 0..count {
            let path = system.path(&format!("/var/lib/many/{number}"));
            fs::create_dir_all(&path).unwrap();
            let (from, none) = (system.path("/usr"), None::<&Path>);
            mount(Some(&from), &path, none, MsFlags::MS_BIND, none).unwrap();
        }
        boot(system);
        cost(system)
    })
}

/// With so many processes that have mounts of their own.
fn with_services(count: u64, cost: impl FnOnce(&System) -> u64 + Send) -> u64 {
    System::with(STRICT, |system| {
        boot(system);
        let services = Services::start(system, usize::try_from(count).unwrap());
        let cost = cost(system);
        drop(services);
        cost
    })
}

/// With so many lines of fstab for mounts below a directory.
fn with_lines(count: u64, below: &str, cost: impl FnOnce(&System) -> u64 + Send) -> u64 {
    System::with(STRICT, |system| {
        boot(system);
        let lines = (0..count)
            .map(|number| format!("LABEL=disk{number} {below}/many/{number} ext4 rw,nofail 0 2\n"));
        let text = lines.fold(ROOT_LINE.to_owned(), |text, line| text + &line);
        system.write("/etc/fstab", &text);
        cost(system)
    })
}
