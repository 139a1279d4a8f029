//! The real pacman of each suite, in a chroot with real mounts: what it does when everything is locked, when it is open, and
//! in between. `tests/pacman.tsv` has what it said, `docs/pacman.md` is made from that; `UPDATE_GOLDEN=1` writes both anew.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use libtest_mimic::{Arguments, Trial};
use nix::mount::{MsFlags, mount};
use usr_policy_plan::package_manager::GUARD_NAME;
use usr_policy_system::pacman::pacman_conf;
use usr_policy_system::root::Root;
use usr_policy_tests::machine::key::Key;
use usr_policy_tests::machine::namespace::become_root;
use usr_policy_tests::machine::{Cache, Suite};
use usr_policy_tests::system::{Follower, Installed, System, becomes, installed};

/// What a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It asks, and is answered alike in every state.
    Asks,
    /// It changes another root or another database, in every state.
    Elsewhere,
    /// It changes the database, the lists or the cache, but not `/usr`.
    Refreshes,
    /// It changes `/usr`, and the database with it.
    Alters,
    /// It is told to change the database without `/usr`.
    Forgets,
}

/// What is asked of pacman.
const COMMANDS: &[(&str, Kind)] = &[
    ("pacman -Q", Kind::Asks),
    ("pacman -Qi oldtoy", Kind::Asks),
    ("pacman -Qk oldtoy", Kind::Asks),
    ("pacman -Qu", Kind::Asks),
    ("pacman -T toy", Kind::Asks),
    ("pacman -Ss toy", Kind::Asks),
    ("pacman -Si toy", Kind::Asks),
    ("pacman -Sp toy", Kind::Asks),
    ("pacman -Sup", Kind::Asks),
    ("pacman -Rp oldtoy", Kind::Asks),
    // As checkupdates does.
    ("pacman --dbpath /tmp/updates -Sy", Kind::Elsewhere),
    (
        "pacman --root /tmp/root --cachedir /tmp/root/cache --noconfirm -Sy toy",
        Kind::Elsewhere,
    ),
    (
        "pacman --root /tmp/root --dbpath /tmp/root/db --cachedir /tmp/root/cache --noconfirm -U /srv/pacman/toy-1-1-any.pkg.tar",
        Kind::Elsewhere,
    ),
    ("pacman -Sy", Kind::Refreshes),
    ("pacman -Syy", Kind::Refreshes),
    ("pacman -Fy", Kind::Refreshes),
    ("pacman -Sw --noconfirm toy", Kind::Refreshes),
    ("pacman -Sc --noconfirm", Kind::Refreshes),
    ("pacman -D --asdeps oldtoy", Kind::Refreshes),
    ("pacman -S --noconfirm toy", Kind::Alters),
    (
        "pacman --config /etc/pacman-unchecked.conf -S --noconfirm toy",
        Kind::Alters,
    ),
    ("pacman -Su --noconfirm", Kind::Alters),
    ("pacman -Syu --noconfirm", Kind::Alters),
    (
        "pacman -U --noconfirm /srv/pacman/toy-1-1-any.pkg.tar",
        Kind::Alters,
    ),
    ("pacman -R --noconfirm oldtoy", Kind::Alters),
    ("pacman -Rdd --noconfirm oldtoy", Kind::Alters),
    ("pacman -R --dbonly --noconfirm oldtoy", Kind::Forgets),
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

const HOOKS: &str = "/usr/share/libalpm/hooks";
const DATABASE: &str = "/var/lib/pacman";
const CACHE: &str = "/var/cache/pacman";
const STRICT: &str = "root=/dev/vda2 rw usrpolicy=strict";

/// What pacman prints where it runs our hook, and two of other people, before and after the transaction.
const DESCRIPTIONS: [(&str, &str); 3] = [
    ("guard", "Asking usr-policy whether /usr may change..."),
    ("before", "A hook of others before it..."),
    ("after", "A hook of others after it..."),
];

/// The name of a hook that removes the kernel from /boot before the transaction, on every Arch with mkinitcpio.
const BEFORE: &str = "60-mkinitcpio-remove.hook";

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Came {
    exit: i32,
    /// The errors that it printed.
    error: String,
    /// What it printed otherwise.
    output: String,
    /// The hooks that ran, in their order.
    hooks: Vec<&'static str>,
    /// What the database says is installed.
    record_changed: bool,
    /// What the repositories have, as far as the database knows.
    lists_changed: bool,
    packages_changed: bool,
    rest_of_usr_changed: bool,
    /// The directory that the packages' files are in.
    programs_changed: bool,
    cache_changed: bool,
    elsewhere_changed: bool,
}

fn main() -> ExitCode {
    become_root(&["USR_POLICY_STAGE", "UPDATE_GOLDEN", "PATH"]).unwrap();
    let _installed = Installed::new();
    let arguments = Arguments::from_args();
    let mut trials = vec![Trial::test(
        "the page about pacman says what tests/pacman.tsv does",
        || {
            says_what_the_table_does();
            Ok(())
        },
    )];
    for suite in [Suite::Bookworm, Suite::Trixie, Suite::Forky] {
        let mut add = |what: &str, test: fn(&Path)| {
            trials.push(Trial::test(
                format!("pacman of {suite} {what}"),
                move || {
                    test(&tree(suite));
                    Ok(())
                },
            ));
        };
        add("in every state", in_every_state);
        add(
            "builds in a clean chroot while everything is locked",
            builds_in_a_clean_chroot,
        );
        add(
            "works on another root, whose own guard judges that root",
            judges_its_own_root,
        );
        add(
            "ends its transaction whole when the time of an unlock is over in the middle of it",
            ends_its_transaction,
        );
        add("reads its configuration as we do", reads_as_we_do);
        add(
            "could fill no empty root if the guard were in /etc/pacman.d/hooks",
            belongs_to_its_root,
        );
    }
    trials.push(Trial::test(
        "makepkg builds while everything is locked, and installs nothing",
        || {
            makepkg_builds(&tree(Suite::Build));
            Ok(())
        },
    ));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The suite's tree; made where it is not there yet.
fn tree(suite: Suite) -> PathBuf {
    let cache = Cache::of_this_build().unwrap();
    let _turn = cache.turn().unwrap();
    suite.system(&cache).unwrap().root
}

fn in_every_state(tree: &Path) {
    let version = System::of_tree(tree, "rw", version);
    let mut table = BTreeMap::new();
    for state in STATES {
        for (command, kind) in COMMANDS {
            let came = System::of_tree(tree, STRICT, |system| {
                prepare(system, state);
                run(system, &command.split(' ').collect::<Vec<_>>())
            });
            judge(command, *kind, state, &came);
            table.insert((*command, state), came);
        }
    }
    // What pacman answers does not depend on a lock.
    for (command, _) in COMMANDS.iter().filter(|(_, kind)| *kind == Kind::Asks) {
        for state in STATES {
            assert_eq!(
                table[&(*command, state)],
                table[&(*command, State::Open)],
                "{command}, {state:?}"
            );
        }
    }
    recorded(&version, &table);
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
    gives_it_something_to_do(system);
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
            fs::remove_file(system.path(HOOKS).join(GUARD_NAME)).unwrap();
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
}

/// Makes every command one that has something to change.
fn gives_it_something_to_do(system: &System) {
    // An older version is installed than the repository has.
    // Not rename(2): an overlay refuses it to a directory of a lower layer.
    let local = "/var/lib/pacman/local";
    let older = format!("{local}/oldtoy-0-1");
    system.does(&["mv", &format!("{local}/oldtoy-1-1"), &older]);
    let desc = system.path(&older).join("desc");
    let text = fs::read_to_string(&desc).unwrap();
    fs::write(desc, text.replace("%VERSION%\n1-1\n", "%VERSION%\n0-1\n")).unwrap();
    system.write("/usr/bin/oldtoy", "#!/bin/sh\necho oldtoy 0\n");
    // The lists are older than the repository's, and other bytes: a tar file may end in more zeros.
    let list = system.path("/var/lib/pacman/sync/toys.db");
    let mut bytes = fs::read(&list).unwrap();
    fs::copy(
        system.path("/srv/pacman/toys.db"),
        system.path("/srv/pacman/toys.files"),
    )
    .unwrap();
    bytes.extend([0; 512]);
    fs::write(&list, bytes).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let file = fs::File::options().write(true).open(list).unwrap();
    file.set_modified(long_ago).unwrap();
    // A package that is not installed, for -Sc.
    fs::copy(
        system.path("/srv/pacman/toy-1-1-any.pkg.tar"),
        system.path("/var/cache/pacman/pkg/toy-0-1-any.pkg.tar"),
    )
    .unwrap();
    // What stops on a machine without the check for space is our hook alone.
    let conf = fs::read_to_string(system.path("/etc/pacman.conf")).unwrap();
    assert!(conf.contains("CheckSpace\n"));
    system.write(
        "/etc/pacman-unchecked.conf",
        &conf.replace("CheckSpace\n", ""),
    );
    for (name, when, description) in [
        (BEFORE, "PreTransaction", DESCRIPTIONS[1].1),
        ("90-after.hook", "PostTransaction", DESCRIPTIONS[2].1),
    ] {
        system.write(
            &format!("{HOOKS}/{name}"),
            &format!(
                "[Trigger]\nOperation = Install\nOperation = Upgrade\nOperation = Remove\nType = Path\nTarget = usr/*\n\
                 [Action]\nDescription = {description}\nWhen = {when}\nExec = /usr/bin/true\n"
            ),
        );
    }
    for directory in [
        "/tmp/root/db",
        "/tmp/root/var/lib/pacman",
        "/tmp/root/cache",
        "/tmp/updates",
    ] {
        fs::create_dir_all(system.path(directory)).unwrap();
    }
    let link = system.path("/tmp/updates/local");
    std::os::unix::fs::symlink("/var/lib/pacman/local", link).unwrap();
}

fn run(system: &System, words: &[&str]) -> Came {
    let before = Seen::of(system);
    let ran = system
        .command(words)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let after = Seen::of(system);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (output, errors) = (text(&ran.stdout), text(&ran.stderr));
    let is_error = |line: &&str| line.starts_with("error: ") || line.starts_with("usr-policy: ");
    let hook = |line: &str| {
        let said = DESCRIPTIONS.iter().find(|(_, said)| line.ends_with(said));
        said.map(|(name, _)| *name)
    };
    Came {
        exit: ran.status.code().unwrap(),
        error: errors
            .lines()
            .chain(output.lines())
            .filter(is_error)
            .collect::<Vec<_>>()
            .join(" / "),
        hooks: output.lines().filter_map(hook).collect(),
        output,
        record_changed: before.record != after.record,
        lists_changed: before.lists != after.lists,
        packages_changed: before.packages != after.packages,
        rest_of_usr_changed: before.rest_of_usr != after.rest_of_usr,
        programs_changed: before.programs != after.programs,
        cache_changed: before.cache != after.cache,
        elsewhere_changed: before.elsewhere != after.elsewhere,
    }
}

/// What may change.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    record: String,
    lists: String,
    packages: [Option<Vec<u8>>; 2],
    rest_of_usr: u64,
    programs: u64,
    cache: String,
    elsewhere: [Option<Vec<u8>>; 2],
}

impl Seen {
    fn of(system: &System) -> Self {
        let bytes = |path: &str| fs::read(system.path(path)).ok();
        let below = |path: &str| -> Vec<String> {
            let entries = fs::read_dir(system.path(path)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name());
            names.map(|name| name.into_string().unwrap()).collect()
        };
        let names = ["local", "sync"];
        assert!(
            below(DATABASE)
                .iter()
                .all(|name| names.contains(&name.as_str())),
            "a lock or something else was left over: {:?}",
            below(DATABASE)
        );
        let tree = |path| Key::new().with_tree(&system.path(path)).unwrap().text();
        Seen {
            record: tree("/var/lib/pacman/local"),
            lists: tree("/var/lib/pacman/sync"),
            packages: ["/usr/bin/toy", "/usr/bin/oldtoy"].map(bytes),
            rest_of_usr: stamp(&system.path("/usr")),
            programs: own_stamp(&fs::metadata(system.path("/usr/bin")).unwrap()),
            cache: tree(CACHE),
            elsewhere: ["/tmp/root/usr/bin/toy", "/tmp/updates/sync/toys.db"].map(bytes),
        }
    }
}

/// A number of the times and sizes of everything below a directory but the packages of the tests and their directory.
fn stamp(directory: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        if path.ends_with("usr/bin/toy") || path.ends_with("usr/bin/oldtoy") {
            continue;
        }
        if !path.ends_with("usr/bin") {
            sum ^= own_stamp(&meta);
        }
        if meta.is_dir() {
            sum ^= stamp(&path);
        }
    }
    sum
}

/// The same of one file or directory.
fn own_stamp(meta: &fs::Metadata) -> u64 {
    let times = [
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ];
    let time = times.iter().fold(meta.mode().into(), |sum: u64, time| {
        sum.rotate_left(16) ^ time.cast_unsigned()
    });
    (time ^ meta.size()).wrapping_mul(meta.ino() | 1)
}

/// What holds of every pacman.
fn judge(command: &str, kind: Kind, state: State, came: &Came) {
    let what = format!("{command}, {state:?}: {came:?}");
    let nothing_changed = !came.record_changed
        && !came.lists_changed
        && !came.packages_changed
        && !came.cache_changed;
    assert!(!came.rest_of_usr_changed, "{what}");
    assert_eq!(came.programs_changed, came.packages_changed, "{what}");
    assert_eq!(came.elsewhere_changed, kind == Kind::Elsewhere, "{what}");
    match (kind, state) {
        (Kind::Asks, _) => assert!(nothing_changed && came.hooks.is_empty(), "{what}"),
        // Without hooks: those of this root are not those of another one, or nobody could fill an empty directory.
        (Kind::Elsewhere, _) => {
            assert!(nothing_changed && came.hooks.is_empty(), "{what}");
            assert_eq!(came.exit, 0, "{what}");
        }
        (_, State::Locked) => {
            assert!(nothing_changed && came.hooks.is_empty(), "{what}");
            assert_eq!(came.exit, 1, "{what}");
            // pacman 7.0 makes a directory for new lists before it takes its lock.
            let refreshes =
                came.error == "error: failed to synchronize all databases (unexpected error)";
            assert!(
                refreshes || came.error.contains("(unable to lock database)"),
                "{what}"
            );
        }
        (Kind::Refreshes, _) => {
            assert_eq!(came.exit, 0, "{what}");
            assert!(!nothing_changed && !came.packages_changed, "{what}");
        }
        (Kind::Alters, State::Open) => {
            assert_eq!(came.exit, 0, "{what}");
            assert!(came.record_changed && came.packages_changed, "{what}");
            assert_eq!(came.hooks, ["guard", "before", "after"], "{what}");
        }
        (Kind::Alters, State::Guarded) => {
            assert!(!came.record_changed && !came.packages_changed, "{what}");
            assert_eq!(came.exit, 1, "{what}");
            // With CheckSpace pacman looks by itself, before any hook, where it installs.
            let by_pacman = came.error.contains("Partition /usr is mounted read only");
            assert!(by_pacman || is_stopped_by_guard(came), "{what}");
            assert!(!by_pacman || !is_unchecked(command), "{what}");
        }
        (Kind::Alters, State::Unguarded) => {
            assert!(!came.packages_changed, "{what}");
            if is_unchecked(command) {
                // This is what all of it is for; where it no longer is so, the reason is gone.
                assert!(came.exit == 0 && came.record_changed, "{what}");
            }
        }
        // pacman 7 runs no hook with --dbonly, and does as it was told.
        (Kind::Forgets, State::Guarded) if is_stopped_by_guard(came) => {}
        (Kind::Forgets, _) => {
            assert!(came.record_changed && !came.packages_changed, "{what}");
            assert_eq!(came.exit, 0, "{what}");
        }
    }
}

/// Whether pacman itself does not look at `/usr` first.
fn is_unchecked(command: &str) -> bool {
    command.contains(" -R") || command.contains("unchecked")
}

/// Whether our hook stopped it, and before any other.
fn is_stopped_by_guard(came: &Came) -> bool {
    came.exit == 1
        && came.hooks == ["guard"]
        && came.error.contains("so packages cannot change it")
        && !came.record_changed
}

/// The clean chroot in these tests.
const CHROOT: &str = "/srv/chroot";

/// Makes a second system inside the first, with a `/usr` and a database of its own.
fn chroot_of(system: &System, lower: &[&Path]) {
    let base = system.base().join("chroot");
    let at = system.path(CHROOT);
    for directory in [&base.join("upper"), &base.join("work"), &at] {
        fs::create_dir_all(directory).unwrap();
    }
    let lower: Vec<_> = lower.iter().map(|path| path.to_str().unwrap()).collect();
    let options = format!(
        "lowerdir={},upperdir={base}/upper,workdir={base}/work",
        lower.join(":"),
        base = base.display()
    );
    let none = MsFlags::empty();
    mount(
        Some("chroot"),
        &at,
        Some("overlay"),
        none,
        Some(options.as_str()),
    )
    .unwrap();
}

/// What a build script for a clean chroot does: it installs what is needed, builds as a user, and installs what was built.
const BUILD: &str = "set -eu
pacman -Sy --noconfirm toy
cd /build
setpriv --reuid=1234 --regid=1234 --clear-groups sh -eu -c '
    pacman -T toy oldtoy
    mkdir -p usr/share/built
    pacman -Q >usr/share/built/with
    printf \"pkgname = built\\npkgver = 1-1\\npkgdesc = a\\nbuilddate = 1\\nsize = 1\\narch = any\\n\" >.PKGINFO
    bsdtar -cf built-1-1-any.pkg.tar .PKGINFO usr'
pacman -U --noconfirm built-1-1-any.pkg.tar
grep toy /usr/share/built/with
pacman -R --noconfirm toy
! pacman -T toy
";

fn builds_in_a_clean_chroot(tree: &Path) {
    for lower in [&[tree][..], &[installed(), tree]] {
        System::of_tree(tree, STRICT, |system| {
            prepare(system, State::Locked);
            chroot_of(system, lower);
            system.does(&["mount", "-t", "proc", "proc", &format!("{CHROOT}/proc")]);
            let build = system.path(&format!("{CHROOT}/build"));
            fs::create_dir(&build).unwrap();
            std::os::unix::fs::chown(&build, Some(1234), Some(1234)).unwrap();
            let came = run(system, &["chroot", CHROOT, "sh", "-c", BUILD]);
            assert_eq!(came.exit, 0, "{came:?}");
            assert!(!came.record_changed && !came.packages_changed, "{came:?}");
            assert!(!came.rest_of_usr_changed && !came.cache_changed, "{came:?}");
            // Ours where it is installed, and never the one of the system around it.
            assert_eq!(came.hooks.is_empty(), lower.len() == 1, "{came:?}");
        });
    }
}

fn judges_its_own_root(tree: &Path) {
    let elsewhere = [
        "pacman",
        "--root",
        CHROOT,
        "--config",
        "/etc/pacman-unchecked.conf",
        "--noconfirm",
    ];
    let remove = [&elsewhere[..], &["-R", "oldtoy"]].concat();
    let program = format!("{CHROOT}/usr/bin/oldtoy");
    System::of_tree(tree, STRICT, |system| {
        prepare(system, State::Locked);
        chroot_of(system, &[installed(), tree]);
        let came = run(system, &remove);
        assert!(came.exit == 0 && came.hooks == ["guard"], "{came:?}");
        assert!(!came.record_changed && !system.path(&program).exists());
    });
    System::of_tree(tree, STRICT, |system| {
        prepare(system, State::Open);
        chroot_of(system, &[installed(), tree]);
        let usr = format!("{CHROOT}/usr");
        system.does(&["mount", "--bind", &usr, &usr]);
        system.does(&["mount", "-o", "remount,bind,ro", &usr]);
        let came = run(system, &remove);
        assert!(is_stopped_by_guard(&came), "{came:?}");
        let record = format!("{CHROOT}/var/lib/pacman/local/oldtoy-1-1/desc");
        assert!(system.path(&record).exists() && system.path(&program).exists());
    });
}

/// pacman finds the hooks of /usr/share/libalpm in the root that it works on, and those of its configuration in its own; it
/// runs both in the root that it works on.
fn belongs_to_its_root(tree: &Path) {
    System::of_tree(tree, STRICT, |system| {
        prepare(system, State::Open);
        let own = system.path(HOOKS).join(GUARD_NAME);
        let administrators = system.path("/etc/pacman.d/hooks");
        fs::create_dir_all(&administrators).unwrap();
        fs::copy(own, administrators.join(GUARD_NAME)).unwrap();
        let (command, _) = COMMANDS
            .iter()
            .find(|(command, kind)| *kind == Kind::Elsewhere && command.contains("-U"))
            .unwrap();
        let came = run(system, &command.split(' ').collect::<Vec<_>>());
        assert!(came.exit == 1 && came.hooks == ["guard"], "{came:?}");
        assert!(!came.elsewhere_changed, "{came:?}");
    });
}

/// The least that makepkg builds, and what it needs first.
const PKGBUILD: &str = "pkgname=built
pkgver=1
pkgrel=1
arch=(any)
depends=(oldtoy)
options=(!strip !debug)
package() {
    mkdir -p \"$pkgdir/usr/share\"
    echo built >\"$pkgdir/usr/share/built\"
}
";

/// As a person does it on the machine itself; the root of this one has no password, so makepkg's su asks for none.
fn makepkg_builds(tree: &Path) {
    System::of_tree(tree, STRICT, |system| {
        prepare(system, State::Locked);
        // bash hands its own output to programs as files.
        system.does(&["ln", "-s", "/proc/self/fd", "/dev/fd"]);
        system.write("/srv/build/PKGBUILD", PKGBUILD);
        std::os::unix::fs::chown(system.path("/srv/build"), Some(1234), Some(1234)).unwrap();
        let build = |words: &str| {
            let user = "setpriv --reuid=1234 --regid=1234 --clear-groups env HOME=/srv/build PKGEXT=.pkg.tar";
            let script =
                format!("cd /srv/build && {user} makepkg --noconfirm --force {words} 2>&1");
            run(system, &["sh", "-c", &script])
        };
        let package = system.path("/srv/build/built-1-1-any.pkg.tar");
        let came = build("");
        assert!(came.exit == 0 && package.exists(), "{came:?}");
        assert!(
            !came.record_changed && !came.rest_of_usr_changed,
            "{came:?}"
        );
        fs::remove_file(&package).unwrap();
        let text = PKGBUILD.replace("(oldtoy)", "(toy)");
        system.write("/srv/build/PKGBUILD", &text);
        let came = build("--syncdeps");
        assert!(came.exit != 0 && !package.exists(), "{came:?}");
        assert!(came.output.contains("unable to lock database"), "{came:?}");
        assert!(!came.record_changed && !came.packages_changed, "{came:?}");
    });
}

/// A transaction that began in time and goes on after it.
const SLOW: &str = "[Trigger]
Operation = Remove
Type = Path
Target = usr/*
[Action]
When = PreTransaction
Exec = /bin/sh -c 'touch /run/slow; until test -e /run/go; do sleep 0.1; done'
";

/// Until the next merge the database stays open, behind the guard: which was asked, and let the transaction begin.
fn ends_its_transaction(tree: &Path) {
    System::of_tree(tree, STRICT, |system| {
        system.write(&format!("{HOOKS}/70-slow.hook"), SLOW);
        system.extension("hello");
        prepare(system, State::Locked);
        let _follower = Follower::start(system);
        system.does(&["systemd-sysext", "merge"]);
        becomes("the merge is seen", || {
            let state = fs::read_to_string(system.path("/run/usr-policy/state/lock"));
            state.is_ok_and(|text| text.contains("extensions merged"))
        });
        system.does(&["systemd-sysext", "unmerge"]);
        becomes("the database is open", || !system.is_read_only(DATABASE));
        system.does(&["usr-policy", "unlock", "--for", "5s"]);
        let mut pacman = system
            .command(&["pacman", "-R", "--noconfirm", "oldtoy"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        becomes("it has asked the guard", || {
            system.path("/run/slow").exists()
        });
        let is_over = || {
            let ran = system.command(&["usr-policy", "status"]).output().unwrap();
            !String::from_utf8(ran.stdout)
                .unwrap()
                .contains("unlocked by hand")
        };
        becomes("the time is over", is_over);
        // Whoever closes then has done it.
        sleep(Duration::from_secs(1));
        system.write("/run/go", "");
        let exit = pacman.wait().unwrap().code();
        let record = system.path("/var/lib/pacman/local/oldtoy-0-1").exists();
        let program = system.path("/usr/bin/oldtoy").exists();
        assert_eq!(
            (exit, record, program),
            (Some(0), false, false),
            "exit code; what is left on record, and of the files"
        );
        becomes("usr is closed", || system.is_read_only("/usr"));
        assert!(!system.is_read_only(DATABASE));
    });
}

/// Configurations that are spelt oddly, each with a file that it may include.
const ODD: [(&str, &str); 12] = [
    ("[options]\nDBPath = /srv/a/\nDBPath = /srv/b/\n", ""),
    ("[options]\nDBPath = /srv/a\n", ""),
    (
        "[options]\n  DBPath=/srv/a\t\nHookDir=/srv/h1 /srv/h2\nHookDir = /srv/h3/\n",
        "",
    ),
    ("[options]\n# DBPath = /srv/a/\nHookDir = /srv/h\n", ""),
    ("[options]\r\nDBPath = /srv/a/\r\nHookDir = /srv/h/\r\n", ""),
    (
        "[toys]\nServer = file:///srv/pacman\n[options]\nDBPath = /srv/a/\n",
        "",
    ),
    (
        "[options]\nInclude = /etc/pacman.d/odd.conf\nDBPath = /srv/b/\n",
        "DBPath = /srv/a/\n",
    ),
    (
        "[options]\nDBPath = /srv/b/\nInclude = /etc/pacman.d/o?d.c*\n",
        "DBPath = /srv/a/\nHookDir = /srv/h/\n",
    ),
    (
        "[options]\nInclude = /etc/pacman.d/odd.conf\nDBPath = /srv/b/\n",
        "[toys]\nServer = file:///srv/pacman\n",
    ),
    (
        "Include = /etc/pacman.d/odd.conf\nHookDir = /srv/h/\n",
        "[options]\nDBPath = /srv/a/\n",
    ),
    ("[options]\nRootDir = /srv/root/\n", ""),
    (
        "[options]\nRootDir = /srv/root/\nHookDir = /srv/h\nDBPath = /srv/a/\n",
        "",
    ),
];

fn reads_as_we_do(tree: &Path) {
    System::of_tree(tree, STRICT, |system| {
        // pacman 7.1 wants to find what it is told.
        for directory in [
            "/srv/a",
            "/srv/b",
            "/srv/root/var/lib/pacman",
            "/srv/h",
            "/srv/h1",
            "/srv/h2",
            "/srv/h3",
        ] {
            fs::create_dir_all(system.path(directory)).unwrap();
        }
        let root = Root::open(system.root()).unwrap();
        let mut refused = 0;
        for (text, included) in ODD {
            system.write("/etc/pacman.conf", text);
            system.write("/etc/pacman.d/odd.conf", included);
            let says = |key: &str| -> Option<Vec<PathBuf>> {
                let ran = system.command(&["pacman-conf", key]).output().unwrap();
                let [said, error] =
                    [ran.stdout, ran.stderr].map(|text| String::from_utf8(text).unwrap());
                // pacman 7.1 takes several for one, and does not start where that is not there.
                if error.contains("failed to resolve path '/srv/h1 /srv/h2' passed to 'HookDir'") {
                    return None;
                }
                assert!(ran.status.success(), "{text:?}: {error}");
                Some(said.lines().map(PathBuf::from).collect())
            };
            let (Some(database), Some(hooks)) = (says("DBPath"), says("HookDir")) else {
                refused += 1;
                continue;
            };
            let ours = pacman_conf(&root);
            let named = ours.database().map_or(DATABASE.into(), |named| named.path);
            // Paths: a slash more at the end is no difference.
            assert_eq!(database, [path(&named)], "{text:?} {included:?}");
            // The first is in no configuration.
            let named: Vec<_> = ours.hook_dirs().skip(1).map(path).collect();
            assert_eq!(hooks, named, "{text:?} {included:?}");
        }
        assert!(refused <= 1, "{refused} of {} were refused", ODD.len());
    });
}

fn path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

/// A file of the repository.
fn of_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn page() -> Vec<u8> {
    let ran = Command::new(of_repository("tests/pacman-table"))
        .arg(of_repository("tests/pacman.tsv"))
        .output()
        .unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    ran.stdout
}

fn says_what_the_table_does() {
    let _file = FILE.lock().unwrap();
    if is_update() {
        return;
    }
    let now = String::from_utf8(page()).unwrap();
    let page = fs::read_to_string(of_repository("docs/pacman.md")).unwrap();
    assert!(page.contains("**lost**"), "an empty table");
    assert_eq!(
        page, now,
        "run tests/pacman-table tests/pacman.tsv >docs/pacman.md"
    );
}

fn is_update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// The file with everybody's table.
static FILE: Mutex<()> = Mutex::new(());

fn recorded(version: &str, table: &BTreeMap<(&str, State), Came>) {
    let _file = FILE.lock().unwrap();
    let file = of_repository("tests/pacman.tsv");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let is_own = |line: &&str| line.split('\t').next() == Some(version);
    let changed = |is| if is { "changed" } else { "same" };
    let mut now = String::new();
    for (command, kind) in COMMANDS {
        for state in STATES {
            let came = &table[&(*command, state)];
            let kind = format!("{kind:?}").to_lowercase();
            let state = format!("{state:?}").to_lowercase();
            let hooks = came.hooks.join(" ");
            writeln!(
                now,
                "{version}\t{kind}\t{command}\t{state}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
                came.exit,
                changed(came.record_changed),
                changed(came.lists_changed),
                changed(came.packages_changed),
                changed(came.cache_changed),
                if hooks.is_empty() { "-" } else { &hooks },
                if came.error.is_empty() {
                    "-"
                } else {
                    &came.error
                },
            )
            .unwrap();
        }
    }
    let recorded: String = text.split_inclusive('\n').filter(is_own).collect();
    if is_update() {
        const HEAD: &str =
            "pacman\tkind\tcommand\tstate\texit\trecord\tlists\tpackages\tcache\thooks\terror";
        let others = text
            .lines()
            .filter(|line| !is_own(line) && !line.starts_with("pacman\t"));
        let mut lines: Vec<&str> = others.chain(now.lines()).collect();
        lines.sort_by_key(|line| line.split('\t').next().map(str::to_owned));
        fs::write(&file, format!("{HEAD}\n{}\n", lines.join("\n"))).unwrap();
        fs::write(of_repository("docs/pacman.md"), page()).unwrap();
    } else if recorded.is_empty() {
        eprintln!(
            "pacman {version} is not in tests/pacman.tsv: what holds of every pacman was tested, and no words"
        );
    } else {
        assert_eq!(
            recorded, now,
            "UPDATE_GOLDEN=1 writes tests/pacman.tsv and docs/pacman.md anew"
        );
    }
}
