//! What holds for every input.

use proptest::collection::vec;
use proptest::prelude::*;
use usr_policy_plan::cmdline::{self, Cmdline};
use usr_policy_plan::fstab::{self, Fstab};
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::{MountOptions, MountTable};
use usr_policy_plan::partition_table::Table;
use usr_policy_plan::superblock::Superblock;
use usr_policy_plan::{config, octal, unit_name};

use super::point;

/// Any bytes, and bytes that mean something to one parser or another.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let meaningful = proptest::sample::select(b" \t\n\r\0\\\"'=,#;[]-_/.:0147aru\xff".as_slice());
    let words = proptest::sample::select(vec![
        "/usr",
        "/usr/",
        "none",
        "swap",
        "ext4",
        "ro",
        "\\040",
        "\\",
        " - ",
        "shared:1",
        "1 0 0:1 / ",
        "\u{feff}",
        "[Policy]",
        "Mode=strict",
        "\\\n",
        "\r\n",
        "99999999999999999999",
    ]);
    prop_oneof![
        vec(any::<u8>(), 0..200),
        vec(meaningful, 0..200),
        vec(words, 0..60).prop_map(|words| words.concat().into_bytes()),
        vec(words_of_tables(), 0..60).prop_map(|words| words.join(&b' ')),
    ]
}

fn words_of_tables() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[0-9]{1,3}",
        "[0-9]{9,11}:[0-9]{9,11}",
        "/[a-c/.]{0,3}",
        "(rw|ro|-|shared:[0-9]+|tmpfs|\n)"
    ]
    .prop_map(String::into_bytes)
}

/// A path that is a mount point, written in some way.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let component = prop_oneof![
        4 => "[a-z0-9_:-]{1,8}".prop_map(String::into_bytes),
        1 => "\\.[a-z.]{0,3}".prop_map(String::into_bytes),
        1 => vec(any::<u8>().prop_filter("a path has none", |byte| !b"\0\n/".contains(byte)), 1..8),
    ];
    let slashes = proptest::sample::select(vec!["/", "/", "/", "//", "/./"]);
    vec((slashes, component), 1..6).prop_map(|components| {
        components
            .into_iter()
            .flat_map(|(slash, component)| [slash.as_bytes().to_vec(), component].concat())
            .collect()
    })
}

fn mount_point() -> impl Strategy<Value = MountPoint> {
    path().prop_filter_map("..", |path| MountPoint::new(&path).ok())
}

proptest! {
    // A regression is a test with a name; a checkout may be read-only.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_a_parser_panic(text in text(), path in path()) {
        let _ = octal::decode(&text);
        let _ = Cmdline::parse(&text);
        let _ = config::parse(&text);
        let _ = Fstab::parse(&text);
        let table = MountTable::parse(&text);
        for bytes in [text.as_slice(), &path, b"/usr"] {
            if let Ok(mount_point) = MountPoint::new(bytes) {
                let _ = unit_name::mount_unit(&mount_point);
                let _ = fstab::without(&text, &mount_point);
                let _ = table.top_at(&mount_point);
                let _ = table.stack_at(&mount_point);
                let _ = table.holding(&mount_point);
            }
        }
    }

    #[test]
    fn no_start_of_a_device_panics(
        mut start in vec(any::<u8>(), 0..3000),
        magic in proptest::sample::select(vec![
            (512, b"EFI PART".as_slice()),
            (510, b"\x55\xaa"),
            (1024 + 56, b"\x53\xef"),
            (1024, b"\xe2\xe1\xf5\xe0"),
            (0, b"XFSB"),
        ]),
        number in 0..300_u32,
    ) {
        let (at, magic) = magic;
        if let Some(place) = start.get_mut(at..at + magic.len()) {
            place.copy_from_slice(magic);
        }
        let _ = Superblock::read(&start);
        let _ = Table::read(&start).and_then(|table| table.partition(number));
    }

    #[test]
    fn what_was_encoded_decodes_to_itself_and_is_one_field(bytes in vec(any::<u8>(), 0..100)) {
        let field = octal::encode(&bytes);
        prop_assert_eq!(octal::decode(&field), bytes);
        prop_assert!(!field.iter().any(|byte| b" \t\n#".contains(byte)));
    }

    #[test]
    fn a_normalised_path_is_normalised_already(path in mount_point()) {
        prop_assert_eq!(point(path.as_bytes()), path);
    }

    #[test]
    fn what_lies_below_a_place_lies_below_every_place_above_it(path in mount_point()) {
        let bytes = path.as_bytes();
        for end in (1..bytes.len()).filter(|&end| bytes[end] == b'/') {
            prop_assert!(path.is_below(&point(&bytes[..end])));
            prop_assert!(!point(&bytes[..end]).is_at_or_below(&path));
        }
        prop_assert!(path.is_at_or_below(&path) && !path.is_below(&path));
        prop_assert_eq!(path.is_below(&point("/")), bytes != b"/");
    }

    #[test]
    fn two_places_have_two_unit_names(a in mount_point(), b in mount_point()) {
        if let (Ok(name), Ok(other)) = (unit_name::mount_unit(&a), unit_name::mount_unit(&b)) {
            prop_assert_eq!(name == other, a == b);
        }
    }

    #[test]
    fn a_value_in_quotes_comes_back_whole(
        before in "[a-z =]{0,20}",
        value in "[^\"\0]{0,40}",
        after in "[a-z =]{0,20}",
    ) {
        let text = format!("{before} usrpolicy.path=\"{value}\" {after}");
        let cmdline = Cmdline::parse(text.as_bytes());
        let values: Vec<_> = cmdline.with_key("usrpolicy.path").map(|word| word.value.clone()).collect();
        prop_assert_eq!(values, [Some(value.into_bytes())]);
    }

    #[test]
    fn keys_are_equal_both_ways_round(a in "[ab_-]{0,3}", b in "[ab_-]{0,3}") {
        let equal = cmdline::key_equals(a.as_bytes(), b.as_bytes());
        prop_assert_eq!(equal, a.replace('-', "_") == b.replace('-', "_"));
        prop_assert_eq!(equal, cmdline::key_equals(b.as_bytes(), a.as_bytes()));
    }

    #[test]
    fn an_fstab_line_comes_back_as_it_was_written(spec in "[^\0#]{1,20}", file in mount_point(), option in "[^\0,\"\\\\]{1,20}") {
        let encoded = [spec.as_bytes(), file.as_bytes(), b"ext4", option.as_bytes()].map(octal::encode);
        let fstab = Fstab::parse(&[&encoded.join(&b' ')[..], b" 0 0\r\n"].concat());
        prop_assert_eq!(&fstab.bad_lines, &[]);
        let entry = fstab.entry_at(&file).unwrap();
        prop_assert_eq!(&entry.spec, spec.as_bytes());
        prop_assert_eq!(&entry.mntops, &[option.into_bytes()]);
    }

    #[test]
    fn an_fstab_without_a_place_keeps_every_other_line_and_every_other_entry(
        lines in vec(prop_oneof![
            text(),
            (path(), "[ \t]{1,2}[a-z4]{0,4}( ro)?( x)?\r?").prop_map(|(path, rest)| [b"/dev/a ", &path[..], rest.as_bytes()].concat()),
            Just(b"/dev/b /usr ext4".to_vec()),
            Just(b" /dev/b\t//usr/".to_vec()),
        ], 0..10),
        other in path(),
    ) {
        let text = lines.join(&b'\n');
        for place in [&b"/usr"[..], &other].into_iter().filter_map(|path| MountPoint::new(path).ok()) {
            let kept = fstab::without(&text, &place);

            let mut rest = text.split_inclusive(|&byte| byte == b'\n');
            for line in kept.split_inclusive(|&byte| byte == b'\n') {
                prop_assert!(rest.any(|other| other == line));
            }
            let unnumbered = |text: &[u8]| {
                Fstab::parse(text).entries.into_iter().map(|entry| fstab::Entry { line: 0, ..entry }).collect::<Vec<_>>()
            };
            let mut entries = unnumbered(&text);
            entries.retain(|entry| entry.file != place);
            prop_assert_eq!(unnumbered(&kept), entries);
        }
    }

    #[test]
    fn options_come_back_as_they_were_written(options in vec("[^\0,\\\\]{1,10}", 0..10)) {
        let parsed = MountOptions::parse(options.join(",").as_bytes());
        prop_assert_eq!(parsed.iter().collect::<Vec<_>>(), options.iter().map(String::as_bytes).collect::<Vec<_>>());
        for option in &options {
            prop_assert!(parsed.has(option));
        }
    }

    #[test]
    fn a_setting_comes_back_as_it_was_written(section in "[^\0\n\r\\]\\\\]{1,20}", key in "[A-Za-z]{1,8}", value in "[^\0-\u{20}\\\\]([^\0\n\r\\\\]*[^\0-\u{20}\\\\])?") {
        let text = format!("[{section}]\r\n {key} = {value}\t\n");
        let (assignments, bad_lines) = config::parse(text.as_bytes());
        prop_assert_eq!(bad_lines, []);
        prop_assert_eq!(assignments.len(), 1);
        prop_assert_eq!(assignments[0].section, section.as_bytes());
        prop_assert_eq!(assignments[0].key, key.as_bytes());
        prop_assert_eq!(&assignments[0].value, value.as_bytes());
    }

    #[test]
    fn the_way_through_a_table_does_not_depend_on_the_order_of_its_lines(
        tree in vec((any::<proptest::sample::Index>(), proptest::sample::select(vec!["", "", "/a", "/b", "/a/b"])), 0..30),
        order in any::<u64>(),
    ) {
        // Each mount hangs on one before it, at its root directory or below; the kernel gives a place of a mount to one child.
        let mut mounts: Vec<(usize, String)> = vec![(usize::MAX, String::new())];
        for (parent, place) in tree {
            let parent = parent.index(mounts.len());
            let place = format!("{}{place}", mounts[parent].1);
            if !place.is_empty() && !mounts.contains(&(parent, place.clone())) {
                mounts.push((parent, place));
            }
        }
        let mut lines: Vec<String> = mounts
            .iter()
            .enumerate()
            .map(|(id, (parent, place))| format!("{id} {parent} 0:1 / /{} rw - tmpfs t rw\n", place.trim_start_matches('/')))
            .collect();
        lines.sort_by_key(|line| (line.len() as u64 ^ u64::from(line.as_bytes()[0])).wrapping_mul(order | 1).rotate_left(17));
        let table = MountTable::parse(lines.concat().as_bytes());
        prop_assert_eq!(&table.bad_lines, &[]);

        for path in ["/", "/a", "/b", "/a/b", "/a/a", "/a/b/a/b", "/a/b/b/a"] {
            let mut seen = 0;
            for end in (1..=path.len()).filter(|&end| end == path.len() || path.as_bytes()[end] == b'/') {
                let place = (path != "/").then_some(&path[..end]);
                while let Some(child) = mounts.iter().position(|(parent, at)| *parent == seen && Some(at.as_str()) == place) {
                    seen = child;
                }
            }
            prop_assert_eq!(table.holding(&point(path)).unwrap().mount_id, seen as u64, "{}", path);
            let is_mounted_there = mounts[seen].1.as_str() == path.trim_end_matches('/');
            prop_assert_eq!(table.top_at(&point(path)).map(|mount| mount.mount_id), is_mounted_there.then_some(seen as u64));
        }
    }
}
