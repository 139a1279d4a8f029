//! Throw-away Debian machines: a tree of a suite, a disk and an initramfs made from it, and QEMU to boot them.
//!
//! Nothing here knows what is tested. Everything that is made is kept below one directory under a name that is a
//! hash of what went into it ([`Cache`]), so the same machine is made once and boots many times.

pub mod base;
pub mod boot;
pub mod cache;
pub mod command;
pub mod disk;
pub mod error;
pub mod firmware;
pub mod image;
pub mod initramfs;
pub mod key;
pub mod layout;
pub mod namespace;
pub mod neighbour;
pub mod qemu;
pub mod repository;
pub mod suite;
pub mod tree;
pub mod uml;

pub use boot::Boot;
pub use cache::Cache;
pub use error::{At, Error, Result};
pub use firmware::{Entry, Firmware};
pub use image::{Image, Made};
pub use initramfs::Initramfs;
pub use layout::{Access, Format, Layout, Part, Subvolume};
pub use neighbour::{Server, Share};
pub use qemu::{Ended, Qemu};
pub use suite::Suite;
pub use tree::{Contents, Extra, Product};
