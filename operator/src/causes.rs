//! An error with its causes, in one line.

use std::error::Error;

/// The error, and each of its causes that it does not spell out by itself: the API client's errors sometimes do, and
/// sometimes only name what they were about.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl std::fmt::Display for Layer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as _)
        }
    }

    #[test]
    fn each_cause_is_said_once() {
        let root = Layer("connection refused", None);
        let spelt_out = Layer("cannot connect: connection refused", Some(Box::new(root)));
        let short = Layer("cannot list", Some(Box::new(spelt_out)));
        assert_eq!(
            causes(&short),
            "cannot list: cannot connect: connection refused"
        );
    }
}
