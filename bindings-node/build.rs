//! What a Node addon is linked with on each platform.

fn main() {
    napi_build::setup();
}
