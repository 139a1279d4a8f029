//! The command lines of both programs: exit codes, and every message that a person may read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use usr_policy_plan::config;
use usr_policy_plan::mount_point::NotAMountPoint;
use usr_policy_plan::policy::{Complaint, Refusal};
use usr_policy_tests::golden::{Case, chroot, shown_bytes};
use usr_policy_tests::privilege::become_root;
use usr_policy_tests::product;
use usr_policy_tests::trials;

fn main() -> ExitCode {
    become_root();
    trials::run(TESTS)
}

/// The verbs of `usr-policy`; its own help must list these and no other.
const VERBS: [&str; 6] = ["explain", "lock", "plan", "status", "unlock", "verify"];

const TESTS: &[(&str, fn())] = &[
    ("help is printed where it is asked for, for each verb", help),
    ("the version is that of the package", || {
        let ran = usr_policy(&["--version"]);
        assert_eq!(
            (ran.status.code(), text(&ran.stdout)),
            (
                Some(0),
                format!("usr-policy {}\n", env!("CARGO_PKG_VERSION"))
            )
        );
    }),
    (
        "wrong usage exits 2, says so on standard error and prints nothing",
        wrong_usage,
    ),
    ("plan exits 0, 1 or 3, as it says", plan_exits),
    (
        "plan without a command line takes the running kernel's",
        || {
            let root = Case::named("without-the-word-nothing-is-written").root();
            let ran = usr_policy(&["plan", "--root", root.path().to_str().unwrap()]);
            assert!(matches!(ran.status.code(), Some(0 | 1)), "{ran:?}");
            let without = Path::new("/nonexistent");
            let ran = usr_policy(&["plan", "--root", without.to_str().unwrap()]);
            assert_eq!(ran.status.code(), Some(3));
        },
    ),
    ("a reader who has seen enough is no failure", || {
        let root = Case::named(STRICT).root();
        let script =
            "set -o pipefail; \"$0\" plan --root \"$1\" --cmdline usrpolicy=strict | head -n0";
        let ran = Command::new("bash")
            .args(["-c", script])
            .arg(product::program())
            .arg(root.path())
            .output()
            .unwrap();
        assert_eq!(
            (ran.status.code(), text(&ran.stderr)),
            (Some(0), String::new())
        );
    }),
    ("an output that cannot be written is a failure", || {
        let root = Case::named(STRICT).root();
        let script = "\"$0\" plan --root \"$1\" --cmdline usrpolicy=strict >/dev/full";
        let ran = Command::new("sh")
            .args(["-c", script])
            .arg(product::program())
            .arg(root.path())
            .output()
            .unwrap();
        assert_eq!(ran.status.code(), Some(3));
        assert!(
            text(&ran.stderr).starts_with(
                "usr-policy: cannot write to standard output: No space left on device"
            ),
            "{ran:?}"
        );
    }),
    (
        "a standard error that is closed changes no exit code",
        || {
            let root = Case::named("a-misspelt-word-is-off-and-said").root();
            let script = "\"$0\" plan --root \"$1\" --cmdline usrpolicy=strikt >/dev/null 2>&-";
            let ran = Command::new("sh")
                .args(["-c", script])
                .arg(product::program())
                .arg(root.path())
                .output()
                .unwrap();
            assert_eq!(ran.status.code(), Some(1));
        },
    ),
    (
        "the boot program takes no wrong arguments, and writes nothing then",
        wrong_arguments,
    ),
    (
        "every complaint is shown by a golden folder",
        every_complaint,
    ),
    (
        "what is installed is uninstalled, and nothing of anybody else's",
        uninstall,
    ),
];

const STRICT: &str = "strict-closes-usr-and-the-database-and-puts-the-rest-in-memory";

/// The files below a directory.
fn files_of(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_of(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

fn uninstall() {
    let root = tempfile::tempdir().unwrap();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let make = |target: &str| {
        let ran = Command::new("make")
            .args(["--no-print-directory", target, "PREFIX=/usr"])
            .arg(format!("DESTDIR={}", root.path().display()))
            .current_dir(workspace)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
        text(&ran.stdout)
    };
    make("install");
    // Whatever is installed is what is tested, and some files of others lie beside it.
    let mut others: Vec<PathBuf> = files_of(root.path())
        .iter()
        .flat_map(|file| {
            [
                file.with_file_name("other"),
                file.parent().unwrap().with_file_name("other"),
            ]
        })
        .filter(|file| {
            !file.iter().any(|name| {
                ["usr-policy", "90usr-policy"]
                    .iter()
                    .any(|own| name == *own)
            })
        })
        .collect();
    assert!(others.len() > 15, "{others:?}");
    others.sort();
    others.dedup();
    for other in &others {
        fs::write(other, "").unwrap();
    }
    let said = make("uninstall");
    let first = said.lines().next().unwrap();
    assert!(first.ends_with("/00-usr-policy-guard.hook"), "{said}");
    let mut left = files_of(root.path());
    left.sort();
    assert_eq!(left, others);
}

fn usr_policy(words: &[&str]) -> Output {
    Command::new(product::program())
        .args(words)
        .env_clear()
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn help() {
    let ran = usr_policy(&["--help"]);
    assert_eq!(
        (ran.status.code(), text(&ran.stderr)),
        (Some(0), String::new())
    );
    let out = text(&ran.stdout);
    let mut listed: Vec<&str> = out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, VERBS, "{out}");
    for verb in VERBS {
        let ran = usr_policy(&[verb, "--help"]);
        assert_eq!(ran.status.code(), Some(0));
        assert!(text(&ran.stdout).contains("Exit status: 0"), "{verb}");
    }
}

fn wrong_usage() {
    for words in [
        &[][..],
        &["vérify"],
        &["verify", "now"],
        &["verify", "--root", "/"],
        &["verify", "--format"],
        &["verify", "--format=xml"],
        &["verify", "--json", "--format=metrics"],
        &["verify", "--json", "--quiet"],
        &["verify", "--format=metrics", "--all"],
        &["verify", "--quiet", "--all"],
        &["status", "--json"],
        &["--verify"],
        &["plan", "--root"],
        &["plan", "--cmdline"],
        &["plan", "--root", "/", "--root", "/"],
        &["plan", "/"],
        &["help"],
        &["plan", "--diff", "--root", "/"],
        &["explain"],
        &["explain", ""],
        &["explain", "/usr", "/var"],
        &["status", "--for"],
        &["unlock", "--for"],
        &["unlock", "--for", "soon"],
        &["unlock", "15m"],
        &["lock", "now"],
    ] {
        let ran = usr_policy(words);
        assert_eq!(ran.status.code(), Some(2), "{words:?}: {ran:?}");
        assert!(
            ran.stdout.is_empty() && !ran.stderr.is_empty(),
            "{words:?}: {ran:?}"
        );
    }
}

fn plan_exits() {
    let root = Case::named(STRICT).root();
    let plan =
        |root: &str, cmdline: &str| usr_policy(&["plan", "--root", root, "--cmdline", cmdline]);
    let path = root.path().to_str().unwrap();
    assert_eq!(plan(path, "usrpolicy=strict").status.code(), Some(0));
    assert_eq!(plan(path, "").status.code(), Some(0));
    let ran = plan(path, "usrpolicy=strikt");
    assert_eq!(ran.status.code(), Some(1));
    assert_eq!(
        text(&ran.stderr),
        "usr-policy: /proc/cmdline: usrpolicy=strikt is not a mode; use usrpolicy=strict or remove it\n"
    );
    let ran = plan("/nonexistent", "usrpolicy=strict");
    assert_eq!((ran.status.code(), ran.stdout.len()), (Some(3), 0));
    assert_eq!(
        text(&ran.stderr),
        "usr-policy: /nonexistent: cannot open as root directory: No such file or directory\n"
    );
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let ran = plan(file.to_str().unwrap(), "usrpolicy=strict");
    assert_eq!(ran.status.code(), Some(3));
    assert!(text(&ran.stderr).ends_with(": cannot open as root directory: Not a directory\n"));
}

fn wrong_arguments() {
    let case = Case::named(STRICT);
    for words in [
        &[][..],
        &["normal"],
        &["/run/a", "/run/b"],
        &["/run/a", "run/b", "/run/c"],
        &["/run/a", "/run/b", "/run/c", "/run/d"],
        &["sync", "now"],
        &["apply"],
        &["apply", "--root", "/"],
        &["apply", "--root", "/", "--stage", "soon"],
        &["apply", "--root", "sysroot", "--stage", "early"],
        &["apply", "--stage", "early", "--root", "/"],
        &["--help"],
        &[""],
    ] {
        let root = case.root();
        let before = fs::read_dir(root.path().join("run")).unwrap().count();
        let ran = chroot(root.path())
            .arg("/usr/lib/usr-policy/usr-policy-generator")
            .args(words)
            .env_clear()
            .output()
            .unwrap();
        assert_eq!(ran.status.code(), Some(2), "{words:?}: {ran:?}");
        let said = text(&ran.stderr);
        assert!(
            said.starts_with("usr-policy-generator: wrong arguments; use "),
            "{words:?}: {said}"
        );
        assert_eq!(
            fs::read_dir(root.path().join("run")).unwrap().count(),
            before,
            "{words:?}"
        );
    }
}

/// One of each, so that a new one does not compile without its folder.
fn folder_of(complaint: &Complaint) -> &'static str {
    const REFUSED: &str = "a-path-that-may-not-be-touched-is-refused-on-the-command-line";
    match complaint {
        Complaint::Mode(None) => "a-bare-word-is-off-and-said",
        Complaint::Mode(Some(_)) => "a-misspelt-word-is-off-and-said",
        Complaint::ConfiguredMode(_) => "an-unknown-mode-in-the-configuration-is-off-and-said",
        Complaint::Lock(_) => "an-unknown-lock-word-drops-only-itself",
        Complaint::StepDown(_) => "a-number-of-boots-that-is-none-drops-only-itself",
        Complaint::Boolean(..) => "at-boot-with-a-word-that-is-no-boolean-drops-only-itself",
        Complaint::UnknownWord(_) => "an-unknown-word-drops-only-itself",
        Complaint::UnknownKey(..) => "an-unknown-setting-or-section-drops-only-itself",
        Complaint::NoTreatment(_) | Complaint::Treatment(_) => {
            "a-path-without-a-treatment-drops-only-itself"
        }
        Complaint::Size(_)
        | Complaint::Permissions(_)
        | Complaint::PathOption(_)
        | Complaint::OptionWithoutTmpfs(_) => {
            "a-size-or-mode-that-is-wrong-drops-its-row-on-the-command-line"
        }
        Complaint::RealInit(_) => "a-real-init-that-is-no-path-of-a-program-drops-only-itself",
        Complaint::Path(_, refusal) => match refusal {
            Refusal::NotAMountPoint(
                NotAMountPoint::NotAbsolute | NotAMountPoint::DotDot | NotAMountPoint::ControlByte,
            )
            | Refusal::Usr
            | Refusal::Elsewhere
            | Refusal::Kept(_) => REFUSED,
            Refusal::Database => "a-path-that-holds-the-named-database-is-refused",
            Refusal::NotForUnits => "a-path-that-a-unit-file-cannot-hold-is-refused",
            Refusal::BelowUsr => "below-usr-only-writable-is-possible",
            Refusal::TooLong => "a-path-that-is-too-long-for-a-unit-name-is-refused",
        },
        Complaint::Database(_, Refusal::Kept(_)) => {
            "a-database-that-holds-what-stays-writable-is-said"
        }
        Complaint::Database(..) => {
            "a-database-that-would-take-more-along-is-said-and-the-rest-holds"
        }
        Complaint::Syntax(
            config::Problem::NotAnAssignment
            | config::Problem::UnclosedSection
            | config::Problem::OutsideSection
            | config::Problem::NotText,
        ) => "a-syntax-error-names-file-and-line-and-drops-only-itself",
    }
}

fn every_complaint() {
    let path = |path: &str, refusal| Complaint::Path(path.into(), refusal);
    let complaints = [
        Complaint::Mode(None),
        Complaint::Mode(Some("strikt".into())),
        Complaint::ConfiguredMode("enforcing".into()),
        Complaint::Lock("bogus".into()),
        Complaint::StepDown("three".into()),
        Complaint::Boolean("AtBoot", "sometimes".into()),
        Complaint::UnknownWord("usrpolicy.xxx=1".into()),
        Complaint::UnknownKey("Policy".into(), "Modus".into()),
        Complaint::NoTreatment("/var/opt".into()),
        Complaint::Treatment("TMPFS".into()),
        Complaint::Size("101%".into()),
        Complaint::Permissions("99".into()),
        Complaint::PathOption("exec".into()),
        Complaint::OptionWithoutTmpfs("/var/e".into()),
        Complaint::RealInit("systemd".into()),
        path(
            "var/tmp",
            Refusal::NotAMountPoint(NotAMountPoint::NotAbsolute),
        ),
        path(
            "/var/../etc",
            Refusal::NotAMountPoint(NotAMountPoint::DotDot),
        ),
        path(
            "/var/a\nb",
            Refusal::NotAMountPoint(NotAMountPoint::ControlByte),
        ),
        path("/usr", Refusal::Usr),
        path("/home", Refusal::Elsewhere),
        path("/var/lib/pacman/local", Refusal::Kept("/var/lib/pacman")),
        path("/var/own", Refusal::Database),
        Complaint::Database("/var/".into(), Refusal::Kept("/var/lib")),
        Complaint::Database(
            "/var/lib/../lib".into(),
            Refusal::NotAMountPoint(NotAMountPoint::DotDot),
        ),
        path("/var/back\\", Refusal::NotForUnits),
        path("/usr/local/share", Refusal::BelowUsr),
        path(&format!("/var/{}", "b".repeat(246)), Refusal::TooLong),
        Complaint::Syntax(config::Problem::NotAnAssignment),
        Complaint::Syntax(config::Problem::UnclosedSection),
        Complaint::Syntax(config::Problem::OutsideSection),
        Complaint::Syntax(config::Problem::NotText),
    ];
    for complaint in complaints {
        let folder = folder_of(&complaint);
        let log = String::from_utf8(Case::named(folder).recorded().kmsg).unwrap();
        let ending = format!(": {complaint}\n");
        assert!(
            log.contains(&ending),
            "{folder}: not \"{complaint}\":\n{}",
            shown_bytes(log.as_bytes())
        );
    }
}
