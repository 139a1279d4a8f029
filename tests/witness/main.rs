//! The witness: looks at the mounts of a guest from inside, and shares no code with what it looks at.
//!
//! As a generator (three directories as arguments) it is the first program of the real root: it notes what it sees and
//! leaves a watch behind.

mod mounts;
mod watch;

use std::env;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Where everything that was seen is kept: /run goes with the machine from the initramfs to the real root.
const RECORDS: &str = "/run/witness";

/// A file that every system has and nobody writes to. Opening it to append shows what a writer would meet, and changes
/// no time stamp: systemd looks at those of /usr.
const FILE_OF_USR: &str = "usr/lib/os-release";

/// The real root, as PID 1 has it: since systemd 253 a generator sees nearly everything read-only in its own mounts.
const ROOT_OF_INIT: &str = "/proc/1/root";

const USAGE: &str = "\
witness record NAME ROOT   note an append-open below ROOT, the mounts and the time as NAME
witness watch              note every change at a path of the policy until it is stopped
witness write DIR...       make and remove a file in each directory, and say what happened
witness DIR DIR DIR        as a generator: record, and start the watch";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["record", name, root] => record(name, Path::new(root)),
        ["watch"] => watch::run(Path::new(RECORDS)),
        ["write", ref dirs @ ..] if !dirs.is_empty() => {
            for dir in dirs {
                println!("{dir}\t{}", answer(&write(Path::new(dir))));
            }
            Ok(())
        }
        [normal, early, late] if [normal, early, late].iter().all(|dir| dir.starts_with('/')) => {
            generator()
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = done {
        eprintln!("witness: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Notes the moment of the first program of the real root, once: generators run again at every daemon-reload. A
/// soft-reboot ends the watch with all other processes, so it is started again.
fn generator() -> io::Result<()> {
    if !Path::new(RECORDS).join("generator.append").exists() {
        record("generator", Path::new(ROOT_OF_INIT))?;
    } else if watch::is_running(Path::new(RECORDS)) {
        return Ok(());
    }
    Command::new(env::current_exe()?)
        .arg("watch")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
}

/// Notes what a writer meets below `root`, the mounts of PID 1, and the time.
fn record(name: &str, root: &Path) -> io::Result<()> {
    let note = |what: &str, text: &[u8]| {
        let path = PathBuf::from(RECORDS).join(format!("{name}.{what}"));
        fs::write(&path, text)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    fs::create_dir_all(RECORDS)?;
    note(
        "append",
        answer(&append(&root.join(FILE_OF_USR))).as_bytes(),
    )?;
    note("mountinfo", &fs::read(mounts::TABLE)?)?;
    note("time", watch::boottime().to_string().as_bytes())
}

/// Opens a file as one who wants to append to it, and writes nothing.
fn append(file: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).open(file).map(drop)
}

/// Makes a file that was not there, and removes it.
fn write(dir: &Path) -> io::Result<()> {
    let file = dir.join(".witness-was-here");
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)?;
    fs::remove_file(file)
}

/// What a system call said, in its manual's words.
fn answer(result: &io::Result<()>) -> String {
    let Err(error) = result else {
        return "OK".to_owned();
    };
    match error.raw_os_error() {
        Some(1) => "EPERM".to_owned(),
        Some(2) => "ENOENT".to_owned(),
        Some(13) => "EACCES".to_owned(),
        Some(20) => "ENOTDIR".to_owned(),
        Some(28) => "ENOSPC".to_owned(),
        Some(30) => "EROFS".to_owned(),
        _ => error.to_string(),
    }
}
