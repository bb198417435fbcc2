//! The checked-in bindings are what `snapshot.proto` gives. `CARBONWAY_WRITE=1` (`make proto`) writes them instead.

use std::{env, fs, path::Path};

#[test]
fn bindings_are_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a temporary directory");
    let descriptors =
        protox::compile([root.join("snapshot.proto")], [root]).expect("snapshot.proto compiles");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".carbonway.v1.Part.data")
        .skip_debug([".carbonway.v1.Credential", ".carbonway.v1.Identity"])
        .server_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .client_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .compile_fds(descriptors)
        .expect("bindings are generated");
    let made = fs::read_to_string(out.path().join("carbonway.v1.rs")).expect("bindings are there");
    let kept = root.join("src/gen/carbonway.v1.rs");
    if env::var_os("CARBONWAY_WRITE").is_some() {
        fs::write(&kept, &made).expect("bindings can be written");
    }
    let kept = fs::read_to_string(&kept).expect("bindings are checked in");
    assert!(
        kept == made,
        "relay/proto/src/gen is stale: run `make proto`"
    );
}
