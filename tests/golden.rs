//! The boot program as a generator: from a small root to exact files, log and exit code, one test for each folder.
//!
//! `UPDATE_GOLDEN=1` records what is there; read the difference before you commit it.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::mount::MsFlags;
use similar::TextDiff;
use usr_policy_tests::golden::{
    Case, DIRECTORIES, Entry, Result, Tree, argument, below, cases, chroot, shown, shown_bytes,
    tree,
};
use usr_policy_tests::privilege::{become_root, bind_itself, in_own_mounts, tmpfs};
use usr_policy_tests::product;

fn main() -> ExitCode {
    become_root();
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for case in cases() {
        trials.push(Trial::test(case.name.clone(), move || {
            writes_what_is_recorded(&case)?;
            plan_says_the_same(&case)
        }));
    }
    for (name, test) in OTHERS {
        trials.push(Trial::test(*name, move || {
            test();
            Ok(())
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn is_update() -> bool {
    env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1")
}

fn writes_what_is_recorded(case: &Case) -> std::result::Result<(), Failed> {
    let actual = case.run();
    if is_update() {
        case.record(&actual);
        return Ok(());
    }
    let recorded = case.recorded();
    if recorded == actual {
        return Ok(());
    }
    Err(difference(&text(&recorded), &text(&actual)).into())
}

fn text(result: &Result) -> String {
    format!(
        "{}==> kmsg <==\n{}==> exit <==\n{}\n",
        shown(&result.output),
        shown_bytes(&result.kmsg),
        result.exit
    )
}

fn difference(recorded: &str, actual: &str) -> String {
    TextDiff::from_lines(recorded, actual)
        .unified_diff()
        .header("recorded", "actual")
        .to_string()
}

/// Folders in which the generator is no judge of the plan: it has no command line to read, or nothing to do where it runs.
const NOT_THE_REAL_ROOT: &[&str] = &[
    "in-a-container-nothing-is-written",
    "in-a-container-of-an-older-systemd-nothing-is-written",
    "in-the-initramfs-nothing-is-written",
    "in-the-initramfs-of-an-older-systemd-nothing-is-written",
    "without-proc-nothing-is-written",
];

/// `usr-policy plan` prints byte for byte what the generator writes, and complains about the same.
fn plan_says_the_same(case: &Case) -> std::result::Result<(), Failed> {
    let Some(cmdline) = case.cmdline() else {
        assert!(NOT_THE_REAL_ROOT.contains(&case.name.as_str()));
        return Ok(());
    };
    // No argument can hold a NUL, which separates words as a blank does.
    let cmdline: Vec<u8> = cmdline
        .iter()
        .map(|&byte| if byte == 0 { b' ' } else { byte })
        .collect();
    let root = case.root();
    let ran = Command::new(product::program())
        .args(["plan", "--root"])
        .arg(root.path())
        .arg("--cmdline")
        .arg(argument(&cmdline))
        .env_clear()
        .output()
        .unwrap();
    let marker = b"==> initramfs <==\n";
    let at = ran
        .stdout
        .windows(marker.len())
        .rposition(|window| window == marker)
        .unwrap_or_else(|| panic!("{ran:?}"));
    let (units, stages) = (&ran.stdout[..at], &ran.stdout[at + marker.len()..]);
    let stages_file = case.folder.join("initramfs");
    if is_update() {
        fs::write(&stages_file, stages).unwrap();
    }
    let recorded = fs::read(&stages_file).unwrap_or_default();
    if recorded != stages {
        return Err(difference(&shown_bytes(&recorded), &shown_bytes(stages)).into());
    }
    if NOT_THE_REAL_ROOT.contains(&case.name.as_str()) {
        return Ok(());
    }

    let generator = case.recorded();
    // What stood in the directories before is not ours, and what it kept us from writing is the plan all the same.
    let present = present(case);
    let mut expected: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for (path, entry) in &generator.output {
        expected.insert(path.clone(), printed(path, entry));
    }
    let mut actual = sections(units);
    if case.has_one_directory() {
        actual = actual.into_iter().map(in_one_directory).collect();
    }
    for path in present.keys() {
        expected.remove(path);
        actual.remove(path);
    }
    if present.contains_key(Path::new("normal/usr-policy.fstab")) {
        let needs_it = "normal/systemd-remount-fs.service.d/50-usr-policy-fstab.conf";
        assert!(actual.remove(Path::new(needs_it)).is_some());
    }
    if actual != expected {
        let text = |entries: &BTreeMap<PathBuf, Vec<u8>>| {
            shown_bytes(&entries.values().flatten().copied().collect::<Vec<u8>>())
        };
        return Err(difference(&text(&expected), &text(&actual)).into());
    }

    let root_prefix = format!("usr-policy: {}/", root.path().display());
    let plan_complains: BTreeSet<String> = shown_bytes(&ran.stderr)
        .lines()
        .map(|line| line.replacen(&root_prefix, "usr-policy: /", 1))
        .map(|line| {
            line.strip_prefix("usr-policy: ")
                .unwrap_or(&line)
                .to_owned()
        })
        .collect();
    let generator_complains = messages(&generator.kmsg);
    if plan_complains != generator_complains {
        return Err(format!(
            "the generator complains {generator_complains:#?}, plan {plan_complains:#?}"
        )
        .into());
    }
    let exit = ran.status.code();
    if present.is_empty() && exit != Some(generator.exit) {
        return Err(format!("the generator exits {}, plan {exit:?}", generator.exit).into());
    }
    Ok(())
}

/// What is in the output directories before the generator runs.
fn present(case: &Case) -> Tree {
    let mut present = Tree::new();
    for (name, directory) in DIRECTORIES {
        for (path, entry) in tree(&below(&case.folder.join("input"), directory)) {
            present.insert(Path::new(name).join(path), entry);
        }
    }
    present
}

/// An entry as `usr-policy plan` prints it.
fn printed(path: &Path, entry: &Entry) -> Vec<u8> {
    let path = path.as_os_str().as_bytes();
    match entry {
        Entry::File(bytes) => {
            let end: &[u8] = if bytes.ends_with(b"\n") { b"" } else { b"\n" };
            [b"==> ", path, b" <==\n", bytes, end].concat()
        }
        Entry::Link(target) => {
            let target = target.as_os_str().as_bytes();
            [b"==> ", path, b" -> ", target, b"\n"].concat()
        }
    }
}

/// The entries that `usr-policy plan` prints: each one's path, and its bytes with the head line.
fn sections(text: &[u8]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut sections: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        if let Some(head) = line.strip_prefix(b"==> ") {
            let end = [&b" <==\n"[..], b" -> "]
                .iter()
                .filter_map(|mark| head.windows(mark.len()).position(|window| window == *mark))
                .min()
                .unwrap_or_else(|| panic!("{}", shown_bytes(line)));
            sections.push((PathBuf::from(argument(&head[..end])), Vec::new()));
        }
        let section = sections.last_mut();
        section
            .unwrap_or_else(|| panic!("no head line: {}", shown_bytes(text)))
            .1
            .extend_from_slice(line);
    }
    let count = sections.len();
    let sections: BTreeMap<PathBuf, Vec<u8>> = sections.into_iter().collect();
    assert_eq!(count, sections.len(), "a path is printed twice");
    sections
}

fn in_one_directory((path, bytes): (PathBuf, Vec<u8>)) -> (PathBuf, Vec<u8>) {
    let name: PathBuf = path.components().skip(1).collect();
    let (_, rest) = bytes.split_at(b"==> ".len() + path.as_os_str().len() - name.as_os_str().len());
    (
        Path::new("normal").join(name),
        [b"==> normal/", rest].concat(),
    )
}

/// The longest text of one record; a longer message goes on in the next, and is cut between two characters.
const FULL_RECORD: std::ops::RangeInclusive<usize> = 925..=928;

/// The messages of the log, without those about the output directories, which plan does not have.
fn messages(kmsg: &[u8]) -> BTreeSet<String> {
    let mut messages = BTreeSet::new();
    let mut message = Vec::new();
    for line in kmsg.split(|&byte| byte == b'\n') {
        let head = b"<3>usr-policy-generator[PID]: ".len();
        let text = line.get(head..).unwrap_or_default();
        message.extend_from_slice(text);
        if !FULL_RECORD.contains(&text.len()) && !message.is_empty() {
            messages.insert(shown_bytes(&std::mem::take(&mut message)));
        }
    }
    messages.retain(|message| !message.starts_with("/run/systemd/generator"));
    messages
}

/// Tests of more than one folder, or of directories in a state that no folder can hold.
const OTHERS: &[(&str, fn())] = &[
    (
        "what is missing or odd below /var is for the units' conditions, and the output stays the same",
        whatever_is_there_the_output_is_the_same,
    ),
    (
        "every record is one line with a priority and the name that journalctl -t looks for",
        every_record_has_priority_and_name,
    ),
    (
        "on a full disk no file is half written and each that is missing is named",
        a_full_disk,
    ),
    (
        "a directory that cannot be written is said and the others are written",
        an_unwritable_directory,
    ),
    (
        "a second run into the same directories changes nothing and says so",
        a_second_run,
    ),
    (
        "without a kernel log the complaints go to standard error",
        without_a_kernel_log,
    ),
    (
        "the name of a drop-in cannot add lines to a unit",
        the_name_of_a_drop_in,
    ),
    (
        "what others rename meanwhile does not hide the generator of the root",
        renames_meanwhile,
    ),
    (
        "a named pipe in place of a configuration holds nothing up",
        a_named_pipe,
    ),
];

fn whatever_is_there_the_output_is_the_same() {
    let strict = Case::named("strict-closes-usr-and-the-database-and-puts-the-rest-in-memory");
    for name in [
        "a-system-without-pacman-gets-the-same-units",
        "a-root-without-var-gets-the-same-units",
        "a-var-tmp-that-is-a-link-gets-the-same-units",
    ] {
        let case = Case::named(name);
        assert_eq!(strict.recorded(), case.recorded(), "{name}");
        assert!(!strict.recorded().output.is_empty());
    }
}

fn every_record_has_priority_and_name() {
    let mut records = 0;
    for case in cases() {
        for line in case.recorded().kmsg.split_inclusive(|&byte| byte == b'\n') {
            let text = shown_bytes(line);
            let rest = ["<3>", "<4>", "<6>"]
                .iter()
                .find_map(|priority| text.strip_prefix(priority));
            assert!(
                rest.is_some_and(|rest| rest.starts_with("usr-policy-generator[PID]: "))
                    && line.ends_with(b"\n")
                    && line.len() <= 976,
                "{}: {text}",
                case.name
            );
            records += 1;
        }
    }
    assert!(records > 0);
}

/// The folder that has all kinds of entries.
fn with_usr_in_fstab() -> Case {
    Case::named("usr-in-fstab-gets-a-drop-in-and-an-fstab-without-it")
}

fn a_full_disk() {
    let case = with_usr_in_fstab();
    let mut some_were_written = false;
    // In pages, and in directory entries: a full disk refuses bytes, or a new file.
    for limit in (1..12)
        .map(|pages| format!("size={}", pages * 4096))
        .chain((1..30).map(|entries| format!("nr_inodes={entries}")))
    {
        in_own_mounts(|| {
            let root = case.root();
            let padding = format!("# {}\n", "x".repeat(98)).repeat(70);
            let fstab = fs::read(root.path().join("etc/fstab")).unwrap();
            fs::write(
                root.path().join("etc/fstab"),
                [padding.as_bytes(), &fstab].concat(),
            )
            .unwrap();
            let whole = case.result_in(root.path());
            let normal = root.path().join("run/systemd/generator");
            fs::remove_dir_all(&normal).unwrap();
            fs::remove_dir_all(root.path().join("run/systemd/generator.late")).unwrap();
            fs::create_dir(&normal).unwrap();
            tmpfs(&normal, &limit);

            let result = case.result_in(root.path());
            let log = shown_bytes(&result.kmsg);
            for (path, entry) in &result.output {
                assert_eq!(
                    Some(entry),
                    whole.output.get(path),
                    "{limit}: {}",
                    path.display()
                );
                some_were_written |= path.starts_with("normal");
            }
            let drop_in = Path::new("normal/systemd-remount-fs.service.d/50-usr-policy-fstab.conf");
            let fstab = Path::new("normal/usr-policy.fstab");
            if result.output.contains_key(drop_in) {
                assert!(result.output.contains_key(fstab), "{limit}");
            }
            let missing: Vec<&PathBuf> = whole
                .output
                .keys()
                .filter(|path| !result.output.contains_key(*path))
                .collect();
            assert_eq!(
                result.exit,
                i32::from(!missing.is_empty()),
                "{limit}: {log}"
            );
            for path in missing {
                let name = path.strip_prefix("normal").unwrap().display();
                assert!(
                    path == drop_in
                        || log.contains(&format!(
                            "<3>usr-policy-generator[PID]: /run/systemd/generator/{name}: cannot write: No space left on device\n"
                        )),
                    "{limit}: {name} is missing: {log}"
                );
            }
        });
    }
    assert!(some_were_written);
}

fn an_unwritable_directory() {
    let case = with_usr_in_fstab();
    let recorded = case.recorded();
    in_own_mounts(|| {
        let root = case.root();
        let late = root.path().join("run/systemd/generator.late");
        bind_itself(&late, MsFlags::MS_RDONLY);
        let result = case.result_in(root.path());
        assert_eq!(result.exit, 1);
        let expected: Tree = recorded
            .output
            .into_iter()
            .filter(|(path, _)| !path.starts_with("late"))
            .collect();
        assert_eq!(shown(&expected), shown(&result.output));
        assert_eq!(
            shown_bytes(&result.kmsg),
            "<3>usr-policy-generator[PID]: /run/systemd/generator.late/local-fs.target.wants/usr.mount: cannot write: Read-only file system\n\
             <3>usr-policy-generator[PID]: /run/systemd/generator.late/usr.mount: cannot write: Read-only file system\n"
        );
    });
}

fn a_second_run() {
    let case = with_usr_in_fstab();
    let root = case.root();
    let first = case.result_in(root.path());
    let second = case.result_in(root.path());
    assert_eq!((first.exit, second.exit), (0, 1));
    assert_eq!(first.output, second.output);
    let files = first
        .output
        .values()
        .filter(|entry| matches!(entry, Entry::File(_)))
        .count();
    let log = shown_bytes(&second.kmsg);
    // The drop-in that needs the fstab is not tried: that fstab is not this run's.
    assert_eq!(
        log.matches(": cannot write: File exists; ").count(),
        files - 1,
        "{log}"
    );
}

fn without_a_kernel_log() {
    let case = Case::named("a-misspelt-word-is-off-and-said");
    let recorded = shown_bytes(&case.recorded().kmsg);
    let message = recorded
        .strip_prefix("<3>usr-policy-generator[PID]: ")
        .unwrap();
    let root = case.root();
    // As without devtmpfs.
    let ran = chroot(root.path())
        .arg("/usr/lib/systemd/system-generators/usr-policy-generator")
        .args(DIRECTORIES.map(|(_, path)| path))
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert_eq!(
        shown_bytes(&ran.stderr),
        format!("usr-policy-generator: {message}")
    );
}

fn the_name_of_a_drop_in() {
    let case = Case::named("without-the-word-nothing-is-written");
    let root = case.root();
    let drop_ins = root.path().join("etc/usr-policy.conf.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(
        drop_ins.join("10-x\n[Unit]\nConditionPathExists=.conf"),
        "[Policy]\nMode=strict\n",
    )
    .unwrap();
    let result = case.result_in(root.path());
    for (path, entry) in &result.output {
        if let Entry::File(bytes) = entry {
            let text = shown_bytes(bytes);
            assert!(!text.contains("Exists=.conf"), "{}: {text}", path.display());
        }
    }
}

fn a_named_pipe() {
    let case = Case::named("a-configuration-alone-is-strict");
    let root = case.root();
    for path in ["etc/usr-policy.conf", "etc/fstab"] {
        let path = root.path().join(path);
        let _ = fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    }
    let result = case.result_in(root.path());
    assert_eq!((result.output.len(), result.exit), (0, 0));
}

fn renames_meanwhile() {
    const RUNS: usize = 200;
    let root = Case::named("without-the-word-nothing-is-written").root();
    let others = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| others.path().join(name));
    fs::write(&a, "").unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                fs::rename(&a, &b).unwrap();
                fs::rename(&b, &a).unwrap();
            }
        });
        let mut missed = 0;
        for _ in 0..RUNS {
            let ran = Command::new(product::program())
                .args(["plan", "--cmdline", "usrpolicy=strict", "--root"])
                .arg(root.path())
                .env_clear()
                .output()
                .unwrap();
            let text = shown_bytes(&ran.stdout);
            missed +=
                usize::from(!text.ends_with("late: makes /usr read-only, if it is not yet\n"));
        }
        is_done.store(true, Ordering::Relaxed);
        assert_eq!(missed, 0, "of {RUNS}");
    });
}
