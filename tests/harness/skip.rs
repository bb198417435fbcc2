//! Tests whose prerequisites are not on every machine.

use std::env;
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::process::profile_directory;

/// Says that a test cannot run here, and why; the caller then returns. It goes past the test runner's capture, so that
/// nobody takes the test for one that ran.
///
/// # Panics
/// When CARBONWAY_REQUIRE_ALL=1 says that this machine has everything.
pub fn skip(why: &str) {
    assert!(
        env::var_os("CARBONWAY_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "CARBONWAY_REQUIRE_ALL=1, and yet: {why}"
    );
    writeln!(io::stderr(), "SKIPPED: {why}").expect("standard error can be written");
}

/// A program of Graphite's own, from the Python environment that `make tools` builds: $CARBONWAY_TOOLS, or
/// target/tools/venv.
///
/// # Errors
/// If it is not there, in words for [`skip`].
pub fn tools(program: &str) -> Result<PathBuf, String> {
    let environment = env::var_os("CARBONWAY_TOOLS")
        .map_or_else(|| profile_directory().join("../tools/venv"), PathBuf::from);
    let path = environment.join("bin").join(program);
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("{} is not there: run `make tools`", path.display()))
    }
}
