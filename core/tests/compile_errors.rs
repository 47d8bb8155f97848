//! What the compiler says to a user's mistakes. The snapshots are taken with the toolchain of `rust-toolchain.toml`; to take them
//! anew: `TRYBUILD=overwrite cargo test -p etp-ws --test compile_errors`.
//!
//! No snapshot may hold a suggestion that spells out a closure's type: it underlines the path of the source file, so its length changes
//! with the folder of the clone.
#![cfg(all(feature = "net", feature = "json"))]

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/compile_errors/*.rs");
}
