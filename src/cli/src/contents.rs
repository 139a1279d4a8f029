//! Whether two files are the same, without both in memory: the boot program is large, and a verdict shall be quick.

use std::fs::File;
use std::io::{self, Read};

use rustix::fs::OFlags;
use usr_policy_system::root::Root;

/// Bytes that are compared at once.
const BLOCK: usize = 32 << 10;

/// Whether two files of a root have the same bytes; `None` where either is missing or cannot be read.
pub(crate) fn are_same(root: &Root, paths: [&str; 2]) -> Option<bool> {
    // Without O_NONBLOCK a pipe in place of a file would hold the verdict.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let [a, b] = paths.map(|path| root.open_at(path, flags).ok().map(File::from));
    compare(&a?, &b?).ok()
}

fn compare(a: &File, b: &File) -> io::Result<bool> {
    let (of_a, of_b) = (a.metadata()?, b.metadata()?);
    if !of_a.is_file() || !of_b.is_file() || of_a.len() != of_b.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (Vec::with_capacity(BLOCK), Vec::with_capacity(BLOCK));
    loop {
        left.clear();
        right.clear();
        a.take(BLOCK as u64).read_to_end(&mut left)?;
        b.take(BLOCK as u64).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, are_same};
    use usr_policy_system::root::Root;

    #[test]
    fn files_are_the_same_where_every_byte_is() {
        let dir = std::env::temp_dir().join(format!("usr-policy-contents-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let text = vec![b'x'; 3 * BLOCK];
        let mut changed = text.clone();
        changed[2 * BLOCK] = b'y';
        for (name, bytes) in [
            ("a", &text[..]),
            ("b", &text[..]),
            ("changed", &changed[..]),
            ("short", &text[1..]),
            ("empty", &[]),
        ] {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
        let root = Root::open(dir.to_str().unwrap()).unwrap();
        let same = |a, b| are_same(&root, [a, b]);
        assert_eq!(same("/a", "/b"), Some(true));
        assert_eq!(same("/empty", "/empty"), Some(true));
        for other in ["/changed", "/short", "/empty", "/"] {
            assert_eq!(same("/a", other), Some(false), "{other}");
        }
        assert_eq!(same("/a", "/missing"), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
