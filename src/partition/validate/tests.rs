use super::*;

#[test]
fn tmp() {}
