//! usr-policy-generator
fn main() {}
