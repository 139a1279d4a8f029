//! What usr-policy decides: facts go in; a plan, unit text and verdicts come out.
//!
//! Nothing here reads, writes, logs or asks the system. The package is `no_std` so that the compiler sees to it.
//!
//! ```text
//! command line, configuration, fstab  ->  Policy  ->  Plan  ->  UnitTree      (the generator, `usr-policy plan`)
//!                                                          ->  what to mount (the initramfs stages, pre-init)
//!                                                          ->  Report        (`usr-policy verify`)
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod cmdline;
pub mod config;
pub mod difference;
pub mod explain;
pub mod fstab;
pub mod lock;
pub mod mount_index;
pub mod mount_options;
pub mod mount_point;
pub mod mountinfo;
pub mod octal;
pub mod os_release;
pub mod package_manager;
pub mod pacman_conf;
pub mod partition_table;
pub mod pattern;
pub mod plan;
pub mod policy;
pub mod pre_init;
pub mod superblock;
pub mod text;
pub mod unit;
pub mod unit_name;
pub mod verify;
