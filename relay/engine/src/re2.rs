//! RE2's syntax, as Go's `regexp` has it, read into the syntax tree of the `regex` crates.
//!
//! Their own parser reads another language: it refuses texts that RE2 takes (`a{,2}`, `\Q`, `[[]`), and takes texts for
//! something else (`[a&&b]`, `\<`, `(?x)`). So it never sees a pattern.
//!
//! What a pattern means, it means for code points; a byte that is not UTF-8 counts as U+FFFD. Most names are ASCII, and for
//! them there is no need to know of any other code point: [`Alphabet`] makes two trees of one pattern. Both give the same
//! answers for a text of ASCII.
//!
//! RE2 takes more than this in one place: groups may be nested deeper there. It takes less in another: `\p{…}` knows short
//! names of scripts here.

mod class;

use std::fmt;

use regex_syntax::hir::{Capture, Class, ClassUnicode, Hir, Look, Repetition};

/// How often one thing may be repeated, and with all repetitions around it: RE2's own limit.
const REPEAT_MAX: u32 = 1000;

/// How deep a tree may be: what compiles it is recursive.
const DEPTH_MAX: u32 = 250;

/// What the texts consist of that a tree is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alphabet {
    /// Nothing but ASCII.
    Ascii,
    /// UTF-8.
    Unicode,
}

/// A pattern that was read.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) hir: Hir,
    /// The names of the groups, from group 1.
    pub(crate) names: Vec<Option<Box<str>>>,
}

/// Why a text is no pattern: what, where, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    what: String,
    /// In characters, from 1.
    position: usize,
    remedy: &'static str,
}

/// Reads `pattern` for texts of `alphabet`. Whether it is valid does not depend on `alphabet`.
///
/// # Errors
/// RE2 would not take it either, or see the head of this module.
pub(crate) fn parse(pattern: &str, alphabet: Alphabet) -> Result<Parsed, Invalid> {
    let mut parser = Parser {
        alphabet,
        input: Input { pattern, at: 0 },
        flags: Flags::default(),
        names: Vec::new(),
        outer: Vec::new(),
        group: Group::default(),
        has_repeated: false,
    };
    parser.run()
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            position,
            remedy,
        } = self;
        write!(f, "{what} at character {position}: {remedy}")
    }
}

struct Parser<'p> {
    alphabet: Alphabet,
    input: Input<'p>,
    flags: Flags,
    names: Vec<Option<Box<str>>>,
    // The groups that are open around `group`.
    outer: Vec<Group>,
    group: Group,
    // Whether a repetition is what was read last.
    has_repeated: bool,
}

/// The text, and how far it was read.
#[derive(Clone, Copy)]
struct Input<'p> {
    pattern: &'p str,
    at: usize,
}

#[derive(Clone, Copy, Default)]
struct Flags {
    folds_case: bool,
    is_multi_line: bool,
    dot_takes_newline: bool,
    is_lazy: bool,
}

// A group that is not closed yet; the outermost is the whole pattern.
#[derive(Default)]
struct Group {
    at: usize,
    capture: Option<u32>,
    // To be restored.
    flags: Flags,
    // Those before the last `|`.
    alternatives: Vec<Item>,
    items: Vec<Item>,
}

struct Item {
    hir: Hir,
    depth: u32,
    // How many copies of something in it its repetitions make.
    copies: u32,
}

impl Parser<'_> {
    fn run(&mut self) -> Result<Parsed, Invalid> {
        while let Some(next) = self.input.peek() {
            let has_repeated = std::mem::take(&mut self.has_repeated);
            let begin = self.input;
            self.input.bump();
            match next {
                '(' => self.open(begin)?,
                ')' => self.close(begin)?,
                '|' => self.group.end_alternative(),
                '^' if self.flags.is_multi_line => self.push(Hir::look(Look::StartLF)),
                '^' => self.push(Hir::look(Look::Start)),
                '$' if self.flags.is_multi_line => self.push(Hir::look(Look::EndLF)),
                '$' => self.push(Hir::look(Look::End)),
                '.' => self.push_class(class::dot(self.flags.dot_takes_newline)),
                '[' => {
                    let class = class::bracketed(&mut self.input, begin, self.flags.folds_case)?;
                    self.push_class(class);
                }
                '*' => self.repeat(begin, has_repeated, 0, None)?,
                '+' => self.repeat(begin, has_repeated, 1, None)?,
                '?' => self.repeat(begin, has_repeated, 0, Some(1))?,
                '{' => match self.input.counts() {
                    Some((min, max)) => {
                        check_counts(begin, self.input, min, max)?;
                        self.repeat(begin, has_repeated, min, max)?;
                    }
                    None => self.push_literal('{'.into()),
                },
                '\\' => self.escape(begin)?,
                literal => self.push_literal(literal.into()),
            }
        }
        let Some(group) = self.outer.pop() else {
            let hir = std::mem::take(&mut self.group).into_item().hir;
            let names = std::mem::take(&mut self.names);
            return Ok(Parsed { hir, names });
        };
        self.outer.push(group);
        let begin = self.input.back_to(self.group.at);
        Err(begin.invalid(
            "unclosed group",
            "add a ')', or write \\( for the byte itself",
        ))
    }

    fn open(&mut self, begin: Input<'_>) -> Result<(), Invalid> {
        let outside = self.flags;
        let mut capture = None;
        if self.input.take("?") {
            if self.input.take("P<") || self.input.take("<") {
                let name = self.group_name(begin)?;
                self.names.push(Some(name));
                capture = Some(self.names.len() as u32);
            } else if self.flags(begin)? == AfterFlags::NoGroup {
                return Ok(());
            }
        } else {
            self.names.push(None);
            capture = Some(self.names.len() as u32);
        }
        if self.outer.len() as u32 >= DEPTH_MAX {
            return Err(too_deep(begin));
        }
        let inner = Group {
            at: begin.at,
            capture,
            flags: outside,
            ..Group::default()
        };
        self.outer.push(std::mem::replace(&mut self.group, inner));
        Ok(())
    }

    fn group_name(&mut self, begin: Input<'_>) -> Result<Box<str>, Invalid> {
        let name = self.input.take_until('>').unwrap_or_default();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_word) {
            return Err(begin.invalid(
                "a group is named without a name of letters, digits and _",
                "write (?P<name>…); looking behind is not known",
            ));
        }
        Ok(name.into())
    }

    // What follows `(?`, up to `:` or `)`.
    fn flags(&mut self, begin: Input<'_>) -> Result<AfterFlags, Invalid> {
        let mut flags = self.flags;
        let (mut value, mut is_complete) = (true, true);
        while let Some(next) = self.input.bump() {
            match next {
                'i' => flags.folds_case = value,
                'm' => flags.is_multi_line = value,
                's' => flags.dot_takes_newline = value,
                'U' => flags.is_lazy = value,
                '-' if value => {
                    value = false;
                    is_complete = false;
                    continue;
                }
                ':' | ')' if is_complete => {
                    self.flags = flags;
                    return Ok(match next {
                        ':' => AfterFlags::Group,
                        _ => AfterFlags::NoGroup,
                    });
                }
                _ => break,
            }
            is_complete = true;
        }
        let what = format!("'{}' is not known", begin.up_to(self.input));
        Err(begin.invalid(
            what,
            "write (?:…) or flags of imsU; there is no looking ahead or behind",
        ))
    }

    fn close(&mut self, begin: Input<'_>) -> Result<(), Invalid> {
        let outer = self.outer.pop().ok_or_else(|| {
            begin.invalid(
                "unopened group",
                "remove it, or write \\) for the byte itself",
            )
        })?;
        let inner = std::mem::replace(&mut self.group, outer);
        self.flags = inner.flags;
        let item = inner.into_item();
        if item.depth > DEPTH_MAX {
            return Err(too_deep(begin));
        }
        self.group.items.push(item);
        Ok(())
    }

    fn repeat(
        &mut self,
        begin: Input<'_>,
        has_repeated: bool,
        min: u32,
        max: Option<u32>,
    ) -> Result<(), Invalid> {
        let is_lazy = self.input.take("?");
        let operator = begin.up_to(self.input);
        if has_repeated {
            return Err(begin.invalid(
                format!("'{operator}' repeats a repetition"),
                "put what is repeated in (?:…)",
            ));
        }
        let Some(Item { hir, depth, copies }) = self.group.items.pop() else {
            return Err(begin.invalid(
                format!("'{operator}' has nothing before it to repeat"),
                "write a backslash before it for the byte itself",
            ));
        };
        let (depth, copies) = (depth + 1, copies * max.unwrap_or(min).max(1));
        if max.unwrap_or(min) >= 2 && copies > REPEAT_MAX {
            return Err(too_often(begin, operator));
        }
        if depth > DEPTH_MAX {
            return Err(too_deep(begin));
        }
        let repetition = Repetition {
            min,
            max,
            greedy: is_lazy == self.flags.is_lazy,
            sub: Box::new(hir),
        };
        self.group.items.push(Item {
            hir: Hir::repetition(repetition),
            depth,
            // Nothing is left of what is repeated no times.
            copies: if max == Some(0) { 1 } else { copies },
        });
        self.has_repeated = true;
        Ok(())
    }

    // What follows a backslash outside a class.
    fn escape(&mut self, begin: Input<'_>) -> Result<(), Invalid> {
        let look = match self.input.peek() {
            Some('A') => Look::Start,
            Some('z') => Look::End,
            Some('b') => Look::WordAscii,
            Some('B') => Look::WordAsciiNegate,
            Some('Q') => {
                self.input.bump();
                let literals = self.input.take_until_or_end("\\E");
                for literal in literals.chars() {
                    self.push_literal(literal.into());
                }
                return Ok(());
            }
            _ => {
                let folds_case = self.flags.folds_case;
                match class::escaped_class(&mut self.input, begin, folds_case)? {
                    Some(class) => self.push_class(class),
                    None => {
                        let literal = class::escaped(&mut self.input, begin)?;
                        self.push_literal(literal);
                    }
                }
                return Ok(());
            }
        };
        self.input.bump();
        self.push(Hir::look(look));
        Ok(())
    }

    fn push_literal(&mut self, code_point: u32) {
        match char::from_u32(code_point) {
            Some(literal) if !self.flags.folds_case => {
                let hir = match self.alphabet {
                    Alphabet::Ascii if !literal.is_ascii() => Hir::fail(),
                    Alphabet::Ascii | Alphabet::Unicode => {
                        Hir::literal(literal.encode_utf8(&mut [0; 4]).as_bytes())
                    }
                };
                self.push(hir);
            }
            _ => self.push_class(class::one(code_point, self.flags.folds_case)),
        }
    }

    fn push_class(&mut self, mut class: ClassUnicode) {
        if self.alphabet == Alphabet::Ascii {
            class.intersect(&class::ascii());
        }
        let hir = match class.to_byte_class() {
            Some(bytes) => Hir::class(Class::Bytes(bytes)),
            None => Hir::class(Class::Unicode(class)),
        };
        self.push(hir);
    }

    fn push(&mut self, hir: Hir) {
        self.group.items.push(Item {
            hir,
            depth: 1,
            copies: 1,
        });
    }
}

#[derive(PartialEq, Eq)]
enum AfterFlags {
    Group,
    NoGroup,
}

impl Group {
    fn end_alternative(&mut self) {
        let items = std::mem::take(&mut self.items);
        self.alternatives.push(Item::of(items, Hir::concat));
    }

    fn into_item(mut self) -> Item {
        self.end_alternative();
        let mut item = Item::of(self.alternatives, Hir::alternation);
        if let Some(index) = self.capture {
            item.depth += 1;
            item.hir = Hir::capture(Capture {
                index,
                name: None,
                sub: Box::new(item.hir),
            });
        }
        item
    }
}

impl Item {
    fn of(items: Vec<Self>, join: impl FnOnce(Vec<Hir>) -> Hir) -> Self {
        let is_one = items.len() == 1;
        let depth = items.iter().map(|item| item.depth).max().unwrap_or(0);
        let copies = items.iter().map(|item| item.copies).max().unwrap_or(1);
        Self {
            depth: if is_one { depth } else { depth + 1 },
            copies,
            hir: join(items.into_iter().map(|item| item.hir).collect()),
        }
    }
}

impl<'p> Input<'p> {
    fn rest(self) -> &'p str {
        &self.pattern[self.at..]
    }

    fn peek(self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn take(&mut self, text: &str) -> bool {
        let is_next = self.rest().starts_with(text);
        if is_next {
            self.at += text.len();
        }
        is_next
    }

    // What comes before `end`, which is read too.
    fn take_until(&mut self, end: char) -> Option<&'p str> {
        let (taken, _) = self.rest().split_once(end)?;
        self.at += taken.len() + end.len_utf8();
        Some(taken)
    }

    fn take_until_or_end(&mut self, end: &str) -> &'p str {
        let rest = self.rest();
        let (taken, after) = rest.split_once(end).unwrap_or((rest, ""));
        self.at = self.pattern.len() - after.len();
        taken
    }

    // `n}`, `n,}` or `n,m}`, after a `{`; anything else makes the brace a literal.
    fn counts(&mut self) -> Option<(u32, Option<u32>)> {
        let mut input = *self;
        let min = input.number()?;
        let max = match input.bump()? {
            '}' => Some(min),
            ',' if input.take("}") => None,
            ',' => {
                let max = input.number()?;
                input.take("}").then_some(Some(max))?
            }
            _ => return None,
        };
        *self = input;
        Some((min, max))
    }

    // Without leading zeros; what is too large becomes the largest.
    fn number(&mut self) -> Option<u32> {
        let rest = self.rest();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || (digits > 1 && rest.starts_with('0')) {
            return None;
        }
        self.at += digits;
        Some(rest[..digits].parse().unwrap_or(u32::MAX))
    }

    fn back_to(self, at: usize) -> Self {
        Self { at, ..self }
    }

    fn up_to(self, end: Input<'p>) -> &'p str {
        &self.pattern[self.at..end.at]
    }

    fn invalid(self, what: impl Into<String>, remedy: &'static str) -> Invalid {
        Invalid {
            what: what.into(),
            position: self.pattern[..self.at].chars().count() + 1,
            remedy,
        }
    }
}

fn check_counts(
    begin: Input<'_>,
    end: Input<'_>,
    min: u32,
    max: Option<u32>,
) -> Result<(), Invalid> {
    let counts = begin.up_to(end);
    if max.is_some_and(|max| max < min) {
        let what = format!("'{counts}' ends below its start");
        return Err(begin.invalid(what, "swap the two"));
    }
    match max.unwrap_or(min) > REPEAT_MAX {
        true => Err(too_often(begin, counts)),
        false => Ok(()),
    }
}

fn too_often(begin: Input<'_>, operator: &str) -> Invalid {
    begin.invalid(
        format!("'{operator}' repeats more than {REPEAT_MAX} times, with those around it"),
        "use smaller repetitions",
    )
}

fn too_deep(begin: Input<'_>) -> Invalid {
    begin.invalid(
        format!("it is nested deeper than {DEPTH_MAX}"),
        "use fewer groups within each other",
    )
}

#[cfg(test)]
mod tests;
