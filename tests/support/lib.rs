//! What several test programs share.

pub mod cost;
pub mod golden;
pub mod machine;
pub mod prepare;
pub mod privilege;
pub mod product;
pub mod system;
pub mod trials;
pub mod verdict;
