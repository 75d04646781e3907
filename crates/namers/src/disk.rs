//! Files below a directory, as the disk has them or as far as memory does. Owns how they are opened and read; which file a
//! name means and what its text says are `fs.rs`'s.
//!
//! A disk may take as long as it likes, so looking at one is left to threads that may wait. But nearly always all that is
//! looked for is in the system's memory, and to look there takes a fraction of what it takes to tell another thread and to
//! hear from it. [`InMemory`] finds that, or says that it can't.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;

/// Where files are looked for, by their paths below a directory.
pub(crate) trait Disk {
    /// What is at `path`, where its links lead.
    ///
    /// # Errors
    /// As the system's; [`io::ErrorKind::WouldBlock`] if it is not known without waiting.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// What is in the regular file at `path`, up to `most` bytes.
    ///
    /// # Errors
    /// The same.
    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>>;
}

/// All of the directory, waiting for it.
pub(crate) struct Whole<'a>(pub(crate) &'a Path);

impl Disk for Whole<'_> {
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::metadata(self.0.join(path))
    }

    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.0.join(path))?.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

pub(crate) use system::InMemory;

#[cfg(not(target_os = "linux"))]
mod system {
    use super::*;

    /// Nothing: only Linux tells what it has in memory.
    pub(crate) enum InMemory {}

    impl InMemory {
        pub(crate) fn can_know(_: &Path) -> bool {
            false
        }

        pub(crate) fn of(_: &Path) -> io::Result<Self> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    impl Disk for InMemory {
        fn metadata(&self, _: &Path) -> io::Result<Metadata> {
            match *self {}
        }

        fn read(&self, _: &Path, _: u64) -> io::Result<Vec<u8>> {
            match *self {}
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::os::fd::AsFd;

    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2, statfs};
    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::*;

    /// File systems of disks of this machine, and of its memory: what they have in memory they give without asking anybody.
    /// By their numbers in `linux/magic.h`: ext2 to ext4, XFS, Btrfs, tmpfs, and the overlays of containers.
    const LOCAL: [u64; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630];

    /// What the system has in memory of a directory, without what is mounted beneath it.
    pub(crate) struct InMemory(File);

    impl InMemory {
        /// Whether a directory is on a disk whose memory can be asked. May wait.
        pub(crate) fn can_know(root: &Path) -> bool {
            statfs(root).is_ok_and(|of| u64::try_from(of.f_type).is_ok_and(|kind| LOCAL.contains(&kind)))
        }

        /// The directory, if it is in memory itself.
        pub(crate) fn of(root: &Path) -> io::Result<Self> {
            open(CWD, root, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty()).map(Self)
        }
    }

    impl Disk for InMemory {
        fn metadata(&self, path: &Path) -> io::Result<Metadata> {
            // Found and not opened: it may be a device.
            open(&self.0, path, OFlags::PATH, ResolveFlags::NO_XDEV)?.metadata()
        }

        fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
            let file = open(&self.0, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, ResolveFlags::NO_XDEV)?;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let (mut bytes, mut read) = (vec![0; most.min(FIRST)], 0);
            loop {
                if read == bytes.len() {
                    if read == most {
                        break;
                    }
                    bytes.resize(most.min(2 * read), 0);
                }
                let rest = &mut [io::IoSliceMut::new(&mut bytes[read..])];
                match preadv2(&file, rest, read as u64, ReadWriteFlags::NOWAIT).map_err(only_absence)? {
                    0 => break,
                    more => read += more,
                }
            }
            bytes.truncate(read);
            Ok(bytes)
        }
    }

    /// The first buffer: most files of addresses are shorter.
    const FIRST: usize = 1024;

    /// Opens what is in memory. A system that can't tell (before Linux 5.12) says so with an error as any other.
    fn open(at: impl AsFd, path: &Path, how: OFlags, within: ResolveFlags) -> io::Result<File> {
        let opened = openat2(at, path, how | OFlags::CLOEXEC, Mode::empty(), within | ResolveFlags::CACHED);
        opened.map(File::from).map_err(only_absence)
    }

    /// That something is not there is known; any other error is better met by who can wait.
    fn only_absence(error: Errno) -> io::Error {
        match error {
            Errno::NOENT | Errno::NOTDIR => error.into(),
            _ => io::ErrorKind::WouldBlock.into(),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What a disk says, with errors by their kinds.
    fn says(disk: &impl Disk, path: &str) -> Result<(u64, Option<String>), io::ErrorKind> {
        let path = Path::new(path);
        let metadata = disk.metadata(path).map_err(|error| error.kind())?;
        let read = metadata.is_file().then(|| disk.read(path, 3_000)).transpose().map_err(|error| error.kind())?;
        Ok((metadata.len(), read.map(|bytes| String::from_utf8(bytes).unwrap())))
    }

    #[test]
    fn memory_says_what_the_disk_says_or_that_it_does_not_know() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(InMemory::can_know(root));
        let lengths = "0 1 1023 1024 1025 2048 2999 3000 3001 100000";
        for length in lengths.split(' ') {
            fs::write(root.join(length), "x".repeat(length.parse().unwrap())).unwrap();
        }
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/file"), "in it").unwrap();
        symlink("dir/../dir/file", root.join("link")).unwrap();
        symlink("link", root.join("link to link")).unwrap();
        symlink("self", root.join("self")).unwrap();
        symlink("nowhere", root.join("broken")).unwrap();
        symlink("/proc/self/status", root.join("mounted")).unwrap();
        symlink("/dev/zero", root.join("device")).unwrap();
        let (disk, memory) = (Whole(root), InMemory::of(root).unwrap());
        for path in lengths.split(' ').chain(["dir", "dir/file", "link", "link to link"]) {
            assert_eq!(says(&memory, path), says(&disk, path), "{path}");
        }
        // What the disk has just said is not there, is known not to be.
        assert_eq!(says(&disk, "broken"), Err(io::ErrorKind::NotFound));
        assert_eq!(says(&memory, "broken"), Err(io::ErrorKind::NotFound));
        assert!(says(&memory, "1/file").is_err());
        for path in ["mounted", "device", "self"] {
            assert_eq!(says(&memory, path), Err(io::ErrorKind::WouldBlock), "{path}");
        }
        assert!(!InMemory::can_know(Path::new("/proc")));
        assert!(InMemory::of(&root.join("1")).is_err(), "a file is no directory");
    }
}
