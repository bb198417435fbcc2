//! A directory in memory that loses, tears and refuses on demand.
//!
//! What it promises is what POSIX does and no more. Content is durable after the file's sync and a name after the
//! directory's; in a crash every sector of 512 bytes that was not synced has its old or its new content or zeros, every
//! length and every name its old or its new value, each for itself. A sync that fails forgets what it was to write: the next
//! one succeeds and does not write it either.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::TryLockError;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Directory, OpenFile};

const SECTOR_BYTES: usize = 512;

/// The directory. A clone is another handle of the same one.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    is_locked: bool,
    // Crashes that were survived: handles from before do nothing any more.
    crashes: usize,
    capacity: Option<usize>,
    is_read_only: bool,
    // How many operations go well before one fails.
    operations_until_error: Option<usize>,
    unreadable: BTreeSet<(usize, usize)>,
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    // Sectors that the next sync writes.
    dirty: BTreeSet<usize>,
}

/// An open file in [`Memory`].
#[derive(Debug)]
pub struct MemoryFile {
    memory: Memory,
    file: usize,
    is_writable: bool,
    crashes: usize,
}

/// Holds the lock of a [`Memory`].
#[derive(Debug)]
pub struct MemoryLock {
    memory: Memory,
    crashes: usize,
}

impl Memory {
    /// Loses what was not synced, as `choose` says: it is given a number and returns one below it.
    pub fn crash(&self, mut choose: impl FnMut(usize) -> usize) {
        let mut state = self.state();
        let names: BTreeSet<String> = state
            .names
            .keys()
            .chain(state.synced_names.keys())
            .cloned()
            .collect();
        for name in names {
            let (new, old) = (state.names.get(&name), state.synced_names.get(&name));
            let kept = if new != old && choose(2) == 0 {
                old
            } else {
                new
            };
            match kept.copied() {
                Some(file) => state.names.insert(name, file),
                None => state.names.remove(&name),
            };
        }
        for content in &mut state.files {
            content.crash(&mut choose);
        }
        state.synced_names = state.names.clone();
        state.is_locked = false;
        state.crashes += 1;
    }

    /// Lets all files together have at most this many bytes.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    /// Refuses, or stops to refuse, everything that writes.
    pub fn set_read_only(&self, is_read_only: bool) {
        self.state().is_read_only = is_read_only;
    }

    /// Fails one operation, after this many more went well; `None` takes that back.
    pub fn fail_after(&self, operations: Option<usize>) {
        self.state().operations_until_error = operations;
    }

    /// Makes the sector that this byte is in unreadable for good.
    pub fn break_sector(&self, name: &str, offset: usize) {
        let mut state = self.state();
        if let Some(file) = state.names.get(name).copied() {
            state.unreadable.insert((file, offset / SECTOR_BYTES));
        }
    }

    /// Makes all sectors readable again.
    pub fn repair(&self) {
        self.state().unreadable.clear();
    }

    /// Replaces a file's content, durably; makes the file if need be.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(Content {
            bytes: bytes.to_vec(),
            synced: bytes.to_vec(),
            dirty: BTreeSet::new(),
        });
        state.names.insert(name.to_owned(), file);
        state.synced_names.insert(name.to_owned(), file);
    }

    /// Changes one byte of a file in its place, durably.
    pub fn flip(&self, name: &str, offset: usize) {
        let mut state = self.state();
        if let Some(file) = state.names.get(name).copied() {
            let Content { bytes, synced, .. } = &mut state.files[file];
            for content in [bytes, synced] {
                if let Some(byte) = content.get_mut(offset) {
                    *byte ^= 0x55;
                }
            }
        }
    }

    /// Removes a file, durably.
    pub fn delete(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.synced_names.remove(name);
    }

    /// A file's content.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.names.get(name)?;
        Some(state.files[*file].bytes.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, file: usize, is_writable: bool, crashes: usize) -> MemoryFile {
        let memory = self.clone();
        MemoryFile {
            memory,
            file,
            is_writable,
            crashes,
        }
    }
}

impl State {
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.operations_until_error {
            Some(0) => {
                self.operations_until_error = None;
                Err(io::Error::other("injected"))
            }
            Some(operations) => {
                *operations -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self) -> io::Result<()> {
        self.operate()?;
        match self.is_read_only {
            true => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            false => Ok(()),
        }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        let file = self.names.get(name).copied();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn bytes(&self) -> usize {
        let files: BTreeSet<_> = self.names.values().collect();
        files.into_iter().map(|i| self.files[*i].bytes.len()).sum()
    }
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.set_len(end);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        self.touch(offset, end);
    }

    fn set_len(&mut self, length: usize) {
        let length_before = self.bytes.len();
        self.bytes.resize(length, 0);
        self.touch(length_before.min(length), length_before.max(length));
    }

    fn touch(&mut self, start: usize, end: usize) {
        self.dirty
            .extend(start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
    }

    fn sync(&mut self) {
        self.synced.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let end = ((sector + 1) * SECTOR_BYTES).min(self.bytes.len());
            let range = (sector * SECTOR_BYTES).min(end)..end;
            self.synced[range.clone()].copy_from_slice(&self.bytes[range]);
        }
    }

    fn crash(&mut self, choose: &mut impl FnMut(usize) -> usize) {
        if self.bytes == self.synced {
            self.dirty.clear();
            return;
        }
        let (short, long) = (
            self.bytes.len().min(self.synced.len()),
            self.bytes.len().max(self.synced.len()),
        );
        let length = match choose(3) {
            0 => self.synced.len(),
            1 => self.bytes.len(),
            _ => short + choose(long - short + 1),
        };
        let mut content = vec![0; length];
        for (i, sector) in content.chunks_mut(SECTOR_BYTES).enumerate() {
            let start = i * SECTOR_BYTES;
            let (new, old) = (tail(&self.bytes, start), tail(&self.synced, start));
            let is_same = new
                .iter()
                .take(SECTOR_BYTES)
                .eq(old.iter().take(SECTOR_BYTES));
            let from = if is_same || choose(2) == 0 { new } else { old };
            let bytes = sector.len().min(from.len());
            sector[..bytes].copy_from_slice(&from[..bytes]);
        }
        self.bytes.clone_from(&content);
        self.synced = content;
        self.dirty.clear();
    }
}

fn tail(bytes: &[u8], start: usize) -> &[u8] {
    bytes.get(start..).unwrap_or_default()
}

impl Directory for Memory {
    type File = MemoryFile;
    type Lock = MemoryLock;

    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn lock(&self, _name: &str) -> Result<MemoryLock, TryLockError> {
        let mut state = self.state();
        state.change().map_err(TryLockError::Error)?;
        if state.is_locked {
            return Err(TryLockError::WouldBlock);
        }
        state.is_locked = true;
        let crashes = state.crashes;
        let memory = self.clone();
        Ok(MemoryLock { memory, crashes })
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.operate()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        let mut state = self.state();
        state.operate()?;
        Ok(state.names.contains_key(name))
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state();
        state.change()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        state.files.push(Content::default());
        state.names.insert(name.to_owned(), file);
        Ok(self.file(file, true, state.crashes))
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state();
        state.operate()?;
        let file = state.find(name)?;
        Ok(self.file(file, false, state.crashes))
    }

    fn edit(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state();
        let file = state.find(name)?;
        state.change()?;
        Ok(self.file(file, true, state.crashes))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.find(name)?;
        state.change()?;
        state.names.remove(name);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.synced_names = state.names.clone();
        Ok(())
    }
}

impl MemoryFile {
    // Somebody whose machine crashed does nothing any more.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.memory.state();
        match state.crashes == self.crashes {
            true => Ok(state),
            false => Err(io::Error::other("the machine crashed")),
        }
    }
}

impl OpenFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        state.operate()?;
        let start = offset as usize;
        let content = tail(&state.files[self.file].bytes, start);
        let bytes = content.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&content[..bytes]);
        let sectors = start / SECTOR_BYTES..(start + bytes).div_ceil(SECTOR_BYTES);
        let broken = state
            .unreadable
            .range((self.file, sectors.start)..(self.file, sectors.end));
        match broken.count() {
            0 => Ok(bytes),
            _ => Err(io::Error::other("bad sector")),
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        assert!(self.is_writable, "the file was opened for reading");
        let offset = offset as usize;
        let possible = state.change();
        let more = (offset + bytes.len()).saturating_sub(state.files[self.file].bytes.len());
        let free = state
            .capacity
            .map_or(more, |capacity| capacity.saturating_sub(state.bytes()));
        if let Err(error) = possible {
            // Nothing, half or all of it is written all the same.
            if !state.is_read_only {
                let written = [0, bytes.len() / 2, bytes.len()][offset / SECTOR_BYTES % 3];
                state.files[self.file].write(&bytes[..written], offset);
            }
            return Err(error);
        }
        if free < more {
            let bytes = &bytes[..bytes.len() - (more - free).min(bytes.len())];
            state.files[self.file].write(bytes, offset);
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.files[self.file].write(bytes, offset);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let mut state = self.state()?;
        state.operate()?;
        Ok(state.files[self.file].bytes.len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.change()?;
        state.files[self.file].set_len(length as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let possible = state.operate();
        let content = &mut state.files[self.file];
        match possible {
            Ok(()) => content.sync(),
            Err(_) => content.dirty.clear(),
        }
        possible
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.memory.state();
        if state.crashes == self.crashes {
            state.is_locked = false;
        }
    }
}
