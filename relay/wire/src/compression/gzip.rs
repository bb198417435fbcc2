//! gzip: one member after the other.

use std::io::{self, BufRead as _};

use flate2::{Decompress, FlushDecompress, Status};

use super::Feed;

/// The largest window that there is, as a power of two.
const WINDOW_LOG: u8 = 15;

/// A stream that is being read.
pub(super) struct Gzip {
    pub(super) feed: Feed,
    inflate: Decompress,
    // Something of a member was read, and not its end.
    is_within: bool,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self {
            feed: Feed::default(),
            inflate: Decompress::new_gzip(WINDOW_LOG),
            is_within: false,
        }
    }

    /// Reads as `Read` does. 0: the stream ended.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            // What is in there already may be more than there was room for, so it is asked with nothing as well.
            let status =
                self.inflate
                    .decompress(self.feed.unread(), bytes, FlushDecompress::None)?;
            let taken = (self.inflate.total_in() - before_in) as usize;
            let read = (self.inflate.total_out() - before_out) as usize;
            self.feed.consume(taken);
            self.is_within |= taken > 0;
            if status == Status::StreamEnd {
                self.inflate = Decompress::new_gzip(WINDOW_LOG);
                self.is_within = false;
            }
            if read > 0 {
                return Ok(read);
            }
            if self.feed.is_empty() {
                return match self.feed.has_ended {
                    false => Err(io::ErrorKind::WouldBlock.into()),
                    true if self.is_within => Err(io::ErrorKind::UnexpectedEof.into()),
                    true => Ok(0),
                };
            }
        }
    }
}
