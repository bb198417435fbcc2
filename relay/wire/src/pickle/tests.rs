use std::process::Command;

use proptest::prelude::*;

use super::*;

fn lines(frame: &[u8]) -> Result<(String, u64), DecodeError> {
    let mut points = Points::default();
    Decoder::default().decode(frame, &mut points)?;
    let mut out = Vec::new();
    assert_eq!(points.lines(frame, 0, usize::MAX, &mut out), points.len());
    Ok((String::from_utf8(out).unwrap(), points.invalid()))
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

// [("a.b.c", (1700000000, 1.5)), ("a.b.c", (1700000001, 2))], as Python 3 writes it.
const PROTOCOLS: [&[u8]; 6] = [
    b"(lp0\n(Va.b.c\np1\n(I1700000000\nF1.5\ntp2\ntp3\na(g1\n(I1700000001\nI2\ntp4\ntp5\na.",
    b"]q\0((X\x05\0\0\0a.b.cq\x01(J\0\xf1SeG?\xf8\0\0\0\0\0\0tq\x02tq\x03(h\x01(J\x01\xf1SeK\x02tq\x04tq\x05e.",
    b"\x80\x02]q\0(X\x05\0\0\0a.b.cq\x01J\0\xf1SeG?\xf8\0\0\0\0\0\0\x86q\x02\x86q\x03h\x01J\x01\xf1SeK\x02\x86q\x04\x86q\x05e.",
    b"\x80\x03]q\0(X\x05\0\0\0a.b.cq\x01J\0\xf1SeG?\xf8\0\0\0\0\0\0\x86q\x02\x86q\x03h\x01J\x01\xf1SeK\x02\x86q\x04\x86q\x05e.",
    b"\x80\x04\x95,\0\0\0\0\0\0\0]\x94(\x8c\x05a.b.c\x94J\0\xf1SeG?\xf8\0\0\0\0\0\0\x86\x94\x86\x94h\x01J\x01\xf1SeK\x02\x86\x94\x86\x94e.",
    b"\x80\x05\x95,\0\0\0\0\0\0\0]\x94(\x8c\x05a.b.c\x94J\0\xf1SeG?\xf8\0\0\0\0\0\0\x86\x94\x86\x94h\x01J\x01\xf1SeK\x02\x86\x94\x86\x94e.",
];

#[test]
fn every_protocol_is_read() {
    let expected = "a.b.c 1.5 1700000000\na.b.c 2 1700000001\n".to_owned();
    for (protocol, pickle) in PROTOCOLS.into_iter().enumerate() {
        assert_eq!(lines(pickle), Ok((expected.clone(), 0)), "{protocol}");
    }
}

#[test]
fn what_carbon_relay_ng_writes_is_read() {
    let pickle = "800228 5505612e622e63 4a00f15365 473ff8000000000000 8686 6c2e";
    let expected = "a.b.c 1.5 1700000000\n".to_owned();
    assert_eq!(lines(&hex(pickle)), Ok((expected, 0)));
}

#[test]
fn what_is_not_a_point_is_counted_and_the_others_are_taken() {
    // [("a", (1, 2)), ("b", (1,)), 3, ("c d", (1, 2)), (b"e", ["1", "2.50"]), ("f", (1, None)), ("g\n", (1, 2))]
    let pickle = b"\x80\x03]q\0(X\x01\0\0\0aq\x01K\x01K\x02\x86q\x02\x86q\x03X\x01\0\0\0bq\x04K\x01\x85q\x05\x86q\x06K\x03\
        X\x03\0\0\0c dq\x07h\x02\x86q\x08C\x01eq\t]q\n(X\x01\0\0\x001q\x0bX\x04\0\0\x002.50q\x0ce\x86q\rX\x01\0\0\0fq\x0eK\x01N\
        \x86q\x0f\x86q\x10X\x02\0\0\0g\nq\x11h\x02\x86q\x12e.";
    let (lines, invalid) = lines(pickle).unwrap();
    assert_eq!(lines, "a 2 1\ne 2.50 1\n");
    assert_eq!(invalid, 5);
}

#[test]
fn numbers_keep_their_precision() {
    let point = |number: &[u8]| [b"\x80\x02](U\x01aK\x01", number, b"\x86\x86e."].concat();
    for (number, expected) in [
        (&b"G?\xb9\x99\x99\x99\x99\x99\x9a"[..], "0.1"),
        (b"G\x3e\x11\x2e\x0b\xe8\x26\xd6\x95", "1e-9"),
        (b"G\x7e\x37\xe4\x3c\x88\x00\x75\x9c", "1e+300"),
        (b"G\xc0\x5e\xdd\x2f\x1a\x9f\xbe\x77", "-123.456"),
        (b"G@(\0\0\0\0\0\0", "12"),
        (b"G\x7f\xf8\0\0\0\0\0\0", "NaN"),
        (b"J\xff\xff\xff\xff", "-1"),
        (b"M\xff\xff", "65535"),
        (
            b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
            "9223372036854775807",
        ),
        (b"\x8a\x09\0\0\0\0\0\0\0\0\x01", "18446744073709551616"),
        (b"\x8a\x00", "0"),
        (b"\x8a\x01\xff", "-1"),
        (b"L12345678901234567890L\n", "12345678901234567890"),
        (b"F1.25e-7\n", "1.25e-7"),
        (b"U\x043.10", "3.10"),
    ] {
        let expected = format!("a {expected} 1\n");
        assert_eq!(
            lines(&point(number)),
            Ok((expected, 0)),
            "{}",
            number.escape_ascii()
        );
    }
}

#[test]
fn timestamps_are_whole_seconds() {
    let point = |number: &[u8]| [b"\x80\x02](U\x01a", number, b"K\x01\x86\x86e."].concat();
    for (number, expected) in [
        (&b"GA\xd9T\xfc@0\0\0"[..], "1700000000"),
        (b"I-1\n", "-1"),
        (b"G\xbf\xf0\0\0\0\0\0\0", "-1"),
        (b"U\x0a1700000000", "1700000000"),
        (b"\x8a\x05\0\0\0\0\x01", "4294967296"),
    ] {
        let expected = format!("a 1 {expected}\n");
        assert_eq!(
            lines(&point(number)),
            Ok((expected, 0)),
            "{}",
            number.escape_ascii()
        );
    }
}

#[test]
fn what_is_not_a_pickle_of_points_is_refused() {
    let forbidden = |operation| Err(DecodeError::Forbidden(operation));
    let malformed = |operation| Err(DecodeError::Malformed(operation));
    for (pickle, expected) in [
        (&b""[..], Err(DecodeError::Truncated)),
        (b"]", Err(DecodeError::Truncated)),
        (b"].x", Err(DecodeError::TrailingBytes)),
        (b"K\x01.", Err(DecodeError::NotAList)),
        (b".", malformed(b'.')),
        (b"e.", malformed(b'e')),
        (b"(e.", malformed(b'e')),
        (b"K\x01(\x86.", malformed(0x86)),
        (b"h\x07.", malformed(b'h')),
        (b"]p99999999\n.", malformed(b'p')),
        (b"]p-1\n.", malformed(b'p')),
        (b"X\xff\xff\xff\xff.", Err(DecodeError::Truncated)),
        (
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
            Err(DecodeError::Truncated),
        ),
        (b"S1\n.", malformed(b'S')),
        // what would run os.system
        (b"cos\nsystem\n(S'id'\ntR.", forbidden(b'c')),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", forbidden(0x93)),
        (b"}.", forbidden(b'}')),
        (b"\x82\x01.", forbidden(0x82)),
        (b"servers.web1 1 2\n", forbidden(b's')),
    ] {
        let refused = lines(pickle).map(drop);
        assert_eq!(refused, expected, "{}", pickle.escape_ascii());
    }
}

#[test]
fn a_pickle_that_makes_far_more_than_it_is_long_is_refused() {
    let mut lists = vec![b']'; 1 << 20];
    lists.push(b'.');
    assert_eq!(lines(&lists), Err(DecodeError::TooMany));
    // a list that contains itself is a list of something that is no point
    assert_eq!(lines(b"]q\0h\0a."), Ok((String::new(), 1)));
}

#[test]
fn lines_come_in_blocks() {
    let mut frame = Vec::new();
    let text: String = (0..100).map(|i| format!("a{i} {i} 1700000000\n")).collect();
    assert_eq!(encode(text.as_bytes(), &mut frame), text.len());
    let (mut points, mut blocks, mut next) = (Points::default(), Vec::new(), 0);
    let frame = &frame[crate::FRAME_HEADER_BYTES..];
    Decoder::default().decode(frame, &mut points).unwrap();
    while next < points.len() {
        let mut block = Vec::new();
        next = points.lines(frame, next, 100, &mut block);
        assert!(
            (100..130).contains(&block.len()) || next == 100,
            "{}",
            block.len()
        );
        blocks.extend(block);
    }
    assert_eq!(blocks, text.as_bytes());
}

#[test]
fn frames_are_bounded_and_together_they_have_every_line() {
    let long = "n".repeat(65_000);
    let text: String = (0..1200)
        .map(|i| match i < 20 {
            true => format!("{long}{i} {i} 1700000000\n"),
            false => format!("a{i} {i}.5 1700000000\n"),
        })
        .collect();
    let (mut rest, mut found, mut frames) = (text.as_bytes(), String::new(), 0);
    while !rest.is_empty() {
        let mut frame = Vec::new();
        rest = &rest[encode(rest, &mut frame)..];
        assert_eq!(crate::frame_bytes(&frame), Some(frame.len() - 4));
        assert!(frame.len() < 1 << 20);
        found += &lines(&frame[4..]).unwrap().0;
        frames += 1;
    }
    assert_eq!(found, text);
    assert!(frames > 4, "{frames}");
}

// What Python makes of our pickles, and we of its own.
#[test]
fn python_agrees() {
    let text = "a.b;dc=ams 1.5 1700000000\nb -7 4294967295\nc 1e300 0\nd 123456789012345 1\n";
    let mut frame = Vec::new();
    encode(text.as_bytes(), &mut frame);
    let program = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])))";
    let pickle: String = frame[4..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let Ok(answer) = Command::new("python3")
        .args(["-c", program, &pickle])
        .output()
    else {
        assert!(
            std::env::var_os("CARBONWAY_REQUIRE_ALL").is_none(),
            "there is no python3"
        );
        return println!("SKIPPED: there is no python3");
    };
    let expected = "[('a.b;dc=ams', (1700000000, 1.5)), ('b', (4294967295, -7)), ('c', (0, 1e+300)), ('d', (1, 123456789012345))]\n";
    assert_eq!(String::from_utf8_lossy(&answer.stdout), expected);
}

proptest! {
    #[test]
    fn whatever_it_is_it_is_read_or_refused(pickle in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(lines(&pickle));
    }

    #[test]
    fn what_is_written_is_read(points in proptest::collection::vec(("[a-z.;=]{1,40}", any::<f64>(), any::<u32>()), 1..20)) {
        let text: String = points
            .iter()
            .map(|(name, value, timestamp)| format!("{name} {} {timestamp}\n", zmij::Buffer::new().format(*value)))
            .collect();
        let mut frame = Vec::new();
        prop_assert_eq!(encode(text.as_bytes(), &mut frame), text.len());
        let (found, invalid) = lines(&frame[4..]).unwrap();
        prop_assert_eq!(invalid, 0);
        for (line, (name, value, timestamp)) in found.lines().zip(&points) {
            let mut fields = line.split(' ');
            prop_assert_eq!(fields.next(), Some(&**name));
            let read: f64 = fields.next().unwrap().parse().unwrap();
            prop_assert!(read == *value || read.is_nan() && value.is_nan(), "{} {}", read, value);
            prop_assert_eq!(fields.next(), Some(&*timestamp.to_string()));
        }
        prop_assert_eq!(found.lines().count(), points.len());
    }
}
