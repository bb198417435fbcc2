use relay_wire::Points;

pub fn check(frame: &[u8], points: &Points) {
    // Names may stand in a frame once and be there many times.
    const BYTES_MAX: usize = 1 << 20;
    let mut out = Vec::new();
    let next = points.lines(frame, 0, BYTES_MAX, &mut out);
    assert!(next == points.len() || out.len() >= BYTES_MAX);
    let lines = out.split_inclusive(|byte| *byte == b'\n');
    let mut count = 0;
    for line in lines {
        let is_whitespace = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
        let fields: Vec<_> = line[..line.len() - 1].split(is_whitespace).collect();
        assert!(fields.len() == 3 && fields.iter().all(|field| !field.is_empty()), "{}", line.escape_ascii());
        count += 1;
    }
    assert_eq!(count, next);
}
