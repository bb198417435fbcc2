use proptest::prelude::*;

use super::*;

fn lines(frame: &[u8]) -> Result<(String, u64), DecodeError> {
    let mut points = Points::default();
    decode(frame, &mut points)?;
    let mut out = Vec::new();
    points.lines(frame, 0, usize::MAX, &mut out);
    Ok((String::from_utf8(out).unwrap(), points.invalid()))
}

#[test]
fn a_metric_may_have_several_points_and_its_name_behind_them() {
    // Payload{metrics: [Metric{points: [{timestamp: 1, value: 1.5}, {timestamp: 2}], metric: "a.b"}]}, and a field 9
    let point = b"\x12\x0b\x08\x01\x11\0\0\0\0\0\0\xf8\x3f";
    let metric = [&point[..], b"\x12\x02\x08\x02", b"\x0a\x03a.b", b"\x48\x07"].concat();
    let frame = [b"\x0a", &[metric.len() as u8][..], &metric].concat();
    let expected = "a.b 1.5 1\na.b 0 2\n".to_owned();
    assert_eq!(lines(&frame), Ok((expected, 0)));
}

#[test]
fn a_name_that_is_not_one_is_counted() {
    let frame = b"\x0a\x09\x0a\x03a b\x12\x02\x08\x02\x0a\x04\x12\x02\x08\x02";
    assert_eq!(lines(frame), Ok((String::new(), 2)));
}

#[test]
fn what_is_not_a_payload_is_refused() {
    for (frame, expected) in [
        (&b"\x0a"[..], DecodeError::Truncated),
        (b"\x0a\x05abc", DecodeError::Truncated),
        (b"\x0b", DecodeError::Malformed),
        (
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            DecodeError::Malformed,
        ),
        // a point that ends outside of its metric
        (
            b"\x0a\x02\x12\x05\x08\x01\x08\x01\x08",
            DecodeError::Truncated,
        ),
    ] {
        assert_eq!(lines(frame), Err(expected), "{}", frame.escape_ascii());
    }
}

proptest! {
    #[test]
    fn whatever_it_is_it_is_read_or_refused(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(lines(&frame));
    }

    #[test]
    fn what_is_written_is_read(points in proptest::collection::vec(("[a-z.;=]{1,40}", any::<i32>(), any::<u32>()), 1..20)) {
        let text: String = points
            .iter()
            .map(|(name, value, timestamp)| format!("{name} {value} {timestamp}\n"))
            .collect();
        let (mut rest, mut found) = (text.as_bytes(), String::new());
        while !rest.is_empty() {
            let mut frame = Vec::new();
            rest = &rest[encode(rest, &mut frame)..];
            prop_assert_eq!(crate::frame_bytes(&frame), Some(frame.len() - 4));
            found += &lines(&frame[4..]).unwrap().0;
        }
        prop_assert_eq!(found, text);
    }
}
