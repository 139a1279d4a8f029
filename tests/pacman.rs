//! The real pacman of each suite, in a chroot with real mounts: what it does when everything is locked, when it is open, and
//! in between. `tests/pacman.tsv` has what it said; `UPDATE_GOLDEN=1` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Mutex;

use libtest_mimic::{Arguments, Trial};
use usr_policy_tests::machine::key::Key;
use usr_policy_tests::machine::namespace::become_root;
use usr_policy_tests::machine::{Cache, Suite};
use usr_policy_tests::system::{Installed, System};

/// What is asked of pacman, and whether it is to change something.
const COMMANDS: &[(&str, bool)] = &[
    ("pacman -Q", false),
    ("pacman -Qi oldtoy", false),
    ("pacman -Qk oldtoy", false),
    ("pacman -T toy", false),
    ("pacman -Ss toy", false),
    ("pacman -Si toy", false),
    ("pacman -Sp toy", false),
    ("pacman -Rp oldtoy", false),
    ("pacman -S --noconfirm toy", true),
    ("pacman -Sw --noconfirm toy", true),
    ("pacman -Su --noconfirm", true),
    ("pacman -Sy", true),
    ("pacman -Syy", true),
    ("pacman -R --noconfirm oldtoy", true),
    ("pacman -Rdd --noconfirm oldtoy", true),
    (
        "pacman -U --noconfirm /srv/pacman/toy-1-1-any.pkg.tar",
        true,
    ),
    ("pacman -D --asdeps oldtoy", true),
    ("pacman -Sc --noconfirm", true),
    (
        "pacman --root /tmp/root --dbpath /tmp/root/db --cachedir /tmp/root/cache -Sy",
        true,
    ),
];

/// How the system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// As strict has it.
    Locked,
    /// After usr-policy unlock.
    Open,
    /// `/usr` closed, the database open, and the hook of usr-policy in its place.
    Guarded,
    /// The same without the hook: what must not be.
    Unguarded,
}

const STATES: [State; 4] = [State::Locked, State::Open, State::Guarded, State::Unguarded];

const HOOK: &str = "/usr/share/libalpm/hooks/usr-policy-guard.hook";
const DATABASE: &str = "/var/lib/pacman";
const CACHE: &str = "/var/cache/pacman";

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Came {
    exit: i32,
    /// The last error that it printed, or nothing.
    error: String,
    /// What it printed otherwise.
    output: String,
    database_changed: bool,
    packages_changed: bool,
    rest_of_usr_changed: bool,
    cache_grew: bool,
    hook_ran: bool,
}

fn main() -> ExitCode {
    become_root(&["USR_POLICY_STAGE", "UPDATE_GOLDEN", "PATH"]).unwrap();
    let _installed = Installed::new();
    let arguments = Arguments::from_args();
    let trials = [Suite::Bookworm, Suite::Trixie, Suite::Forky].map(|suite| {
        Trial::test(format!("pacman of {suite} in every state"), move || {
            of(suite);
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

fn of(suite: Suite) {
    let tree = tree(suite);
    let version = System::of_tree(&tree, "rw", version);
    let mut table = BTreeMap::new();
    for state in STATES {
        for (command, changes) in COMMANDS {
            let came = System::of_tree(&tree, "root=/dev/vda2 rw usrpolicy=strict", |system| {
                prepare(system, state);
                run(system, command)
            });
            judge(command, *changes, state, &came);
            table.insert((*command, state), came);
        }
    }
    // What pacman answers does not depend on a lock.
    for (command, _) in COMMANDS.iter().filter(|(_, changes)| !changes) {
        let answer = |state| {
            let came: &Came = &table[&(*command, state)];
            (came.exit, came.output.clone())
        };
        for state in STATES {
            assert_eq!(answer(state), answer(State::Open), "{command}, {state:?}");
        }
    }
    recorded(&version, &table);
}

/// The suite's tree; made where it is not there yet.
fn tree(suite: Suite) -> PathBuf {
    let cache = Cache::of_this_build().unwrap();
    let _turn = cache.turn().unwrap();
    suite.system(&cache).unwrap().root
}

/// "6.0": what decides how pacman acts.
fn version(system: &System) -> String {
    let said = system.command(&["pacman", "--version"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let version = said.split_once("Pacman v").unwrap().1;
    let version = version.split_whitespace().next().unwrap();
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

fn prepare(system: &System, state: State) {
    let (exit, log) = system.generator(&["sync"]);
    assert_eq!(exit, 0, "{log}");
    match state {
        State::Locked => {}
        State::Open => {
            let (exit, text, complaints) = system.program(&["unlock"]);
            assert_eq!(exit, 0, "{text}{complaints}");
        }
        State::Guarded => system.does(&["umount", "--lazy", DATABASE]),
        State::Unguarded => {
            system.does(&["umount", "--lazy", DATABASE]);
            system.does(&["umount", "--lazy", "/usr"]);
            fs::remove_file(system.path(HOOK)).unwrap();
            let (exit, log) = system.generator(&["apply", "--root", "/", "--stage", "host"]);
            assert_eq!(exit, 0, "{log}");
        }
    }
    let closed = |path| system.is_read_only(path);
    assert_eq!(
        (closed("/usr"), closed(DATABASE)),
        match state {
            State::Locked => (true, true),
            State::Open => (false, false),
            State::Guarded | State::Unguarded => (true, false),
        }
    );
    fs::create_dir_all(system.path("/tmp/root/db")).unwrap();
}

fn run(system: &System, command: &str) -> Came {
    let before = Seen::of(system);
    let words: Vec<&str> = command.split(' ').collect();
    let ran = system
        .command(&words)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let after = Seen::of(system);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (output, errors) = (text(&ran.stdout), text(&ran.stderr));
    let is_error = |line: &&str| line.starts_with("error: ") || line.starts_with("usr-policy: ");
    Came {
        exit: ran.status.code().unwrap(),
        error: errors
            .lines()
            .chain(output.lines())
            .filter(is_error)
            .collect::<Vec<_>>()
            .join(" / "),
        hook_ran: output.contains("Asking usr-policy"),
        output,
        database_changed: before.database != after.database,
        packages_changed: before.packages != after.packages,
        rest_of_usr_changed: before.rest_of_usr != after.rest_of_usr,
        cache_grew: after.cached > before.cached,
    }
}

/// What may change.
struct Seen {
    database: String,
    packages: [bool; 2],
    rest_of_usr: u64,
    cached: usize,
}

impl Seen {
    fn of(system: &System) -> Self {
        let there = |name: &str| system.path("/usr/bin").join(name).exists();
        Seen {
            database: Key::new().with_tree(&system.path(DATABASE)).unwrap().text(),
            packages: ["toy", "oldtoy"].map(there),
            rest_of_usr: stamp(&system.path("/usr")),
            cached: files(&system.path(CACHE)),
        }
    }
}

/// A number of the times and sizes of everything below a directory but the packages of the tests and their directory.
fn stamp(directory: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        if path.ends_with("bin/toy") || path.ends_with("bin/oldtoy") {
            continue;
        }
        let is_bin = path.ends_with("usr/bin");
        if !is_bin {
            let time = u64::from_ne_bytes((meta.mtime() ^ meta.mtime_nsec()).to_ne_bytes());
            sum ^= (time ^ meta.size()).wrapping_mul(meta.ino() | 1);
        }
        if meta.is_dir() {
            sum ^= stamp(&path);
        }
    }
    sum
}

fn files(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path) } else { 1 }
        })
        .sum()
}

/// What holds of every pacman.
fn judge(command: &str, changes: bool, state: State, came: &Came) {
    let what = format!("{command}, {state:?}: {came:?}");
    assert!(!came.rest_of_usr_changed, "{what}");
    if !changes || command.contains("--root") {
        assert!(!came.database_changed && !came.packages_changed, "{what}");
        return;
    }
    match state {
        State::Locked => {
            assert!(!came.database_changed && !came.packages_changed, "{what}");
            assert!(!came.hook_ran && !came.cache_grew, "{what}");
            // -Sc asks for no lock, and the cache may be emptied.
            if !command.contains("-Sc") {
                assert!(came.exit == 1 && !came.error.is_empty(), "{what}");
            }
        }
        State::Open => assert_eq!(came.exit, 0, "{what}"),
        State::Guarded => assert!(!came.packages_changed, "{what}"),
        State::Unguarded => {}
    }
    let alters_usr = ["-S --noconfirm", "-R", "-U"]
        .iter()
        .any(|word| command.contains(word));
    if alters_usr && state == State::Guarded {
        assert!(came.exit == 1 && !came.database_changed, "{what}");
        // With CheckSpace pacman looks by itself, before any hook, where it installs.
        let by_hook = came.hook_ran && came.error.contains("so packages cannot change it");
        assert!(
            by_hook || came.error.contains("mounted read only"),
            "{what}"
        );
        assert!(by_hook || !command.contains("-R"), "{what}");
    }
    if command.contains("-R") && state == State::Unguarded {
        // This is what all of it is for; where it no longer is so, the reason is gone.
        assert!(
            came.exit == 0 && came.database_changed && !came.packages_changed,
            "{what}"
        );
    }
}

/// The file with everybody's table.
static FILE: Mutex<()> = Mutex::new(());

fn recorded(version: &str, table: &BTreeMap<(&str, State), Came>) {
    let _file = FILE.lock().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pacman.tsv");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let is_own = |line: &&str| line.split('\t').next() == Some(version);
    let mut now = String::new();
    for (command, _) in COMMANDS {
        for state in STATES {
            let came = &table[&(*command, state)];
            writeln!(
                now,
                "{version}\t{command}\t{}\t{}\t{}\t{}\t{}\t{}",
                format!("{state:?}").to_lowercase(),
                came.exit,
                if came.database_changed {
                    "changed"
                } else {
                    "same"
                },
                if came.packages_changed {
                    "changed"
                } else {
                    "same"
                },
                if came.hook_ran { "ran" } else { "-" },
                came.error
            )
            .unwrap();
        }
    }
    let recorded: String = text.split_inclusive('\n').filter(is_own).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        const HEAD: &str = "pacman\tcommand\tstate\texit\tdatabase\tpackages\thook\terror";
        let others = text.lines().filter(|line| !is_own(line) && *line != HEAD);
        let mut lines: Vec<&str> = others.chain(now.lines()).collect();
        lines.sort_by_key(|line| line.split('\t').next().map(str::to_owned));
        fs::write(&file, format!("{HEAD}\n{}\n", lines.join("\n"))).unwrap();
    } else if recorded.is_empty() {
        eprintln!(
            "pacman {version} is not in tests/pacman.tsv: what holds of every pacman was tested, and no words"
        );
    } else {
        assert_eq!(
            recorded, now,
            "UPDATE_GOLDEN=1 writes tests/pacman.tsv anew"
        );
    }
}
