//! What touches the machine, for the boot program and for `usr-policy`: reading facts, writing units, mounting, logging.
//!
//! Nothing here decides what should be; that is `usr-policy-plan`'s.

pub mod block;
pub mod container;
pub mod covered;
pub mod database;
pub mod drop_ins;
pub mod events;
pub mod facts;
pub mod failure;
pub mod fsck;
pub mod kmsg;
pub mod mount;
mod mount_setattr;
pub mod pacman;
pub mod processes;
pub mod root;
pub mod seen;
pub mod state;
pub mod unit_dir;
pub mod wakers;
pub mod writers;
