//! pacman.conf(5), as far as it says where the database and the hooks are.
//!
//! Read as pacman 6.0 to 7.1 read it, which its pacman-conf(8) shows: the first `DBPath` and `RootDir` count, lists grow,
//! a comment is a line of its own, and a section that an included file begins goes on after it.

use alloc::vec::Vec;

use crate::config::ConfigFile;
use crate::package_manager::{NamedDatabase, PACMAN};

/// Where what is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PacmanConf {
    db_path: Option<NamedDatabase>,
    root_dir: Option<NamedDatabase>,
    hook_dirs: Vec<Vec<u8>>,
}

/// Where pacman finds the hooks that packages install; a `HookDir` comes after it. Source: alpm-hooks(5).
const SYSTEM_HOOKS: &[u8] = b"/usr/share/libalpm/hooks/";

/// Included files may include others, so often; pacman stops at more. Source: pacman src/pacman/conf.c (`parse_ini`).
const DEPTH: u32 = 10;

/// So many files are read; more are a mistake that would hold the boot.
const FILES: u32 = 256;

/// Something that pacman would refuse to start with: what was read before it counts.
struct Stop;

impl PacmanConf {
    /// Reads the file. `include` gives the files that a pattern names, in their order.
    ///
    /// Total: what pacman would refuse to start with ends here too, and what was read before it counts.
    #[must_use]
    pub fn parse(file: &ConfigFile, include: &mut dyn FnMut(&[u8]) -> Vec<ConfigFile>) -> Self {
        let mut conf = PacmanConf::default();
        let mut left = FILES;
        // A Stop is not for us to tell.
        let _ = conf.read(file, &mut Vec::new(), include, (DEPTH, &mut left));
        conf
    }

    fn read(
        &mut self,
        file: &ConfigFile,
        section: &mut Vec<u8>,
        include: &mut dyn FnMut(&[u8]) -> Vec<ConfigFile>,
        (depth, left): (u32, &mut u32),
    ) -> Result<(), Stop> {
        for (line, number) in file.text.split(|&byte| byte == b'\n').zip(1..) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if let Some(name) = line
                .strip_prefix(b"[")
                .and_then(|line| line.strip_suffix(b"]"))
            {
                *section = name.to_vec();
                continue;
            }
            let mut sides = line.splitn(2, |&byte| byte == b'=');
            let key = sides.next().unwrap_or_default().trim_ascii();
            let Some(value) = sides.next().map(<[u8]>::trim_ascii) else {
                continue;
            };
            if key == b"Include" {
                let deeper = depth.checked_sub(1).ok_or(Stop)?;
                for file in include(value) {
                    *left = left.checked_sub(1).ok_or(Stop)?;
                    self.read(&file, section, include, (deeper, left))?;
                }
                continue;
            }
            if section != b"options" {
                continue;
            }
            let named = || NamedDatabase {
                path: value.to_vec(),
                file: file.path.clone(),
                line: number,
            };
            match key {
                b"DBPath" => drop(self.db_path.get_or_insert_with(named)),
                b"RootDir" => drop(self.root_dir.get_or_insert_with(named)),
                b"HookDir" => {
                    let words = value.split(u8::is_ascii_whitespace);
                    let words = words.filter(|word| !word.is_empty());
                    self.hook_dirs.extend(words.map(<[u8]>::to_vec));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The database; `None` where it is where pacman has it by itself.
    #[must_use]
    pub fn database(&self) -> Option<NamedDatabase> {
        if let Some(named) = &self.db_path {
            return Some(named.clone());
        }
        let root = self.root_dir.as_ref()?;
        let directory = root.path.strip_suffix(b"/").unwrap_or(&root.path);
        Some(NamedDatabase {
            path: [directory, PACMAN.database.as_bytes()].concat(),
            ..root.clone()
        })
    }

    /// The directories of hooks: a file in a later one replaces one of the same name in an earlier one.
    pub fn hook_dirs(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        let own: &[&[u8]] = if self.hook_dirs.is_empty() {
            &[b"/etc/pacman.d/hooks/"]
        } else {
            &[]
        };
        [SYSTEM_HOOKS]
            .into_iter()
            .chain(own.iter().copied())
            .chain(self.hook_dirs.iter().map(Vec::as_slice))
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::string::ToString;
    use std::vec::Vec;

    use super::PacmanConf;
    use crate::config::ConfigFile;

    fn file(path: &str, text: &str) -> ConfigFile {
        ConfigFile {
            path: path.into(),
            text: text.into(),
        }
    }

    fn parse(text: &str) -> PacmanConf {
        PacmanConf::parse(&file("/etc/pacman.conf", text), &mut |_| Vec::new())
    }

    fn database(text: &str) -> String {
        parse(text).database().map_or("default".into(), |named| {
            String::from_utf8(named.path).unwrap()
        })
    }

    #[test]
    fn the_first_database_counts_and_lists_grow() {
        let conf = parse(
            "[options]\n\nDBPath = /a/db/\nDBPath=/b/db\nHookDir = /h/one /h/two\nHookDir = /h/three/\n",
        );
        let named = conf.database().unwrap();
        assert_eq!(named.path, b"/a/db/");
        assert_eq!(
            (named.file.as_slice(), named.line),
            (&b"/etc/pacman.conf"[..], 3)
        );
        let hooks: Vec<&[u8]> = conf.hook_dirs().collect();
        assert_eq!(
            hooks,
            [
                &b"/usr/share/libalpm/hooks/"[..],
                b"/h/one",
                b"/h/two",
                b"/h/three/"
            ]
        );
    }

    #[test]
    fn what_is_not_said_is_where_pacman_has_it() {
        for text in ["", "[options]\n", "[options]\nDBPath\n", "# DBPath = /x\n"] {
            assert_eq!(database(text), "default", "{text}");
        }
        let conf = parse("");
        assert_eq!(conf.hook_dirs().last().unwrap(), b"/etc/pacman.d/hooks/");
        assert_eq!(database("[options]\nRootDir = /r\n"), "/r/var/lib/pacman");
        assert_eq!(database("[options]\nRootDir = /\n"), "/var/lib/pacman");
        assert_eq!(database("[options]\nRootDir = /r/\nDBPath = /d\n"), "/d");
    }

    #[test]
    fn only_the_section_of_options_counts_and_only_as_it_is_spelt() {
        assert_eq!(
            database("[core]\nDBPath = /no\n[options]\ndbpath = /lower\nDBPath = relative/db\n"),
            "relative/db"
        );
        assert_eq!(database("DBPath = /no\n[core]\nDBPath = /no\n"), "default");
        // A comment is a line.
        assert_eq!(
            database("[options]\n   DBPath   =   /x y  # said\n"),
            "/x y  # said"
        );
    }

    #[test]
    fn an_included_file_takes_its_place_and_its_section_goes_on() {
        let mut asked = Vec::new();
        let text = "[options]\nInclude = /etc/i*.conf\nDBPath = /late\n";
        let conf = PacmanConf::parse(&file("/etc/pacman.conf", text), &mut |pattern| {
            asked.push(String::from_utf8_lossy(pattern).to_string());
            std::vec![
                file("/etc/i1.conf", "HookDir = /k"),
                file("/etc/i2.conf", "[core]\nServer = file:///x\n"),
            ]
        });
        assert_eq!(asked, ["/etc/i*.conf"]);
        assert_eq!(conf.hook_dirs().last().unwrap(), b"/k");
        // Now in [core].
        assert_eq!(conf.database(), None);
    }

    #[test]
    fn a_database_of_an_included_file_is_said_to_stand_there() {
        let text = "[options]\nInclude = /etc/own.conf\n";
        let conf = PacmanConf::parse(&file("/etc/pacman.conf", text), &mut |_| {
            std::vec![file("/etc/own.conf", "# own\nDBPath = /d\n")]
        });
        let named = conf.database().unwrap();
        assert_eq!(
            (named.file.as_slice(), named.line),
            (&b"/etc/own.conf"[..], 2)
        );
    }

    #[test]
    fn files_that_include_themselves_come_to_an_end() {
        // Each of these would be read ten times for each time that it is read.
        let text =
            String::from("[options]\nHookDir = /c\n") + &"Include = /etc/pacman.conf\n".repeat(10);
        let mut asked = 0;
        let conf = PacmanConf::parse(&file("/etc/pacman.conf", &text), &mut |_| {
            asked += 1;
            std::vec![file("/etc/pacman.conf", &text)]
        });
        assert_eq!(asked, 10);
        assert_eq!(conf.hook_dirs().count(), 12);
    }

    #[test]
    fn more_files_than_anybody_has_come_to_an_end() {
        let mut asked = 0;
        let text = String::from("[options]\n") + &"Include = /etc/a*\n".repeat(1_000);
        let conf = PacmanConf::parse(&file("/etc/pacman.conf", &text), &mut |_| {
            asked += 1;
            std::vec![file("/etc/a", "HookDir = /c\n")]
        });
        assert_eq!(asked, 257);
        assert_eq!(conf.hook_dirs().count(), 257);
    }
}
