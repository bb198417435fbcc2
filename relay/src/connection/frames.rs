//! Points in frames, each behind its length.
//!
//! What was read of frames is the connection's own, for what a frame comes to may be far more than the frame, and is handed
//! over in blocks, between which queues may have to be waited for. A long frame has its room before the rest of it is read, so
//! that those who wait for room hold none.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Poll, ready};

use relay_engine::{Format, Framed, Protocol, Reason, Tally};
use relay_wire::{FRAME_HEADER_BYTES, Points, frame_bytes, protobuf};
use tokio::io::ReadBuf;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::debug;

use super::{Origin, Peer};
use crate::worker::Scratch;

/// What is read at a time, in bytes.
const READ_BYTES: usize = 16 << 10;

/// What every connection may keep without asking, in bytes: as much as is read at a time.
const FREE_BYTES: usize = READ_BYTES;

/// What lines are handed over at a time, in bytes.
const BLOCK_BYTES: usize = 128 << 10;

/// What of a frame is shown that was refused, in bytes.
const SHOWN_BYTES: usize = 64;

pub(super) struct Frames {
    format: Format,
    // The frame that is not yet whole, with its length in front.
    begun: Vec<u8>,
    // The room of a long one.
    room: Option<OwnedSemaphorePermit>,
}

impl Frames {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            begun: Vec::new(),
            room: None,
        }
    }

    // How long the frame is that has begun.
    fn bytes_wanted(&self) -> usize {
        frame_bytes(&self.begun).map_or(0, |bytes| bytes + FRAME_HEADER_BYTES)
    }

    /// Whether the frame that has begun is long, and has no room yet.
    pub(super) fn wants_room(&self) -> bool {
        self.bytes_wanted() > FREE_BYTES && self.room.is_none()
    }

    /// Reads what there is. Returns the bytes read; 0 at the end.
    pub(super) async fn read(&mut self, peer: &mut Peer<'_>) -> io::Result<usize> {
        let bench = peer.origin.bench;
        if self.wants_room() {
            let bytes = u32::try_from(self.bytes_wanted()).unwrap_or(u32::MAX);
            let room = Arc::clone(&bench.frame_room).acquire_many_owned(bytes);
            self.room = room.await.ok();
            peer.last_whole = Instant::now();
        }
        poll_fn(|context| {
            let scratch = &mut *bench.scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch.buffer[..READ_BYTES]);
            ready!(peer.stream.poll_read(context, &mut buffer))?;
            self.begun.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
        .await
    }

    /// Processes the frames that are whole.
    ///
    /// # Errors
    /// A frame is longer than it may be: nobody can tell where the next one begins.
    pub(super) async fn process(&mut self, peer: &mut Peer<'_>) -> io::Result<()> {
        let frame_bytes_max = match peer.origin.listening.settings().protocol {
            Protocol::Framed(
                _,
                Framed {
                    frame_bytes_max, ..
                },
            ) => frame_bytes_max,
            // The listener has become another one; who is connected goes on.
            Protocol::Plaintext(_) => usize::MAX,
        };
        let mut start = 0;
        while let Some(length) = frame_bytes(&self.begun[start..]) {
            let body = start + FRAME_HEADER_BYTES;
            if length > frame_bytes_max {
                self.refuse(start..self.begun.len(), Reason::FrameTooLong, &peer.origin);
                self.begun.clear();
                let error = format!("it announces a frame of {length} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            if self.begun.len() < body + length {
                break;
            }
            self.take(body..body + length, peer).await;
            start = body + length;
        }
        if start > 0 {
            peer.last_whole = Instant::now();
            self.begun.drain(..start);
            self.begun.shrink_to(match self.begun.is_empty() {
                true => 0,
                false => FREE_BYTES,
            });
            self.room = None;
        }
        Ok(())
    }

    async fn take(&self, frame: Range<usize>, peer: &mut Peer<'_>) {
        let bench = peer.origin.bench;
        let mut points = std::mem::take(&mut bench.scratch.borrow_mut().points);
        match self.decode(frame.clone(), &mut points, &peer.origin) {
            Err(error) => {
                let Origin {
                    listening, source, ..
                } = &peer.origin;
                debug!(listener = %listening.name, %source, error, "a frame was refused");
                self.refuse(frame, Reason::FrameInvalid, &peer.origin);
            }
            Ok(()) => self.hand_over(&self.begun[frame], &points, peer).await,
        }
        points.clear();
        bench.scratch.borrow_mut().points = points;
    }

    fn decode(
        &self,
        frame: Range<usize>,
        points: &mut Points,
        origin: &Origin<'_>,
    ) -> Result<(), String> {
        let frame = &self.begun[frame];
        match self.format {
            Format::Pickle => {
                let decoder = &mut origin.bench.scratch.borrow_mut().decoder;
                let decoded = decoder.decode(frame, points);
                decoded.map_err(|error| error.to_string())
            }
            Format::Protobuf => protobuf::decode(frame, points).map_err(|error| error.to_string()),
        }
    }

    async fn hand_over(&self, frame: &[u8], points: &Points, peer: &mut Peer<'_>) {
        let bench = peer.origin.bench;
        if points.invalid() > 0 {
            let mut tally = Tally::default();
            tally.drop_lines(Reason::PointInvalid, points.invalid());
            let origin = &peer.origin;
            origin.note_refused(Reason::PointInvalid, points.last_invalid());
            origin.count(&tally);
        }
        let line_bytes_max = peer.origin.listening.settings().line_bytes_max();
        let mut next = 0;
        while next < points.len() {
            {
                let Scratch { lines, mill, .. } = &mut *bench.scratch.borrow_mut();
                lines.clear();
                next = points.lines(frame, next, BLOCK_BYTES, lines);
                let Peer {
                    origin, handover, ..
                } = peer;
                let plan = bench.plan.load();
                let refused = |reason, line| origin.note_refused(reason, &lines[line]);
                let tally = mill.process(&plan, lines, line_bytes_max, handover, refused);
                origin.count(&tally);
            }
            peer.handover.wait_for_room(bench).await;
        }
    }

    fn refuse(&self, bytes: Range<usize>, reason: Reason, origin: &Origin<'_>) {
        let mut tally = Tally::default();
        tally.drop_line(reason);
        let shown = &self.begun[bytes];
        origin.note_refused(reason, &shown[..shown.len().min(SHOWN_BYTES)]);
        origin.count(&tally);
    }

    /// A frame that ends with its connection was cut.
    pub(super) fn finish(&mut self, peer: &mut Peer<'_>) {
        if !self.begun.is_empty() {
            self.refuse(0..self.begun.len(), Reason::Truncated, &peer.origin);
        }
    }
}
