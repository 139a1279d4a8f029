//! A boot that is a test: an image, words, steps and a judge.

use usr_policy_tests::machine::{
    Contents, Extra, Image, Initramfs, Layout, Product, Result, Suite,
};

use crate::guest;
use crate::observed::Observed;
use crate::verdict::Verdict;

/// Something that is done in the guest when the boot has been looked at: a script for sh. What it says and how it ends
/// comes back as `step-NAME`, and so do an append-open and the mounts right after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Short, unique in the case, of letters and dashes.
    pub name: &'static str,
    /// The script; it starts in /run/witness.
    pub script: &'static str,
}

/// What a case is judged by: the boot, its twin where it has one. Every complaint is a line; none is a test passed.
pub type Judge = fn(&Observed, Option<&Observed>) -> Vec<String>;

/// A boot with a name.
pub struct Case {
    /// A promise to a user, with dashes.
    pub name: &'static str,
    /// What the machine starts from. Cases that share an image share its disk: it forgets what is written to it.
    pub image: Image,
    /// More words on the kernel command line.
    pub words: &'static str,
    /// What is done in the guest when the boot has been looked at.
    pub steps: Vec<Step>,
    /// The case with the same image and the same steps where the policy is off: what it logs is nobody's fault here.
    pub twin: Option<&'static str>,
    /// What `usr-policy verify` says before any step.
    pub verdict: Verdict,
    /// Who decides.
    pub judge: Judge,
}

impl Case {
    /// The same case with another verdict of `usr-policy verify`.
    pub fn says(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }
}

/// Nothing but the suite.
pub fn plain() -> Contents {
    Contents {
        product: Product::Nothing,
        removed: Vec::new(),
        extras: Vec::new(),
    }
}

/// The product as `make install` leaves it, less some of its paths.
pub fn installed(without: &[&str]) -> Contents {
    Contents {
        product: Product::Stage {
            without: without.iter().map(|path| (*path).to_owned()).collect(),
        },
        ..plain()
    }
}

/// The same contents with more in them.
pub fn with(mut contents: Contents, extras: impl IntoIterator<Item = Extra>) -> Contents {
    contents.extras.extend(extras);
    contents
}

/// An image whose initramfs dracut makes in the very tree that is booted.
///
/// # Errors
/// The witness cannot be prepared.
pub fn dracut(name: &str, suite: Suite, contents: &Contents) -> Result<Image> {
    half_dracut(name, suite, contents, contents)
}

/// An image whose initramfs dracut has made in another tree than the one that is booted: half an installation, or an
/// image that is older than the system.
///
/// # Errors
/// The witness cannot be prepared.
pub fn half_dracut(
    name: &str,
    suite: Suite,
    root: &Contents,
    initramfs_tree: &Contents,
) -> Result<Image> {
    Ok(Image {
        name: name.to_owned(),
        suite,
        root: root.clone(),
        root_extras: guest::root()?,
        layout: Layout::whole(),
        share: None,
        initramfs: Initramfs::Dracut,
        initramfs_tree: initramfs_tree.clone(),
        initramfs_extras: guest::initrd()?,
    })
}
