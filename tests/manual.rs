//! The manual and the completions beside the programs: what a page says of rules, words, keys, units and exit codes is what the
//! code has, and what `--help` lists is what page and completions know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use usr_policy_plan::cmdline::Cmdline;
use usr_policy_plan::config::{self, ConfigFile};
use usr_policy_plan::lock::{Extensions, Manual, SETTLED, STATE, State};
use usr_policy_plan::package_manager::GUARD_NAME;
use usr_policy_plan::plan::{Facts, Plan};
use usr_policy_plan::policy::{Complaint, Lock, Policy, Rule, Treatment};
use usr_policy_plan::pre_init::PRE_INIT;
use usr_policy_plan::unit::{BOOT_PROGRAM, OPEN_DIRECTORY, unit_tree};
use usr_policy_system::events::EVENTS;
use usr_policy_tests::golden::{Case, cases, chroot};
use usr_policy_tests::privilege::become_root;
use usr_policy_tests::product;
use usr_policy_tests::trials;

fn main() -> ExitCode {
    become_root();
    trials::run(TESTS)
}

const TESTS: &[(&str, fn())] = &[
    ("the table of paths is that of the policy", paths),
    ("the options of a tmpfs are those of the policy", tmpfs),
    ("the table of the lock is what the lock does", lock),
    (
        "every word that is accepted is in the manual, and every word of the manual is accepted",
        words,
    ),
    (
        "every key that is accepted is in the manual, and every key of the manual is accepted",
        keys,
    ),
    ("the units of the manual are those there are", units),
    (
        "the exit codes of the boot program are those of the manual",
        boot_program,
    ),
    (
        "the ways to call the boot program are those that it knows, in each place of its page",
        ways_to_call,
    ),
    ("the files of the manual are those of the programs", files),
    (
        "help, manual and completions know the same verbs and options",
        verbs,
    ),
    ("bash completes the options of each verb", bash),
    (
        "the exit codes of the manual are those of the verbs",
        exit_codes,
    ),
    ("no page has a mistake in its markup", markup),
    ("every page is referred to by another one", references),
];

fn installed(path: &str) -> String {
    let path = product::stage().join("usr/share").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages, by their names.
fn pages() -> BTreeMap<String, PathBuf> {
    let mut pages = BTreeMap::new();
    for section in ["man5", "man7", "man8"] {
        let directory = product::stage().join("usr/share/man").join(section);
        for page in fs::read_dir(directory).unwrap() {
            let path = page.unwrap().path();
            pages.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), path);
        }
    }
    assert_eq!(pages.len(), 4);
    pages
}

/// The rows of the list of a page that begins with this line, each with its cells, without macros and quotes.
fn rows(page: &str, after: &str) -> Vec<Vec<String>> {
    let mut lines = page.lines();
    assert!(lines.any(|line| line == after), "no line {after:?}");
    let mut lines = lines.skip_while(|line| !line.starts_with(".Bl "));
    assert!(lines.next().is_some());
    let rows: Vec<Vec<String>> = lines
        .take_while(|line| *line != ".El")
        .filter_map(|line| line.strip_prefix(".It "))
        .map(|row| row.split(" Ta ").map(plain).collect())
        .collect();
    assert!(!rows.is_empty(), "{after}");
    rows
}

/// The text of a cell.
fn plain(cell: &str) -> String {
    let macros = ["Pa", "Cm", "Sy", "Ar", "Ns"];
    let words = cell.split(' ').filter(|word| !macros.contains(word));
    let text = words.collect::<Vec<_>>().join(" ");
    text.trim_matches('"').replace(" ,", ",").trim().to_owned()
}

fn policy(cmdline: &str) -> Policy {
    Policy::new(&Cmdline::parse(cmdline.as_bytes()), &[], None)
}

fn paths() {
    let word = |rule: &Rule| match rule.treatment {
        Treatment::ReadWrite => "writable",
        Treatment::ReadOnly => "read-only",
        Treatment::Tmpfs(_) => "tmpfs",
    };
    let rules = policy("usrpolicy=strict").rules;
    let expected: Vec<Vec<String>> = rules
        .iter()
        .map(|rule| {
            vec![
                rule.mount_point.to_string(),
                word(rule).to_owned(),
                rule.because.to_owned(),
            ]
        })
        .collect();
    let page = installed("man/man7/usr-policy.7");
    assert_eq!(rows(&page, ".Ss What becomes of the paths"), expected);
}

fn tmpfs() {
    let page = installed("man/man5/usr-policy.conf.5");
    for row in rows(&page, ".Sh TMPFS") {
        let path = match row[0].as_str() {
            "PATH" => "/var/any/other",
            path => path,
        };
        let policy = policy(&format!("usrpolicy=strict usrpolicy.path={path}:tmpfs"));
        let mut rules = policy.rules.iter();
        let rule = rules.find(|rule| rule.mount_point.to_string() == path);
        let treatment = rule.unwrap().treatment.to_string();
        assert_eq!(treatment, format!("tmpfs {}", row[1]), "{path}");
    }
    // None that the table has is left out.
    let named: Vec<String> = rows(&page, ".Sh TMPFS")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    for rule in policy("usrpolicy=strict").rules {
        if matches!(rule.treatment, Treatment::Tmpfs(_)) {
            assert!(
                named.contains(&rule.mount_point.to_string()),
                "{}",
                rule.mount_point
            );
        }
    }
}

fn lock() {
    const NOW: u64 = 1_000_000_000;
    let state = |extensions, manual| State { extensions, manual };
    let unmerged = Extensions::Unmerged {
        since: NOW - SETTLED,
    };
    let of = |row: &str| match row {
        "" => None,
        "from boot" => Some(state(Extensions::NotYet, Manual::Nothing)),
        "an extension is merged" => Some(state(Extensions::Merged, Manual::Nothing)),
        "unmerged since two seconds" => Some(state(unmerged, Manual::Nothing)),
        "after unlock" => Some(state(Extensions::NotYet, Manual::Unlock { until: None })),
        "after lock" => Some(state(Extensions::NotYet, Manual::Lock)),
        other => panic!("{other}: no such row"),
    };
    let page = installed("man/man7/usr-policy.7");
    let table = rows(&page, ".Ss When the package database is locked");
    assert_eq!(table[0], ["", "always", "merged", "off"]);
    assert_eq!(table.len(), 6);
    for row in &table {
        let Some(state) = of(&row[0]) else { continue };
        for (cell, lock) in row[1..].iter().zip([Lock::Always, Lock::Merged, Lock::Off]) {
            let is_locked = |guard| state.wanted(lock, guard, NOW).is_locked;
            let expected = match (is_locked(true), is_locked(false)) {
                // What always refuses stays locked.
                (true, true) if row[0] == "after unlock" => "refused",
                (true, true) => "locked",
                (false, false) => "open",
                (false, true) => "open with guard",
                (true, false) => panic!("{row:?}: a guard that locks"),
            };
            assert_eq!(cell, expected, "{row:?}");
        }
    }
}

/// What the golden folders use and the policy accepts: the words of the command line, and section and key of the configuration.
fn accepted() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut words, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for case in cases() {
        let cmdline = Cmdline::parse(&case.cmdline().unwrap_or_default());
        for word in cmdline.words() {
            let key = String::from_utf8_lossy(&word.key).into_owned();
            let is_ours = key == "usrpolicy" || key.starts_with("usrpolicy.");
            let problems = policy(&key).problems;
            let is_unknown = |complaint: &Complaint| matches!(complaint, Complaint::UnknownWord(_));
            if is_ours
                && !problems
                    .iter()
                    .any(|problem| is_unknown(&problem.complaint))
            {
                words.insert(key);
            }
        }
        let root = case.root();
        for place in ["etc", "run", "usr/local/lib", "usr/lib"] {
            let place = root.path().join(place);
            let drop_ins = fs::read_dir(place.join("usr-policy.conf.d"));
            let drop_ins = drop_ins.into_iter().flatten();
            let files = drop_ins.map(|file| file.unwrap().path());
            for file in files.chain([place.join("usr-policy.conf")]) {
                let text = fs::read(file).unwrap_or_default();
                for assignment in config::parse(&text).0 {
                    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let section = name(assignment.section);
                    let key = name(assignment.key);
                    let section = match section.strip_prefix("Path:") {
                        Some(_) => "Path:PATH".to_owned(),
                        None => section,
                    };
                    if is_key(&section, &key) {
                        keys.insert(format!("[{section}] {key}="));
                    }
                }
            }
        }
    }
    (words, keys)
}

fn is_key(section: &str, key: &str) -> bool {
    let section = section.replace("PATH", "/var/any/other");
    let file = ConfigFile {
        path: b"/etc/usr-policy.conf".to_vec(),
        text: format!("[{section}]\n{key}=\n").into_bytes(),
    };
    let problems = Policy::new(&Cmdline::default(), &[file], None).problems;
    let is_unknown = |complaint: &Complaint| matches!(complaint, Complaint::UnknownKey(..));
    !problems
        .iter()
        .any(|problem| is_unknown(&problem.complaint))
}

fn words() {
    let page = installed("man/man7/usr-policy.7");
    let documented: BTreeSet<String> = rows(&page, ".Sh KERNEL COMMAND LINE")
        .into_iter()
        .map(|row| row[0].split_once('=').unwrap().0.to_owned())
        .collect();
    assert_eq!(documented, accepted().0);
}

fn keys() {
    let page = installed("man/man5/usr-policy.conf.5");
    let documented: BTreeSet<String> = rows(&page, ".Sh KEYS")
        .into_iter()
        .map(|row| format!("{} {}", row[0], row[1]))
        .collect();
    assert_eq!(documented, accepted().1);
    assert!(!is_key("Policy", "Nonsense") && !is_key("Nonsense", "Mode"));
    // The values that the page has are those that are understood.
    for row in rows(&page, ".Sh KEYS") {
        if row[2].split(", ").any(|word| word.contains(' ')) {
            continue;
        }
        for word in row[2].split(", ") {
            let section = row[0].replace("PATH", "/var/any/other");
            let text = format!("{section}\n{}{word}\n", row[1]);
            let file = ConfigFile {
                path: b"/etc/usr-policy.conf".to_vec(),
                text: text.clone().into_bytes(),
            };
            let problems = Policy::new(&Cmdline::default(), &[file], None).problems;
            assert_eq!(problems, [], "{text}");
        }
    }
}

fn units() {
    let page = installed("man/man8/usr-policy-generator.8");
    let named = |after: &str| -> BTreeSet<String> {
        let rows = rows(&page, after).into_iter();
        rows.map(|row| row[0].clone()).collect()
    };
    let directory = product::stage().join("usr/lib/systemd/system");
    let installed: BTreeSet<String> = fs::read_dir(directory)
        .unwrap()
        .map(|unit| unit.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(named(".Sh UNITS"), installed);

    let facts = Facts {
        cmdline: Cmdline::parse(b"usrpolicy=strict"),
        ..Facts::default()
    };
    let tree = unit_tree(&Plan::new(&facts), b"/run/systemd/generator");
    let written: BTreeSet<String> = tree
        .iter()
        .map(|(_, name, _)| name.split('/').next().unwrap().to_owned())
        .filter(|name| !name.ends_with(".wants"))
        .collect();
    assert_eq!(named("These are written under"), written);
}

fn boot_program() {
    let page = installed("man/man8/usr-policy-generator.8");
    let codes: Vec<String> = rows(&page, ".Sh EXIT STATUS")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(codes, ["0", "1", "2", "5"]);
    // In a root without a /dev it complains on standard error.
    let root = Case::named("without-the-word-nothing-is-written").root();
    let ran = chroot(root.path())
        .arg("/usr/lib/usr-policy/usr-policy-generator")
        .arg("nonsense")
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(2));
    // Each way to call it that it names itself is in the page.
    let said = String::from_utf8(ran.stderr).unwrap();
    for role in ["apply", "sync", "follow"] {
        assert!(said.contains(role), "{said}");
        assert!(page.contains(&format!("\n.Cm {role}")), "{role}");
    }
}

fn ways_to_call() {
    let page = installed("man/man8/usr-policy-generator.8");
    let called = |cell: &str| cell.split(' ').next().unwrap().to_owned();
    let table: Vec<String> = rows(&page, "What it does is in the log:")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let (first, rest) = table.split_first().unwrap();
    let (last, roles) = rest.split_last().unwrap();
    assert_eq!(
        (first.as_str(), last.as_str()),
        ("NORMAL", "as the first process")
    );
    let synopsis = page.split(".Sh SYNOPSIS\n").nth(1).unwrap();
    let synopsis = synopsis.split(".Sh ").next().unwrap();
    let in_synopsis: Vec<String> = synopsis
        .lines()
        .filter_map(|line| line.strip_prefix(".Cm "))
        .map(called)
        .collect();
    assert_eq!(in_synopsis, roles);
    // What it says itself to whoever calls it otherwise.
    let root = Case::named("without-the-word-nothing-is-written").root();
    let ran = chroot(root.path())
        .args([BOOT_PROGRAM, "nonsense"])
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    let (_, uses) = said.split_once("; use ").unwrap();
    let (uses, as_init) = uses.split_once("; ").unwrap();
    let known: Vec<String> = uses
        .split(", ")
        .skip(1)
        .map(|way| called(way.trim().trim_start_matches("or ")))
        .collect();
    assert_eq!(known, roles, "{said}");
    assert!(as_init.contains(&format!("init={PRE_INIT}")), "{said}");
}

fn files() {
    let named = |page: &str| -> BTreeSet<String> {
        let rows = rows(&installed(page), ".Sh FILES").into_iter();
        rows.map(|row| row[0].clone()).collect()
    };
    let all = |paths: &[&str]| -> BTreeSet<String> {
        let paths = paths.iter().map(|path| (*path).to_owned());
        paths.collect()
    };
    let guard = format!("/usr/share/libalpm/hooks/{GUARD_NAME}");
    let script = "/etc/init.d/usr-policy";
    assert_eq!(
        named("man/man7/usr-policy.7"),
        // The last one has no public name; tests/namespace/messages.rs finds it written.
        all(&[
            BOOT_PROGRAM,
            PRE_INIT,
            script,
            &guard,
            EVENTS,
            "/var/lib/usr-policy/covered"
        ])
    );
    let stage = product::stage();
    for path in [BOOT_PROGRAM, PRE_INIT, &guard] {
        let path = stage.join(path.trim_start_matches('/'));
        assert!(path.is_file(), "{}", path.display());
    }
    let makefile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Makefile");
    let installs_script = format!(" openrc/usr-policy $(DESTDIR){script}\n");
    assert!(
        fs::read_to_string(makefile)
            .unwrap()
            .contains(&installs_script)
    );
    let (state, _) = STATE.rsplit_once('/').unwrap();
    assert_eq!(
        named("man/man8/usr-policy-generator.8"),
        all(&[EVENTS, state, OPEN_DIRECTORY])
    );
}

fn usr_policy(words: &[&str]) -> String {
    let ran: Output = Command::new(product::program())
        .args(words)
        .env_clear()
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

/// The verbs of `--help`, and of each its options and operands.
fn helped() -> BTreeMap<String, BTreeSet<String>> {
    let section = |text: &str, head: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| *line != head).skip(1);
        let lines = lines.take_while(|line| line.is_empty() || line.starts_with(' '));
        lines.map(str::to_owned).collect()
    };
    let commands = section(&usr_policy(&["--help"]), "Commands:");
    let verbs = commands
        .iter()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    verbs
        .map(|verb| {
            let help = usr_policy(&[verb, "--help"]);
            let mut names = BTreeSet::new();
            for line in section(&help, "Options:") {
                // `  -h, --help` and `      --for <TIME>`; what explains them has no dash.
                let mut words = line.split([' ', ',', '=']);
                let line = line.trim_start();
                if line.starts_with('-') {
                    let long = words.find(|word| word.starts_with("--"));
                    names.extend(long.map(str::to_owned));
                }
            }
            for line in section(&help, "Arguments:") {
                let operand = line.trim_start();
                if operand.starts_with(['<', '[']) && line.starts_with("  <") {
                    let word = operand.split_whitespace().next().unwrap();
                    names.insert(word.to_owned());
                }
            }
            names.remove("--help");
            (verb.to_owned(), names)
        })
        .collect()
}

fn verbs() {
    let helped = helped();
    // So it reads something.
    assert!(helped["unlock"].contains("--for"), "{helped:?}");
    assert!(helped["explain"].contains("<PATH>"), "{helped:?}");
    let fonts = ["\\fB", "\\fI", "\\fR"];
    let page = fonts
        .iter()
        .fold(installed("man/man8/usr-policy.8"), |page, font| {
            page.replace(font, "")
        })
        .replace("\\-", "-");
    let commands = page.split(".SH ").find(|part| part.starts_with("COMMANDS"));
    let mut documented = BTreeMap::new();
    for part in commands.unwrap().split("\n.SS ").skip(1) {
        let (verb, rest) = part.split_once('\n').unwrap();
        let heads = rest.split(".TP\n").skip(1);
        let names = heads.map(|item| {
            let head = item.lines().next().unwrap();
            let mut words = head.split([' ', ',', '=']);
            let long = words.clone().find(|word| word.starts_with("--"));
            long.or_else(|| words.next()).unwrap().to_owned()
        });
        documented.insert(verb.to_owned(), names.collect::<BTreeSet<String>>());
    }
    assert_eq!(documented, helped);

    let zsh = installed("zsh/site-functions/_usr-policy");
    let fish = installed("fish/vendor_completions.d/usr-policy.fish");
    for (verb, names) in &helped {
        let zsh = zsh.split_once(&format!("({verb})\n"));
        let (_, zsh) = zsh.unwrap_or_else(|| panic!("zsh has no {verb}"));
        let zsh = zsh.split_once("\n;;").unwrap().0;
        assert!(fish.contains(&format!(" -a \"{verb}\" ")), "fish: {verb}");
        for name in names {
            let Some(name) = name.strip_prefix("--") else {
                continue;
            };
            assert!(zsh.contains(&format!("--{name}")), "zsh: {verb} --{name}");
            let of_verb = format!("using_subcommand {verb}\"");
            assert!(
                fish.lines()
                    .any(|line| line.contains(&of_verb) && line.contains(&format!(" -l {name} "))),
                "fish: {verb} --{name}"
            );
        }
    }
    let all = installed("bash-completion/completions/usr-policy") + &zsh + &fish;
    assert!(!all.contains("guard"), "what only a hook calls is offered");
    for (shell, option, name) in [
        ("zsh", "-n", "zsh/site-functions/_usr-policy"),
        (
            "fish",
            "--no-execute",
            "fish/vendor_completions.d/usr-policy.fish",
        ),
    ] {
        let path = product::stage().join("usr/share").join(name);
        match Command::new(shell).arg(option).arg(path).output() {
            Ok(ran) => assert!(ran.status.success(), "{ran:?}"),
            Err(_) => {
                eprintln!("skipped: {shell} is not installed, and has not read its completion")
            }
        }
    }
}

/// What bash offers after these words.
fn completed(words: &[&str]) -> BTreeSet<String> {
    let script = r#"source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        last=${@: -1}; before=${@: -2:1}; _usr__policy usr-policy "$last" "$before"; printf '%s\n' "${COMPREPLY[@]}""#;
    let ran = Command::new("bash")
        .args(["-c", script])
        .arg(product::stage().join("usr/share/bash-completion/completions/usr-policy"))
        .arg("usr-policy")
        .args(words)
        .output()
        .unwrap();
    assert!(ran.stderr.is_empty(), "{ran:?}");
    let text = String::from_utf8(ran.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn bash() {
    let helped = helped();
    let verbs = completed(&[""]);
    for (verb, names) in &helped {
        assert!(verbs.contains(verb), "{verbs:?}");
        let offered = completed(&[verb, "--"]);
        let options = names.iter().filter(|name| name.starts_with("--"));
        let mut expected: BTreeSet<String> = options.cloned().collect();
        expected.insert("--help".to_owned());
        assert_eq!(offered, expected, "{verb}");
    }
    assert_eq!(completed(&["unl"]), BTreeSet::from(["unlock".to_owned()]));
}

fn exit_codes() {
    let page = installed("man/man8/usr-policy.8");
    let section = page.split(".SH EXIT STATUS\n").nth(1).unwrap();
    let section = section.split(".SH ").next().unwrap();
    let documented: BTreeSet<char> = section
        .lines()
        .filter_map(|line| line.strip_prefix("\\fB")?.chars().next())
        .collect();
    let mut said = BTreeSet::new();
    for verb in helped().keys() {
        let help = usr_policy(&[verb, "--help"]);
        let text = help.split("Exit status: ").nth(1).unwrap();
        let text = text.split("\n\n").next().unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        let digits = words.filter(|word| word.len() == 1);
        said.extend(digits.filter_map(|word| word.chars().next().filter(char::is_ascii_digit)));
    }
    assert_eq!(said, documented);
}

fn markup() {
    for page in pages().values() {
        let read_by = |program: &str, options: &[&str]| {
            let ran = Command::new(program).args(options).arg(page).output();
            if ran.is_err() {
                eprintln!(
                    "skipped: {program} is not installed, and has not read {}",
                    page.display()
                );
            }
            ran.ok()
        };
        if let Some(ran) = read_by("man", &["--warnings", "-E", "UTF-8", "-l"]) {
            let is_quiet = ran.status.success() && ran.stderr.is_empty();
            assert!(is_quiet, "{}: {ran:?}", page.display());
        }
        // What it thinks of style is BSD's, and of other pages that its database is old.
        if let Some(ran) = read_by("mandoc", &["-T", "lint", "-W", "error"]) {
            assert!(ran.status.success(), "{}: {ran:?}", page.display());
        }
    }
}

fn references() {
    let pages = pages();
    for name in pages.keys() {
        let (title, section) = name.rsplit_once('.').unwrap();
        let mdoc = format!(".Xr {title} {section}");
        let man = format!("{}\\fR({section})", title.replace('-', "\\-"));
        let is_named = |path: &Path| {
            let text = fs::read_to_string(path).unwrap();
            text.contains(&mdoc) || text.contains(&man)
        };
        let mut others = pages.iter().filter(|(other, _)| *other != name);
        assert!(others.any(|(_, path)| is_named(path)), "{name}");
    }
}
