//! The few things that a spool does with a file system, so that tests can put one below it that fails.

#[cfg(any(test, feature = "faults"))]
mod memory;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

#[cfg(any(test, feature = "faults"))]
pub use memory::{Memory, MemoryFile, MemoryLock};

/// A directory. Names are file names without any path.
pub trait Directory {
    /// An open file.
    type File: OpenFile;

    /// What holds the lock until it is dropped, or the process ends in whatever way.
    type Lock;

    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// Takes the lock in the file of this name, which no other process and no other caller can have at the same time.
    fn lock(&self, name: &str) -> Result<Self::Lock, TryLockError>;

    /// The names in it, in any order. Those that are not UTF-8 may be left out.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Whether there is a file of this name.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// Makes an empty file that was not there. The name outlives a crash after [`Directory::sync`].
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing.
    fn edit(&self, name: &str) -> io::Result<Self::File>;

    /// Removes a file. It may come back in a crash before [`Directory::sync`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync(&self) -> io::Result<()>;
}

/// A file that is open.
pub trait OpenFile {
    /// Reads from `offset` until `buffer` is full or the file ends; returns how many bytes.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. If it fails, any part of them may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// The length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file, or adds zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Makes the content durable. After a failure what was written before may be lost whatever a later call says: kernels
    /// forget which pages they could not write.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the machine.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// The directory at `path`, which is made if need be.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            if let Some(parent) = path.parent().filter(|parent| parent.is_dir()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self::existing(path))
    }

    /// The directory at `path`, which is left as it is, there or not.
    pub(crate) fn existing(path: &Path) -> Self {
        let path = path.to_owned();
        Self { path }
    }
}

impl Directory for Disk {
    type File = File;
    type Lock = File;

    fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self, name: &str) -> Result<File, TryLockError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(self.path.join(name));
        let file = file.map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(file)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // What is not a file is not ours, whatever its name.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.path.join(name).try_exists()
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        options.open(self.path.join(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        File::open(self.path.join(name))
    }

    fn edit(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.open(self.path.join(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl OpenFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let place = &mut buffer[filled..];
            match FileExt::read_at(self, place, offset + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        File::set_len(self, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, TryLockError};
    use std::io;

    use super::{Directory, Disk, OpenFile};

    #[test]
    fn a_disk_keeps_what_it_is_given() {
        let parent = tempfile::tempdir().unwrap();
        let disk = Disk::new(&parent.path().join("a/b")).unwrap();
        let file = disk.create("x").unwrap();
        file.write_all_at(b"hello", 2).unwrap();
        file.set_len(6).unwrap();
        file.sync().unwrap();
        disk.sync().unwrap();
        let mut buffer = [9; 10];
        let read = disk.open("x").unwrap();
        let filled = read.read_at(&mut buffer, 1).unwrap();
        assert_eq!(
            (&buffer[..filled], read.length().unwrap()),
            (&b"\0hell"[..], 6)
        );
        assert!(read.write_all_at(b"x", 0).is_err());
        let taken = disk.create("x").unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        fs::create_dir(disk.path().join("y")).unwrap();
        assert_eq!(disk.names().unwrap(), ["x"]);
        disk.remove("x").unwrap();
        assert!(!disk.exists("x").unwrap());
    }

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let disk = Disk::new(parent.path()).unwrap();
        let lock = disk.lock("lock").unwrap();
        let second = Disk::new(parent.path()).unwrap().lock("lock");
        assert!(matches!(second, Err(TryLockError::WouldBlock)));
        drop(lock);
        disk.lock("lock").unwrap();
    }
}
