//! A file that lines are appended to. Writing may block for as long as a disk or a pipe likes, so it is done on a thread of
//! the runtime's blocking pool, one write at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

use bytes::{Buf as _, Bytes};
use tokio::task::spawn_blocking;

use super::queue::Lane;
use super::sender::InHand;

/// An open file.
pub(crate) struct Connection {
    // `None` only while a write is under way.
    file: Option<File>,
}

impl Connection {
    /// Opens the file for appending, and makes it if it is not there.
    pub(crate) async fn open(path: PathBuf) -> io::Result<Self> {
        let open = move || OpenOptions::new().append(true).create(true).open(path);
        Ok(Self {
            file: Some(spawn_blocking(open).await??),
        })
    }

    /// Writes all that is in hand. If it is cut short, the file may still get some of it, and this connection is of no use.
    pub(crate) async fn write(&mut self, in_hand: &mut InHand, lane: &Lane) -> io::Result<()> {
        let Some(mut file) = self.file.take() else {
            return Err(io::Error::other("the write before was cut short"));
        };
        // Counted references: whatever happens over there, the chunks stay in hand until they are written.
        let mut chunks: Vec<Bytes> = in_hand
            .chunks
            .iter()
            .map(|chunk| chunk.bytes.clone())
            .collect();
        if let Some(first) = chunks.first_mut() {
            first.advance(in_hand.written);
        }
        let writing = spawn_blocking(move || {
            let mut written = 0;
            let result = chunks
                .iter()
                .try_for_each(|bytes| append(&mut file, bytes, &mut written));
            (file, written, result)
        });
        let (file, written, result) = writing.await?;
        self.file = Some(file);
        in_hand.advance(written, lane);
        result
    }
}

// `Write::write_all`, which does not say how far it got before it failed.
fn append(file: &mut File, mut bytes: &[u8], written: &mut usize) -> io::Result<()> {
    while !bytes.is_empty() {
        #[expect(
            clippy::disallowed_methods,
            reason = "the loop is the answer to short writes"
        )]
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => {
                *written += more;
                bytes = &bytes[more..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
