//! Whatever people want to stand for a match: no panic, refused where it stands for nothing, and otherwise what a naive reader
//! of the rule makes of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_engine::{Engine, Moment, Outbox, Table, UnixSeconds};
use relay_proto::{RewriteRule, Rewriter, rewrite_rule};

#[path = "tables.rs"]
#[expect(dead_code, reason = "other targets ask for less")]
mod tables;

// Groups: 1 called dc, 2 without a name, which may be absent, 3 called x4.
const REGEX: &str = r"^(?P<dc>[a-z]+)([0-9]+)?\.(?P<x4>.*)$";

fuzz_target!(|texts: (&str, &str)| {
    let (template, rest) = texts;
    if !tables::is_plain(rest.as_bytes()) || rest.contains('\n') || rest.len() > 1000 {
        return;
    }
    let mut snapshot = tables::snapshot(&[relay_proto::Match::default()]);
    snapshot.rewriters.push(Rewriter {
        rules: vec![RewriteRule {
            name: "it".into(),
            find: Some(rewrite_rule::Find::Regex(REGEX.into())),
            with: template.into(),
            ..Default::default()
        }],
        ..Default::default()
    });
    let pieces = parse(template);
    let Ok(table) = Table::load(&snapshot) else {
        assert!(pieces.is_none() || template.len() > 200, "{template} was refused");
        return;
    };
    let Some(pieces) = pieces else { panic!("{template} was taken") };
    let name = format!("ams12.{rest}");
    let groups = [name.as_str(), "ams", "12", rest];
    let expected: String = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Group(group) => groups[*group],
        })
        .collect();
    let line = format!("{name} 1 1700000000\n");
    let mut out = Outbox::default();
    let moment = Moment { now: UnixSeconds(1), stamp: 0, is_live: &|_| true };
    let tally = Engine::new(0).process(&table, line.as_bytes(), 1 << 20, moment, &mut out);
    let mut got = Vec::new();
    out.drain(|_, lines, _| got.extend_from_slice(lines));
    if tables::is_plain(expected.as_bytes()) && expected.len() < 1000 {
        assert_eq!(tally.forwarded, 1, "{template}: {expected}");
        assert_eq!(String::from_utf8_lossy(&got), format!("{expected} 1 1700000000\n"), "{template}");
    } else if tally.forwarded == 1 {
        // A line is a line, whatever was made of its name.
        let text = String::from_utf8_lossy(&got);
        assert_eq!((text.matches('\n').count(), text.split_whitespace().count()), (1, 3), "{template}: {text:?}");
    }
});

enum Piece {
    Text(String),
    Group(usize),
}

// `None`: it is to be refused.
fn parse(template: &str) -> Option<Vec<Piece>> {
    let characters: Vec<char> = template.chars().collect();
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < characters.len() {
        let character = characters[at];
        at += 1;
        if character != '$' {
            pieces.push(Piece::Text(character.to_string()));
            continue;
        }
        let mut name = String::new();
        match characters.get(at) {
            Some('$') => {
                at += 1;
                pieces.push(Piece::Text("$".into()));
                continue;
            }
            Some('{') => {
                at += 1;
                while *characters.get(at)? != '}' {
                    name.push(characters[at]);
                    at += 1;
                }
                at += 1;
            }
            _ => {
                while let Some(next) = characters.get(at).filter(|next| next.is_ascii_alphanumeric() || **next == '_') {
                    name.push(*next);
                    at += 1;
                }
            }
        }
        pieces.push(Piece::Group(group(&name)?));
    }
    Some(pieces)
}

fn group(name: &str) -> Option<usize> {
    match name {
        "dc" => Some(1),
        "x4" => Some(3),
        "" => None,
        _ if name.bytes().all(|byte| byte.is_ascii_digit()) => name.parse().ok().filter(|group| *group <= 3),
        _ => None,
    }
}
