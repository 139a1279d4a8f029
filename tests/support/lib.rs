//! What several test programs share.

pub mod golden;
pub mod machine;
pub mod privilege;
pub mod product;
pub mod system;
