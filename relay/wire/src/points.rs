//! Points that were found in a frame, and lines that are made of them.

/// Points of one frame, in its order. They refer to the frame: what takes it must be given the same one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    points: Vec<Point>,
    // Text that does not stand in the frame as it is.
    text: Vec<u8>,
    invalid: u64,
    last_invalid: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) name: Text,
    pub(crate) timestamp: Number,
    pub(crate) value: Number,
}

/// Where a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Frame(Span),
    Own(Span),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

/// A number, or a text that is to be one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
    Text(Text),
}

impl Span {
    /// Frames are shorter than 4 GiB, for that is what their length can say.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        let place = |place| u32::try_from(place).unwrap_or(u32::MAX);
        Self {
            start: place(start),
            end: place(end),
        }
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

impl Points {
    /// Forgets them, and keeps their memory for others.
    pub fn clear(&mut self) {
        self.points.clear();
        self.text.clear();
        self.invalid = 0;
        self.last_invalid.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// How many things in the frame were not a name with a timestamp and a value.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// The name of the last of those, as far as it had one.
    pub fn last_invalid(&self) -> &[u8] {
        &self.last_invalid
    }

    /// Appends lines for the points from the `from`th on to `out`, until it has `bytes_max` bytes or a little more. Returns
    /// which point is the next.
    pub fn lines(&self, frame: &[u8], from: usize, bytes_max: usize, out: &mut Vec<u8>) -> usize {
        let mut next = from;
        for point in self.points.iter().skip(from) {
            if out.len() >= bytes_max {
                break;
            }
            out.extend_from_slice(self.text(point.name, frame));
            out.push(b' ');
            self.value(point.value, frame, out);
            out.push(b' ');
            self.timestamp(point.timestamp, frame, out);
            out.push(b'\n');
            next += 1;
        }
        next
    }

    pub(crate) fn push(&mut self, point: Point, frame: &[u8]) {
        let is_plain = |text| is_plain(self.text(text, frame));
        let is_plain_number = |number| match number {
            Number::Text(text) => is_plain(text),
            Number::Int(_) | Number::Float(_) => true,
        };
        match is_plain(point.name)
            && is_plain_number(point.value)
            && is_plain_number(point.timestamp)
        {
            true => self.points.push(point),
            false => self.push_invalid(Some(point.name), frame),
        }
    }

    pub(crate) fn push_invalid(&mut self, name: Option<Text>, frame: &[u8]) {
        self.invalid += 1;
        let name = name.map(|name| self.text(name, frame).to_vec());
        self.last_invalid = name.unwrap_or_default();
    }

    /// Keeps a text that does not stand in the frame.
    pub(crate) fn keep(&mut self, text: impl IntoIterator<Item = u8>) -> Text {
        let start = self.text.len();
        self.text.extend(text);
        Text::Own(Span::new(start, self.text.len()))
    }

    pub(crate) fn text<'a>(&'a self, text: Text, frame: &'a [u8]) -> &'a [u8] {
        match text {
            Text::Frame(span) => span.of(frame),
            Text::Own(span) => span.of(&self.text),
        }
    }

    // The shortest text that is read as the same number.
    fn value(&self, number: Number, frame: &[u8], out: &mut Vec<u8>) {
        match number {
            Number::Int(int) => write_int(int, out),
            Number::Float(float) => match whole(float) {
                Some(int) if int as f64 == float => write_int(int, out),
                _ => out.extend_from_slice(zmij::Buffer::new().format(float).as_bytes()),
            },
            Number::Text(text) => out.extend_from_slice(self.text(text, frame)),
        }
    }

    // Whole seconds, as carbon keeps them.
    fn timestamp(&self, number: Number, frame: &[u8], out: &mut Vec<u8>) {
        let seconds = match number {
            Number::Float(float) => whole(float),
            Number::Int(_) | Number::Text(_) => None,
        };
        match seconds {
            Some(seconds) => write_int(seconds, out),
            None => self.value(number, frame, out),
        }
    }
}

fn write_int(int: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(int).as_bytes());
}

// The number without its fraction, if a double holds every whole number of that size.
fn whole(float: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (float.abs() < EXACT).then_some(float as i64)
}

// Whether a text can stand in a line: it is not empty, and nothing in it separates fields or lines.
fn is_plain(text: &[u8]) -> bool {
    let separates = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
    let separators = text.iter().filter(|byte| separates(byte)).count();
    separators == 0 && !text.is_empty()
}
