//! What the compiler says to a user's mistakes. The snapshots are taken with the toolchain of `rust-toolchain.toml`; to take them
//! anew: `TRYBUILD=overwrite cargo test -p etp-ws --test compile_errors`.
#![cfg(all(feature = "net", feature = "json"))]

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/compile_errors/*.rs");
}
