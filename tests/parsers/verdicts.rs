//! The verdict on the mount tables of real boots, against what a write did at that moment.

use std::fs;
use std::path::Path;

use usr_policy_plan::cmdline::Cmdline;
use usr_policy_plan::mountinfo::MountTable;
use usr_policy_plan::plan::{Facts, Plan};
use usr_policy_plan::verify::{
    Access, Finding, Kind, Observed, Place, Topic, Verdict, Ways, paths, report,
};

/// The tables in which /usr and the database are where PID 1 of the real root has them.
fn rows() -> Vec<(String, MountTable, [String; 2])> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let expected = fs::read_to_string(fixtures.join("expected.tsv")).unwrap();
    let rows = expected.lines().filter(|row| !row.starts_with('#'));
    rows.filter_map(|row| {
        let [name, usr, usr_is, database_is] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let path = fixtures.join(format!("mountinfo/{name}.mountinfo"));
        let table = MountTable::parse(&fs::read(path).unwrap());
        let is = [usr_is, database_is].map(str::to_owned);
        (usr == "/usr").then_some((name.to_owned(), table, is))
    })
    .collect()
}

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

#[test]
fn the_verdict_on_every_real_table_is_what_a_write_found() {
    let plan = Plan::new(&Facts {
        cmdline: Cmdline::parse(b"usrpolicy=strict"),
        ..Facts::default()
    });
    let mut judged = [0, 0];
    for (name, table, is) in rows() {
        let report = report(&plan, &machine(&plan, table));
        for (path, is) in ["/usr", "/var/lib/pacman"].into_iter().zip(&is) {
            let mut findings = report.findings.iter();
            let about = |finding: &&Finding| finding.subject == path;
            let finding = findings.find(about).unwrap();
            // Broken may also be what no write at that moment tells: what extensions leave behind, or are merged twice over.
            let says_writable = finding.verdict == Verdict::Broken
                && (finding.what.starts_with("writable")
                    || finding.what.contains("with a writable layer"));
            match is.as_str() {
                "rw" => assert!(says_writable, "{name}: {finding:?}"),
                "ro" => assert!(!says_writable, "{name}: {finding:?}"),
                _ => continue,
            }
            judged[usize::from(is == "ro")] += 1;
        }
    }
    assert!(judged[0] > 30 && judged[1] > 40, "{judged:?} are too few");
}

#[test]
fn no_real_boot_has_another_way_to_what_it_closes() {
    let plan = Plan::new(&Facts {
        cmdline: Cmdline::parse(b"usrpolicy=strict"),
        ..Facts::default()
    });
    let mut checked = 0;
    for (name, table, [usr_is, _]) in rows() {
        let ways = Ways::new(&plan, &table);
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
