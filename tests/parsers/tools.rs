//! The same input to the parsers and to the programs that they must agree with.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use usr_policy_plan::cmdline::Cmdline;
use usr_policy_plan::fstab::Fstab;
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::{config, octal, unit_name};

use super::mount_tables::findmnt;
use super::{point, run, samples, skip};

const GENERATORS: &str = "/usr/lib/systemd/system-generators";

#[test]
fn unit_names_are_those_of_systemd_escape() {
    let byte = any::<u8>().prop_filter("systemd-escape takes no such byte", |byte| {
        !b"\0\n".contains(byte)
    });
    let path = vec(
        prop_oneof![4 => "[/a-zA-Z0-9:_.-]".prop_map(|c| c.as_bytes()[0]), 1 => select(b"/ .\\%\t".as_slice()), 1 => byte],
        0..50,
    );
    let mut paths = vec![
        b"/".to_vec(),
        b"//.//".to_vec(),
        b"/.snapshots/.x".to_vec(),
        b"/a-b/c\\x2d".to_vec(),
    ];
    paths.extend(
        samples(2000, &path)
            .into_iter()
            .map(|path| [b"/", &path[..]].concat()),
    );
    paths.retain(|path| MountPoint::new(path).is_ok());
    assert!(paths.len() > 1500);

    let mut arguments: Vec<OsString> = ["--path", "--suffix=mount", "--"]
        .map(OsString::from)
        .to_vec();
    arguments.extend(paths.iter().cloned().map(OsString::from_vec));
    let Some(output) = run("systemd-escape", &arguments, &[]) else {
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let theirs = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<&str> = theirs.split_whitespace().collect();
    let ours: Vec<_> = paths
        .iter()
        .map(|path| unit_name::mount_unit(&point(path)).unwrap())
        .collect();
    assert_eq!(ours, theirs);
}

/// Runs one of systemd's generators in an empty directory and returns the names of what it wrote there.
fn generate(
    generator: &str,
    variables: &[(&str, &OsStr)],
) -> Option<(BTreeSet<OsString>, tempfile::TempDir)> {
    let directory = tempfile::tempdir().unwrap();
    let arguments = [directory.path(); 3];
    run(&format!("{GENERATORS}/{generator}"), &arguments, variables)?;
    let names = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    Some((names, directory))
}

/// The unit that `systemd.mask=` masks. Source: systemd `src/basic/unit-name.c`, `unit_name_mangle`.
fn mangled(name: &[u8]) -> OsString {
    let mut mangled: Vec<u8> = name
        .iter()
        .flat_map(|&byte| {
            let stays = byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
            if stays {
                vec![byte]
            } else {
                format!("\\x{byte:02x}").into_bytes()
            }
        })
        .collect();
    mangled.extend(b".service");
    OsString::from_vec(mangled)
}

#[test]
fn words_quotes_and_backslashes_are_read_as_systemd_reads_them() {
    let pieces = select(vec![
        "systemd.mask=",
        "systemd.mask=a",
        " systemd.mask=a",
        " systemd.mask=b",
        " systemd.mask=\"c",
        "systemd.mask",
        "a",
        "b-c",
        "d_e",
        "=",
        " ",
        " ",
        "\t",
        "\n",
        "\r",
        "\"",
        "'",
        "\\",
        "\\\"",
        "\\ ",
        "é",
    ]);
    let mut texts: Vec<String> = samples(500, &vec(pieces, 0..24))
        .into_iter()
        .map(|pieces| pieces.concat())
        .collect();
    texts.extend([
        "systemd.mask=a\"b c\"d 'systemd.mask=e=f' systemd.mask=\"it's\n".into(),
        "\"systemd.mask\"=a '' \"\" systemd.mask=b\\".into(),
    ]);
    let mut masked = 0;
    for text in texts {
        let cmdline = Cmdline::parse(text.as_bytes());
        let values: Vec<&[u8]> = cmdline
            .with_key("systemd.mask")
            .filter_map(|word| word.value.as_deref())
            .collect();
        // There the generator gives the whole line up.
        if values.contains(&&b""[..]) {
            continue;
        }
        let ours: BTreeSet<OsString> = values.into_iter().map(mangled).collect();
        let Some((theirs, _directory)) = generate(
            "systemd-debug-generator",
            &[("SYSTEMD_PROC_CMDLINE", OsStr::new(&text))],
        ) else {
            return;
        };
        assert_eq!(ours, theirs, "{text:?}");
        masked += ours.len();
    }
    assert!(masked > 400, "{masked} words are too few to compare");
}

#[test]
fn dash_and_underscore_are_the_same_in_a_key_to_systemd_too() {
    for (text, expected) in [
        ("systemd.debug_shell", true),
        ("systemd.debug-shell", true),
        ("systemd-debug-shell", false),
        ("systemd.debugshell", false),
        ("Systemd.debug_shell", false),
    ] {
        let cmdline = Cmdline::parse(text.as_bytes());
        assert_eq!(
            cmdline.with_key("systemd.debug_shell").next().is_some(),
            expected,
            "{text}"
        );
        let Some((names, _directory)) = generate(
            "systemd-debug-generator",
            &[("SYSTEMD_PROC_CMDLINE", OsStr::new(text))],
        ) else {
            return;
        };
        assert_eq!(!names.is_empty(), expected, "{text}: {names:?}");
    }
}

#[test]
fn the_last_word_wins_with_systemd_too() {
    for text in [
        "root=/dev/a",
        "root=/dev/a root=/dev/b",
        "root=/dev/b root=/dev/a quiet",
        "root=/dev/a 'root=/dev/c=d' rootflags=root=/dev/x xroot=/dev/y root",
        "root=/dev/a\troot=\"/dev/e",
    ] {
        let cmdline = Cmdline::parse(text.as_bytes());
        let ours = cmdline
            .with_key("root")
            .filter_map(|word| word.value.as_deref())
            .next_back()
            .unwrap();
        let variables = [
            ("SYSTEMD_PROC_CMDLINE", OsStr::new(text)),
            ("SYSTEMD_IN_INITRD", OsStr::new("1")),
        ];
        let Some((_, directory)) = generate("systemd-fstab-generator", &variables) else {
            return;
        };
        let unit = fs::read(directory.path().join("sysroot.mount")).unwrap();
        let theirs = unit
            .split(|&byte| byte == b'\n')
            .find_map(|line| line.strip_prefix(b"What="))
            .unwrap();
        assert_eq!(
            ours.escape_ascii().to_string(),
            theirs.escape_ascii().to_string(),
            "{text}"
        );
    }
}

/// Lines that an fstab has, and lines that nobody would write; `odd` is what else stands in device and place.
fn fstab_line(odd: impl Strategy<Value = String> + Clone) -> impl Strategy<Value = Vec<u8>> {
    let blanks = || "[ \t]{1,3}".prop_map(String::into_bytes);
    let plain =
        select(vec!["a", "b", "/", "/", ".", "#", "\"", "=", ":", "é"]).prop_map(String::from);
    let word = || {
        let parts = vec(prop_oneof![3 => plain.clone(), 1 => odd.clone()], 1..8);
        parts.prop_map(|parts| parts.concat().into_bytes())
    };
    let place = prop_oneof![
        6 => word().prop_map(|word| [b"/", &word[..]].concat()),
        1 => word(),
        1 => select(vec!["/", "/usr", "/usr/", "none", "swap"]).prop_map(|place| place.as_bytes().to_vec()),
    ];
    let kind = select(vec!["ext4", "ext4", "swap", "auto", "none", "fuse.a\\040b"])
        .prop_map(|kind| kind.as_bytes().to_vec());
    let options = select(vec![
        "defaults",
        "ro",
        "rw,noatime",
        "x=\"a,b\",nodev",
        "a=b,errors=remount-ro",
    ])
    .prop_map(|o| o.as_bytes().to_vec());
    let number = || {
        select(vec![
            "0",
            "0",
            "1",
            "-1",
            "x",
            "2x",
            "#",
            "0x1",
            "99999999999",
        ])
        .prop_map(|n| n.as_bytes().to_vec())
    };
    let fields = (
        word(),
        place,
        kind,
        options,
        number(),
        number(),
        word(),
        0..8_usize,
    )
        .prop_map(|(a, b, c, d, e, f, g, count)| {
            let mut fields = vec![a, b, c, d, e, f, g];
            fields.truncate(count);
            fields
        });
    let line = (
        proptest::option::weighted(0.2, blanks()),
        fields,
        vec(blanks(), 8),
        "( |\t|#)?\r?",
    )
        .prop_map(|(indent, fields, blanks, end)| {
            let mut line = indent.unwrap_or_default();
            for (field, blank) in fields.iter().zip(blanks) {
                line.extend(field);
                line.extend(blank);
            }
            line.extend(end.into_bytes());
            line
        });
    prop_oneof![8 => line, 1 => "[ \t]*#.{0,20}".prop_map(String::into_bytes), 1 => "[ \t]*".prop_map(String::into_bytes)]
}

/// An fstab of 1000 lines, the first of them plain, so that findmnt does not guess that it is something else.
fn long_fstab(odd: impl Strategy<Value = String> + Clone) -> Vec<u8> {
    let mut lines = vec![b"LABEL=first / ext4 rw 0 1".to_vec()];
    lines.extend(samples(999, &fstab_line(odd)));
    lines.join(&b'\n')
}

#[test]
fn an_fstab_is_read_as_libmount_reads_it() {
    let no_escape = select(vec!["\\", "\\\\", "\\x", "\\08", "\r"]).prop_map(String::from);
    let text = long_fstab(prop_oneof![
        no_escape,
        (1_u8..=255).prop_map(|byte| format!("\\{byte:03o}"))
    ]);
    // Lines that name no place are read by libmount like any other.
    let names_a_place = |line: &&[u8]| {
        let mut fields = line
            .split(|byte| b" \t".contains(byte))
            .filter(|field| !field.is_empty())
            .skip(1);
        let (Some(place), kind) = (fields.next(), fields.next()) else {
            return true;
        };
        ![&b"none"[..], b"swap"].contains(&place)
            && kind != Some(b"swap")
            && MountPoint::new(&octal::decode(place)).is_ok()
    };
    let lines: Vec<&[u8]> = text
        .split(|&byte| byte == b'\n')
        .filter(names_a_place)
        .collect();
    let (refused, accepted): (Vec<&[u8]>, Vec<&[u8]>) = lines
        .into_iter()
        .partition(|line| !Fstab::parse(line).bad_lines.is_empty());

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fstab");
    let accepted = accepted.join(&b'\n');
    fs::write(&path, &accepted).unwrap();
    let Some((theirs, errors)) = findmnt(&path, "SOURCE,TARGET,FSTYPE,OPTIONS") else {
        return;
    };
    assert_eq!(errors, "");
    let ours = Fstab::parse(&accepted).entries;
    assert!(ours.len() > 150, "{} lines are too few", ours.len());
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(
            ours.spec.escape_ascii().to_string(),
            theirs[0].escape_ascii().to_string()
        );
        assert_eq!(ours.file, point(&theirs[1]));
        assert_eq!(
            ours.vfstype.escape_ascii().to_string(),
            theirs[2].escape_ascii().to_string()
        );
        // A line without options has none to libmount: it mounts with the defaults.
        if !theirs[3].is_empty() {
            assert_eq!(
                ours.mntops.join(&b',').escape_ascii().to_string(),
                theirs[3].escape_ascii().to_string()
            );
        }
    }

    // One by one: findmnt 2.41 says so and falls over.
    assert!(refused.len() > 100, "{} lines are too few", refused.len());
    for line in refused {
        fs::write(&path, [b"LABEL=first / ext4\n", line, b"\n"].concat()).unwrap();
        let Some((_, errors)) = findmnt(&path, "TARGET") else {
            return;
        };
        assert!(
            errors.contains("parse error at line 2"),
            "{}: {errors}",
            line.escape_ascii()
        );
    }
}

#[test]
fn options_are_split_where_libmount_splits_them() {
    let directory = tempfile::tempdir().unwrap();
    for options in [
        "ro",
        "rw",
        "nodev,ro",
        "errors=remount-ro",
        "ro,errors=remount-ro",
        "x=\"a,ro\"",
        "x=\"a,ro\",ro",
        "x=\"a\",ro,y=\"b\"",
        ",,ro,,",
        "x=\"a\\040,ro\"",
        "x=a\"b,ro\"c",
        "\"ro\"",
        "RO",
        "xro,rox",
    ] {
        let text = format!("LABEL=x / ext4 {options} 0 0\n");
        let path = directory.path().join("fstab");
        fs::write(&path, &text).unwrap();
        let Some((rows, _)) = findmnt(&path, "VFS-OPTIONS") else {
            return;
        };
        let theirs = rows[0][0]
            .split(|&byte| byte == b',')
            .any(|option| option == b"ro");
        let ours = Fstab::parse(text.as_bytes()).entries[0].has_option("ro");
        assert_eq!(ours, theirs, "{options}");
    }
}

#[test]
fn the_fstab_generator_writes_no_mount_unit_that_has_no_entry() {
    // glibc, which reads fstab for systemd up to 257, knows no other escapes.
    let text = long_fstab(select(vec!["\\040", "\\011", "\\134"]).prop_map(String::from));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fstab");
    // Nor does it know a line end of DOS, and a NUL costs it the next line too; and systemd takes a relative place with a
    // slash in it as one below its own working directory.
    let is_common = |line: &&[u8]| {
        let place = line
            .split(|byte| b" \t".contains(byte))
            .filter(|field| !field.is_empty())
            .nth(1);
        !line.iter().any(|byte| b"\r\0".contains(byte))
            && place.is_none_or(|place| place.starts_with(b"/") || !place.contains(&b'/'))
    };
    let mut lines: Vec<&[u8]> = text
        .split(|&byte| byte == b'\n')
        .filter(is_common)
        .collect();
    lines.extend([
        &b"/dev/a /two"[..],
        b"/dev/b /number ext4 ro 0 #",
        b"/dev/c /three ext4",
        b"/dev/d /a\\040b// ext4",
    ]);
    let text = lines.join(&b'\n');
    fs::write(&path, &text).unwrap();

    let variables = [
        ("SYSTEMD_FSTAB", path.as_os_str()),
        ("SYSTEMD_PROC_CMDLINE", OsStr::new("")),
    ];
    let Some((names, _units)) = generate("systemd-fstab-generator", &variables) else {
        return;
    };
    let theirs: BTreeSet<&[u8]> = names
        .iter()
        .map(|name| name.as_bytes())
        .filter(|name| name.ends_with(b".mount"))
        .collect();

    let fstab = Fstab::parse(&text);
    let names: Vec<_> = fstab
        .entries
        .iter()
        .map(|entry| (entry.line, unit_name::mount_unit(&entry.file).unwrap()))
        .collect();
    let ours: BTreeSet<&[u8]> = names.iter().map(|(_, name)| name.as_bytes()).collect();
    assert_eq!(
        shown(theirs.difference(&ours)),
        [""; 0],
        "units without an entry"
    );

    // The other way round it holds for the lines that libmount takes too.
    let is_bad = |line: u32| fstab.bad_lines.iter().any(|bad| bad.line == line);
    let good: BTreeSet<&[u8]> = names
        .iter()
        .filter(|(line, _)| !is_bad(*line))
        .map(|(_, name)| name.as_bytes())
        .collect();
    assert!(good.len() > 60, "{} entries are too few", good.len());
    assert_eq!(
        shown(good.difference(&theirs)),
        [""; 0],
        "entries without a unit"
    );
}

fn shown<'a>(names: impl Iterator<Item = &'a &'a [u8]>) -> Vec<String> {
    names.map(|name| name.escape_ascii().to_string()).collect()
}

/// Lines of a unit file; each `@` becomes a number of its own, so that every key and value is another.
fn unit_line() -> impl Strategy<Value = String> {
    let value = "[a-z =#;\\\\\t]{0,12}";
    prop_oneof![
        4 => value.prop_map(|value| format!("K@={value}")),
        2 => (value, "[ \t]{0,3}").prop_map(|(value, blanks)| format!("{blanks}K@{blanks}={blanks}{value}{blanks}")),
        3 => value.prop_map(|value| format!("StopWhenUnneeded=v@{value}")),
        2 => value.prop_map(|value| format!("StopWhenUnneeded=v@{value}\\")),
        1 => value.prop_map(|value| format!("K@={value}\\")),
        2 => select(vec!["[Unit]", " [Install] ", "[Unknown]", "", " ", "\\", " \\", "# c", "; c\\", "\t# c", "#", "w@", "w@\\", "=v@", "K@", " =v@"])
            .prop_map(String::from),
    ]
}

#[test]
fn a_configuration_file_is_read_as_systemd_reads_a_unit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sample.target");
    let (mut keys, mut values) = (0, 0);
    for lines in samples(
        40,
        &vec((unit_line(), select(vec!["\n", "\n", "\n", "\r\n"])), 0..60),
    ) {
        let mut text = String::from("\u{feff}[Unit]\n");
        for (number, (line, end)) in lines.iter().enumerate() {
            text += &line.replace('@', &number.to_string());
            text += end;
        }
        let (assignments, bad_lines) = config::parse(text.as_bytes());
        // There systemd gives the whole file up.
        if bad_lines
            .iter()
            .any(|bad| bad.problem == config::Problem::UnclosedSection)
        {
            continue;
        }
        fs::write(&path, &text).unwrap();
        let Some(answer) = systemd_reads(&path) else {
            return;
        };

        let known: Vec<_> = assignments
            .iter()
            .filter(|assignment| [&b"Unit"[..], b"Install"].contains(&assignment.section))
            .collect();
        let ours: Vec<_> = known
            .iter()
            .filter(|assignment| {
                assignment.key != b"StopWhenUnneeded" || assignment.section != b"Unit"
            })
            .map(|assignment| String::from_utf8_lossy(assignment.key).into_owned())
            .collect();
        assert_eq!(ours, answer.unknown_keys, "{text}");
        keys += ours.len();

        let ours: Vec<_> = known
            .iter()
            .filter(|assignment| {
                assignment.key == b"StopWhenUnneeded" && assignment.section == b"Unit"
            })
            .map(|assignment| String::from_utf8_lossy(&assignment.value).into_owned())
            .collect();
        assert_eq!(ours, answer.bad_values, "{text}");
        values += ours.len();
    }
    assert!(
        keys > 200 && values > 100,
        "{keys} keys and {values} values are too few"
    );
}

/// What systemd has to say about a unit whose settings are all unknown or no booleans.
struct Answer {
    unknown_keys: Vec<String>,
    bad_values: Vec<String>,
}

fn systemd_reads(unit: &Path) -> Option<Answer> {
    let output = run(
        "systemd-analyze",
        &[
            OsStr::new("verify"),
            OsStr::new("--man=no"),
            unit.as_os_str(),
        ],
        &[],
    )?;
    let messages = String::from_utf8(output.stderr).unwrap();
    let mut answer = Answer {
        unknown_keys: Vec::new(),
        bad_values: Vec::new(),
    };
    let between = |message: &str, start: &str, end: &str| {
        let (value, _) = message.split_once(start)?.1.rsplit_once(end)?;
        Some(value.to_owned())
    };
    for message in messages
        .lines()
        .filter(|message| message.contains("sample.target:"))
    {
        if let Some(key) = between(message, "Unknown key '", "' in section")
            .or_else(|| between(message, "Unknown key name '", "' in section"))
        {
            // A key that goes over the end of its line is a key with a space in it to systemd, and nothing to us.
            if !key.contains(' ') {
                answer.unknown_keys.push(key);
            }
        } else if let Some(value) =
            between(message, "Failed to parse StopWhenUnneeded=", ", ignoring: ")
        {
            answer.bad_values.push(value); // systemd 257 and later
        } else if let Some((_, value)) = message.split_once("value, ignoring: ") {
            answer.bad_values.push(value.to_owned());
        }
    }
    if messages.contains("Failed to initialize manager") || messages.contains("Failed to set up") {
        skip(&format!(
            "systemd-analyze verify does not run here: {messages}"
        ));
        return None;
    }
    Some(answer)
}
