//! usr-policy
fn main() {}
