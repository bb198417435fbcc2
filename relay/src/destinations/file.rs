//! A file that lines are appended to. Writing may block for as long as a disk or a pipe likes, so it is done on a thread of
//! the runtime's blocking pool, one write at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

use bytes::{Buf as _, Bytes};
use relay_engine::Rotation;
use tokio::task::spawn_blocking;

use super::in_hand::InHand;
use super::queue::Lane;

/// An open file.
pub(crate) struct Connection {
    // `None` only while a write is under way.
    file: Option<Appended>,
}

// A file, and when it is put aside.
struct Appended {
    file: File,
    bytes: u64,
    path: PathBuf,
    rotation: Option<Rotation>,
}

impl Connection {
    /// Opens the file for appending, and makes it if it is not there.
    pub(crate) async fn open(path: PathBuf, rotation: Option<Rotation>) -> io::Result<Self> {
        let open = move || Appended::open(path, rotation);
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
                .try_for_each(|bytes| file.append(bytes, &mut written));
            (file, written, result)
        });
        let (file, written, result) = writing.await?;
        self.file = Some(file);
        in_hand.advance(written, lane);
        result
    }
}

impl Appended {
    fn open(path: PathBuf, rotation: Option<Rotation>) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        Ok(Self {
            bytes: file.metadata()?.len(),
            file,
            path,
            rotation,
        })
    }

    // Whole lines, unless a write before was cut short. A file is put aside before what is to come.
    fn append(&mut self, bytes: &[u8], written: &mut usize) -> io::Result<()> {
        if let Some(rotation) = self.rotation
            && self.bytes >= rotation.bytes_max
        {
            self.put_aside(rotation.keep)?;
        }
        let before = *written;
        let result = append(&mut self.file, bytes, written);
        self.bytes += (*written - before) as u64;
        result
    }

    fn put_aside(&mut self, keep: u32) -> io::Result<()> {
        let aside = |number: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        for number in (1..keep).rev() {
            match fs::rename(aside(number), aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match fs::rename(&self.path, aside(1)) {
            // Somebody else did.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        *self = Self::open(self.path.clone(), self.rotation)?;
        Ok(())
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
