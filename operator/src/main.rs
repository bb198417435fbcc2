//! `carbonway-operator`: see the library.

fn main() {}
