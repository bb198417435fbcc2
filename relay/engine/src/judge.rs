//! What a table's rules say of one name: the stages from the blocklist to the routes, in their one order.

use std::borrow::Cow;

use crate::aggregator::Feed;
use crate::ring;
use crate::route::Fanout;
use crate::{Reason, Table, rewrite};

/// What a way is reckoned to need beside itself: its places in lists, and what the allocator adds.
const WAY_OVERHEAD: usize = 128;

/// Where the lines of a name go. Names have few different ways, so it is kept once for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    /// The aggregates that points go into.
    pub(crate) feeds: Vec<Feed>,
    /// Whether the last of these keeps the line from routes.
    pub(crate) drops_raw: bool,
    /// Whether the line itself goes to routes that take it.
    pub(crate) is_routed: bool,
    /// Where they send it; empty if none does.
    pub(crate) fanout: Fanout,
}

impl Way {
    /// What it takes in memory, as reckoned.
    pub(crate) fn bytes(&self) -> usize {
        let output = |feed: &Feed| feed.output.as_ref().map_or(0, |name| name.len());
        let outputs: usize = self.feeds.iter().map(output).sum();
        let own = size_of::<Self>() + self.feeds.len() * size_of::<Feed>() + self.fanout.bytes();
        own + outputs + WAY_OVERHEAD
    }
}

/// What was found of a name. Its memory is reused from name to name.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    pub(crate) way: Way,
    /// The name that the line goes on with, if rules changed it.
    name: Vec<u8>,
    is_renamed: bool,
    spare: Vec<u8>,
    candidates: Vec<u32>,
}

impl Judgement {
    /// The name that the line goes on with, if rules changed it.
    pub(crate) fn new_name(&self) -> Option<&[u8]> {
        self.is_renamed.then_some(&self.name)
    }
}

impl Table {
    /// Decides over a name that is valid. An error is why its lines are dropped.
    pub(crate) fn judge(&self, received: &[u8], found: &mut Judgement) -> Result<(), Reason> {
        let received = self.normalised(received);
        let mut blocked = self.blocklist.matching(&received, &mut found.candidates);
        if blocked.next().is_some() {
            return Err(Reason::Blocklisted);
        }
        drop(blocked);
        let is_normalised = matches!(received, Cow::Owned(_));
        found.is_renamed = is_normalised;
        if is_normalised || !self.rewriters.is_empty() {
            found.is_renamed |= self.rewrite(&received, &mut found.name, &mut found.spare)?;
        }
        let name = match found.is_renamed {
            true => &*found.name,
            false => &*received,
        };
        let Way {
            feeds,
            drops_raw,
            is_routed,
            fanout,
        } = &mut found.way;
        let names = self.validation.names;
        *drops_raw = self
            .aggregators
            .feed(name, names, feeds, &mut found.candidates);
        fanout.clear();
        *is_routed = !*drops_raw && self.routes.route(name, fanout, &mut found.candidates);
        match *is_routed || !feeds.is_empty() {
            true => Ok(()),
            false => Err(Reason::Unrouted),
        }
    }

    /// The name that rules see.
    pub(crate) fn normalised<'a>(&self, received: &'a [u8]) -> Cow<'a, [u8]> {
        match self.validation.normalises_tags {
            true => ring::normalised(received),
            false => Cow::Borrowed(received),
        }
    }

    // Sets `name` to what rewriters make of `received`. Returns whether that is another name.
    fn rewrite(
        &self,
        received: &[u8],
        name: &mut Vec<u8>,
        spare: &mut Vec<u8>,
    ) -> Result<bool, Reason> {
        name.clear();
        name.extend_from_slice(received);
        let is_rewritten = rewrite::rewrite(&self.rewriters, name, spare)
            .map_err(|rewrite::TooLong| Reason::RewrittenInvalid)?;
        if !is_rewritten || name == received {
            return Ok(false);
        }
        let checked = self.validation.names.check_made(name);
        checked.map_err(|_| Reason::RewrittenInvalid)?;
        Ok(true)
    }
}
