//! The checked-in CRD manifests are what the types give. `CARBONWAY_WRITE=1` (`make crds`) writes them instead.

use std::{env, fs, path::Path};

#[test]
fn manifests_are_fresh() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    for crd in crds::all() {
        let path = dir.join(format!("{}.yaml", crd.spec.names.plural));
        let made = crds::to_yaml(&crd);
        if env::var_os("CARBONWAY_WRITE").is_some() {
            fs::write(&path, &made).expect("the manifest can be written");
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == made, "{} is stale: run `make crds`", path.display());
    }
}
