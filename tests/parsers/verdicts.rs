//! The verdict on the mount tables of real boots, against what a write did at that moment.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use usr_policy_plan::cmdline::Cmdline;
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::MountTable;
use usr_policy_plan::plan::{Facts, Plan};
use usr_policy_plan::verify::{
    Access, Finding, Kind, Observed, Place, Report, Topic, Verdict, Ways, paths, report,
};

/// A mount table, and what a write found at that moment.
struct Row {
    name: String,
    /// Where the root of the system is in it; empty after switch-root.
    root: String,
    table: MountTable,
    /// What a write to /usr and to the database met: `ro`, `rw`, `-` where none was tried, `absent` where that was not there.
    is: [String; 2],
}

/// All tables, as PID 1 of the real root would have them: what is not below that root is left out.
fn rows() -> Vec<Row> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let expected = fs::read_to_string(fixtures.join("expected.tsv")).unwrap();
    let rows = expected.lines().filter(|row| !row.starts_with('#'));
    rows.map(|row| {
        let [name, usr, usr_is, database_is] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let root = usr.strip_suffix("/usr").unwrap();
        let path = fixtures.join(format!("mountinfo/{name}.mountinfo"));
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().filter_map(|line| below(line, root));
        let table = MountTable::parse(lines.collect::<String>().as_bytes());
        assert!(
            !table.mounts.is_empty() && table.bad_lines.is_empty(),
            "{name}"
        );
        Row {
            name: name.to_owned(),
            root: root.to_owned(),
            table,
            is: [usr_is, database_is].map(str::to_owned),
        }
    })
    .collect()
}

/// A line with its mount point as it is seen below a directory; `None` where it is not.
fn below(line: &str, root: &str) -> Option<String> {
    let mut words: Vec<&str> = line.split(' ').collect();
    let rest = words[4].strip_prefix(root)?;
    words[4] = match rest {
        "" => "/",
        rest if rest.starts_with('/') => rest,
        _ => return None,
    };
    Some(words.join(" ") + "\n")
}

/// The tables whose overlay of extensions was there twice, where a write met a read-only file system all the same: an unmerge
/// would leave one of them behind, and that is what is told.
const DOUBLED: [&str; 3] = [
    "c-usrmount-sx-t.sysext-merged",
    "c-usrmount-sx-t.sysext-restarted",
    "c-usrmount-sx-t.sysext-started-again",
];

/// A machine of which nothing is known but its mounts.
fn machine(plan: &Plan, mounts: MountTable) -> Observed {
    let places = paths(plan).into_iter().map(|path| Place {
        mount_id: mounts.holding(&path).map(|mount| mount.mount_id),
        path,
        kind: Kind::Directory,
        access: Access::NoWitness,
        statvfs_read_only: None,
    });
    Observed {
        places: places.collect(),
        mounts,
        ..Observed::default()
    }
}

fn strict() -> Plan {
    Plan::new(&Facts {
        cmdline: Cmdline::parse(b"usrpolicy=strict"),
        ..Facts::default()
    })
}

#[test]
fn the_verdict_on_every_real_table_is_what_a_write_found() {
    let plan = strict();
    // Of /usr and of the database, before switch-root and after it.
    let mut judged = BTreeMap::new();
    let mut doubled = Vec::new();
    for Row {
        name,
        root,
        table,
        is,
    } in rows()
    {
        let report = report(&plan, &machine(&plan, table));
        for (path, is) in ["/usr", "/var/lib/pacman"].into_iter().zip(is) {
            let mut findings = report.findings.iter();
            let about = |finding: &&Finding| finding.subject == path;
            let finding = findings.find(about).unwrap();
            let says = |verdict, starts: [&str; 2]| {
                finding.verdict == verdict
                    && starts.iter().any(|words| finding.what.starts_with(words))
            };
            match is.as_str() {
                "rw" => {
                    let words = ["writable", "extensions are merged with a writable layer"];
                    assert!(says(Verdict::Broken, words), "{name}: {finding:?}");
                }
                "ro" if path == "/usr" && DOUBLED.contains(&&*name) => {
                    let words = "the overlay of systemd-sysext is mounted more than once";
                    assert!(says(Verdict::Broken, [words; 2]), "{name}: {finding:?}");
                    doubled.push(name.clone());
                }
                "ro" => {
                    let words = ["read-only by ", "locked: "];
                    assert!(says(Verdict::Holds, words), "{name}: {finding:?}");
                }
                "-" | "absent" => continue,
                other => panic!("{name}: {other}"),
            }
            let moment = if root.is_empty() { "after" } else { "before" };
            *judged.entry((path, is, moment)).or_insert(0) += 1;
        }
    }
    assert_eq!(doubled, DOUBLED);
    let few = |((path, is, moment), least): &((&str, &str, &str), u32)| {
        judged
            .get(&(*path, (*is).to_owned(), *moment))
            .unwrap_or(&0)
            < least
    };
    let least = [
        (("/usr", "ro", "after"), 55),
        (("/usr", "rw", "after"), 18),
        (("/usr", "ro", "before"), 25),
        (("/usr", "rw", "before"), 32),
        (("/var/lib/pacman", "ro", "after"), 27),
        (("/var/lib/pacman", "rw", "after"), 31),
        (("/var/lib/pacman", "ro", "before"), 2),
        (("/var/lib/pacman", "rw", "before"), 53),
    ];
    assert!(!least.iter().any(few), "{judged:?} are too few");
}

#[test]
fn the_table_of_a_generator_says_read_only_whatever_a_write_would_find() {
    let plan = strict();
    let rows = rows();
    let mut own: Vec<&Row> = rows.iter().collect();
    own.retain(|row| row.name.ends_with(".lab-generator-self"));
    let names: Vec<&str> = own.iter().map(|row| &*row.name).collect();
    assert_eq!(
        names,
        [
            "a-mount-t.lab-generator-self",
            "b-env-t.lab-generator-self",
            "base-t.lab-generator-self"
        ]
    );
    for row in own {
        assert_eq!(row.is, ["-", "-"], "{}", row.name);
        for path in ["/usr", "/var/lib/pacman"] {
            let path = MountPoint::new(path.as_bytes()).unwrap();
            assert!(row.table.holding(&path).unwrap().is_read_only());
        }
        // No witness of ours reads it: with it both would hold, also where nothing at all is closed.
        let report = report(&plan, &machine(&plan, row.table.clone()));
        says_holds(&report, "/usr");
    }
    let boot = rows.iter().find(|row| row.name == "base-t.boot").unwrap();
    assert_eq!(boot.is, ["rw", "rw"]);
}

#[track_caller]
fn says_holds(report: &Report, path: &str) {
    let mut findings = report.findings.iter();
    let finding = findings.find(|finding| finding.subject == path).unwrap();
    assert_eq!(finding.verdict, Verdict::Holds, "{finding:?}");
}

#[test]
fn no_real_boot_has_another_way_to_what_it_closes() {
    let plan = strict();
    let mut checked = 0;
    for row in rows().into_iter().filter(|row| row.root.is_empty()) {
        let (name, table, [usr_is, _]) = (row.name, row.table, row.is);
        let ways = Ways::new(&plan, &table, None);
        let elsewhere: Vec<_> = ways.elsewhere().collect();
        assert!(elsewhere.is_empty(), "{name}: {elsewhere:?}");
        let own: Vec<_> = ways.only_in(&table);
        assert!(own.is_empty(), "{name}: {own:?}");
        let report = report(&plan, &machine(&plan, table));
        let mut findings = report.findings.iter();
        assert!(
            findings.all(|finding| finding.topic != Topic::Way),
            "{name}"
        );
        checked += usize::from(usr_is == "ro");
    }
    assert!(checked > 30, "{checked} are too few");
}
