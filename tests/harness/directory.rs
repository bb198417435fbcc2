//! A directory of resources, as `carbonway run` and `carbonway check` take it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory of resource files, removed when dropped.
#[derive(Debug)]
pub struct Directory(TempDir);

impl Directory {
    /// A directory with one file, resources.yaml, that holds `objects`.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn of<const N: usize>(objects: [String; N]) -> Self {
        let directory = Self(TempDir::new().expect("a temporary directory can be made"));
        directory.write("resources.yaml", &objects.join("---\n"));
        directory
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file, or replaces it at once: nobody sees half of it.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        let draft = self.file(&format!(".{}.draft", name.replace('/', "-")));
        fs::write(&draft, text).expect("a draft can be written");
        fs::rename(&draft, self.file(name)).expect("a draft can take its place");
    }

    /// Removes a file.
    ///
    /// # Panics
    /// If it is not there.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).expect("a file can be removed");
    }
}

/// One object in YAML. `spec` is the inside of a flow mapping: `port: 2003, name: a`.
pub fn object(kind: &str, name: &str, spec: &str) -> String {
    let api = "apiVersion: carbonway.io/v1alpha1";
    format!("{api}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

/// The Relay that everything attaches to, with one listener: plaintext, on port 2003. `listener` and `spec` say more about
/// the two; they are empty, or end with a comma.
pub fn relay(listener: &str, spec: &str) -> String {
    let plaintext = if listener.contains("plaintext:") {
        ""
    } else {
        ", plaintext: {}"
    };
    let listener = format!("{{{listener} name: plain, port: 2003{plaintext}}}");
    let relay = object("Relay", "edge", &format!("{spec} listeners: [{listener}]"));
    relay.replace(
        "{name: edge}",
        "{name: edge, labels: {carbonway.io/default: \"true\"}}",
    )
}

/// A Destination that is a carbon server. `spec` says more about it; it is empty, or ends with a comma.
pub fn carbon(name: &str, address: SocketAddr, spec: &str) -> String {
    destination(name, &format!("{spec} carbon: {{address: \"{address}\"}}"))
}

/// A Destination that is a file.
pub fn file(name: &str, path: &Path) -> String {
    destination(name, &format!("file: {{path: {}}}", path.display()))
}

/// A Destination.
pub fn destination(name: &str, spec: &str) -> String {
    object("Destination", name, spec)
}

/// A Route.
pub fn route(name: &str, spec: &str) -> String {
    object("Route", name, spec)
}

/// A Blocklist with these entries.
pub fn blocklist(name: &str, entries: &str) -> String {
    object("Blocklist", name, &format!("entries: [{entries}]"))
}

/// A Rewriter with these rules.
pub fn rewriter(name: &str, rules: &str) -> String {
    object("Rewriter", name, &format!("rules: [{rules}]"))
}

/// An Aggregator.
pub fn aggregator(name: &str, spec: &str) -> String {
    object("Aggregator", name, spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_what_a_user_would_write() {
        let expected = "apiVersion: carbonway.io/v1alpha1\n\
            kind: Route\n\
            metadata: {name: web}\n\
            spec: {match: {prefix: web.}, destinations: [{name: a}]}\n";
        assert_eq!(
            route("web", "match: {prefix: web.}, destinations: [{name: a}]"),
            expected
        );
    }

    #[test]
    fn the_relay_is_the_default_one() {
        let expected = "apiVersion: carbonway.io/v1alpha1\n\
            kind: Relay\n\
            metadata: {name: edge, labels: {carbonway.io/default: \"true\"}}\n\
            spec: {drain: {timeout: 2s}, listeners: [{plaintext: {idleTimeout: 1s}, name: plain, port: 2003}]}\n";
        assert_eq!(
            relay("plaintext: {idleTimeout: 1s},", "drain: {timeout: 2s},"),
            expected
        );
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let directory = Directory::of([]);
        directory.write("routes.yaml", "one");
        directory.write("routes.yaml", "two");
        assert_eq!(
            fs::read_to_string(directory.file("routes.yaml")).unwrap(),
            "two"
        );
        directory.remove("routes.yaml");
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
