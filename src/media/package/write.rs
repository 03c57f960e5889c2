//! Files of a package as they are written.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{BadName, PackageError, PackagedFile};
use crate::domain::FileRole;

/// The folder and what is in it so far.
#[derive(Debug)]
pub(super) struct Out {
    folder: PathBuf,
    taken: BTreeSet<String>,
    files: Vec<PackagedFile>,
}

/// A file being written.
#[derive(Debug)]
pub(super) struct Sink {
    path: String,
    full: PathBuf,
    file: BufWriter<File>,
    size: u64,
}

impl Out {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), taken: BTreeSet::new(), files: Vec::new() }
    }

    /// Begins a file; its folders are made.
    pub(super) fn begin(&mut self, path: &str) -> Result<Sink, PackageError> {
        if !self.taken.insert(path.to_owned()) {
            return Err(BadName::Twice(path.to_owned()).into());
        }
        let full = self.folder.join(path);
        if let Some(parent) = full.parent() {
            std::fs::create_dir_all(parent).map_err(PackageError::file(parent))?;
        }
        let file = File::create(&full).map_err(PackageError::file(&full))?;
        Ok(Sink { path: path.to_owned(), full, file: BufWriter::new(file), size: 0 })
    }

    /// Takes a finished file in.
    pub(super) fn end(
        &mut self,
        mut sink: Sink,
        role: FileRole,
        content_type: &'static str,
    ) -> Result<(), PackageError> {
        sink.file.flush().map_err(PackageError::file(&sink.full))?;
        self.files.push(PackagedFile { path: sink.path, role, content_type, size: sink.size });
        Ok(())
    }

    /// Writes a whole file.
    pub(super) fn file(
        &mut self,
        path: &str,
        role: FileRole,
        content_type: &'static str,
        bytes: &[u8],
    ) -> Result<(), PackageError> {
        let mut sink = self.begin(path)?;
        sink.bytes(bytes)?;
        self.end(sink, role, content_type)
    }

    pub(super) fn into_files(self) -> Vec<PackagedFile> {
        self.files
    }
}

impl Sink {
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Bytes so far.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), PackageError> {
        self.file.write_all(bytes).map_err(PackageError::file(&self.full))?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Copies a range of another file; the kernel does it where it can.
    pub(super) fn copy(&mut self, from: &Source, offset: u64, length: u64) -> Result<(), PackageError> {
        let copied = (|| {
            self.file.flush()?;
            let mut file = &from.file;
            file.seek(SeekFrom::Start(offset))?;
            io::copy(&mut file.take(length), self.file.get_mut())
        })()
        .map_err(PackageError::file(&self.full))?;
        self.size += copied;
        if copied == length { Ok(()) } else { Err(from.cut_short()) }
    }

    /// Writes over bytes that are there already.
    pub(super) fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<(), PackageError> {
        let patched = self.file.flush().and_then(|()| self.file.get_ref().write_all_at(bytes, offset));
        patched.map_err(PackageError::file(&self.full))
    }
}

/// A rendition's file, read at random.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    pub(super) file: File,
    pub(super) size: u64,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, PackageError> {
        let open = || {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        };
        let (file, size) = open().map_err(PackageError::file(path))?;
        Ok(Self { path: path.to_owned(), file, size })
    }

    /// So many bytes at an offset; fewer are an error.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, PackageError> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Err(self.cut_short());
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset).map_err(PackageError::file(&self.path))?;
        Ok(bytes)
    }

    /// The file, to be read from its beginning.
    pub(super) fn rewound(&self) -> Result<&File, PackageError> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).map_err(PackageError::file(&self.path))?;
        Ok(file)
    }

    fn cut_short(&self) -> PackageError {
        PackageError::file(&self.path)(io::ErrorKind::UnexpectedEof.into())
    }
}
