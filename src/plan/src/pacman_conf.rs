//! pacman.conf(5), as far as it says where the database, the cache and the hooks are.
//!
//! Read as pacman 6.0 to 7.1 read it, which its pacman-conf(8) shows: the first `DBPath` and `RootDir` count, lists grow,
//! a comment is a line of its own, and a section that an included file begins goes on after it.

use alloc::vec::Vec;

/// Where what is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PacmanConf {
    db_path: Option<Vec<u8>>,
    root_dir: Option<Vec<u8>>,
    cache_dirs: Vec<Vec<u8>>,
    hook_dirs: Vec<Vec<u8>>,
}

/// Where pacman finds the hooks that packages install; a `HookDir` comes after it. Source: alpm-hooks(5).
const SYSTEM_HOOKS: &[u8] = b"/usr/share/libalpm/hooks/";

/// Included files may include others, so often. Source: pacman src/pacman/conf.c (`parse_ini`).
const DEPTH: u32 = 10;

impl PacmanConf {
    /// Reads the text of the file. `include` gives the texts of the files that a pattern names, in their order.
    ///
    /// Total: what pacman would refuse to start with ends here too, and what was read before it counts.
    #[must_use]
    pub fn parse(text: &[u8], include: &mut dyn FnMut(&[u8]) -> Vec<Vec<u8>>) -> Self {
        let mut conf = PacmanConf::default();
        conf.read(text, &mut Vec::new(), include, DEPTH);
        conf
    }

    fn read(
        &mut self,
        text: &[u8],
        section: &mut Vec<u8>,
        include: &mut dyn FnMut(&[u8]) -> Vec<Vec<u8>>,
        depth: u32,
    ) {
        for line in text.split(|&byte| byte == b'\n') {
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
                if depth > 0 {
                    for text in include(value) {
                        self.read(&text, section, include, depth - 1);
                    }
                }
                continue;
            }
            if section != b"options" {
                continue;
            }
            let words = value
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty())
                .map(<[u8]>::to_vec);
            match key {
                b"DBPath" => drop(self.db_path.get_or_insert_with(|| value.to_vec())),
                b"RootDir" => drop(self.root_dir.get_or_insert_with(|| value.to_vec())),
                b"CacheDir" => self.cache_dirs.extend(words),
                b"HookDir" => self.hook_dirs.extend(words),
                _ => {}
            }
        }
    }

    /// The database; `None` where it is where pacman has it by itself.
    #[must_use]
    pub fn db_path(&self) -> Option<Vec<u8>> {
        match (&self.db_path, &self.root_dir) {
            (Some(path), _) => Some(path.clone()),
            (None, Some(root)) => {
                let root = root.strip_suffix(b"/").unwrap_or(root);
                Some([root, b"/var/lib/pacman/"].concat())
            }
            (None, None) => None,
        }
    }

    /// The directories of the cache; none where it is where pacman has it by itself.
    pub fn cache_dirs(&self) -> impl Iterator<Item = &[u8]> {
        self.cache_dirs.iter().map(Vec::as_slice)
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

    fn parse(text: &str) -> PacmanConf {
        PacmanConf::parse(text.as_bytes(), &mut |_| Vec::new())
    }

    fn db_path(text: &str) -> String {
        let path = parse(text).db_path().unwrap_or(b"default".to_vec());
        String::from_utf8(path).unwrap()
    }

    #[test]
    fn the_first_database_counts_and_lists_grow() {
        let conf = parse(
            "[options]\nDBPath = /a/db/\nDBPath=/b/db\nCacheDir = /c/one/ /c/two\nCacheDir = /c/three\nHookDir = /h/one\nHookDir = /h/two/\n",
        );
        assert_eq!(conf.db_path().unwrap(), b"/a/db/");
        let caches: Vec<&[u8]> = conf.cache_dirs().collect();
        assert_eq!(caches, [&b"/c/one/"[..], b"/c/two", b"/c/three"]);
        let hooks: Vec<&[u8]> = conf.hook_dirs().collect();
        assert_eq!(
            hooks,
            [&b"/usr/share/libalpm/hooks/"[..], b"/h/one", b"/h/two/"]
        );
    }

    #[test]
    fn what_is_not_said_is_where_pacman_has_it() {
        for text in ["", "[options]\n", "[options]\nDBPath\n", "# DBPath = /x\n"] {
            assert_eq!(db_path(text), "default", "{text}");
        }
        let conf = parse("");
        assert_eq!(conf.cache_dirs().count(), 0);
        assert_eq!(conf.hook_dirs().last().unwrap(), b"/etc/pacman.d/hooks/");
        assert_eq!(db_path("[options]\nRootDir = /r\n"), "/r/var/lib/pacman/");
        assert_eq!(db_path("[options]\nRootDir = /r/\nDBPath = /d\n"), "/d");
    }

    #[test]
    fn only_the_section_of_options_counts_and_only_as_it_is_spelt() {
        assert_eq!(
            db_path("[core]\nDBPath = /no\n[options]\ndbpath = /lower\nDBPath = relative/db\n"),
            "relative/db"
        );
        assert_eq!(db_path("DBPath = /no\n[core]\nDBPath = /no\n"), "default");
        // A comment is a line.
        assert_eq!(
            db_path("[options]\n   DBPath   =   /x y  # said\n"),
            "/x y  # said"
        );
    }

    #[test]
    fn an_included_file_takes_its_place_and_its_section_goes_on() {
        let mut asked = Vec::new();
        let conf = PacmanConf::parse(
            b"[options]\nInclude = /etc/i*.conf\nDBPath = /late\n",
            &mut |pattern| {
                asked.push(String::from_utf8_lossy(pattern).to_string());
                std::vec![
                    b"CacheDir = /k".to_vec(),
                    b"[core]\nServer = file:///x\n".to_vec()
                ]
            },
        );
        assert_eq!(asked, ["/etc/i*.conf"]);
        assert_eq!(conf.cache_dirs().next().unwrap(), b"/k");
        // Now in [core].
        assert_eq!(conf.db_path(), None);
    }

    #[test]
    fn files_that_include_themselves_come_to_an_end() {
        let text = b"[options]\nInclude = /etc/pacman.conf\nCacheDir = /c\n";
        let mut asked = 0;
        let conf = PacmanConf::parse(text, &mut |_| {
            asked += 1;
            std::vec![text.to_vec()]
        });
        assert_eq!(asked, 10);
        assert_eq!(conf.cache_dirs().count(), 11);
    }
}
