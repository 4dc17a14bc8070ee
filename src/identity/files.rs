//! Files that are complete or absent: written beside their place, synced, then moved into it.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;

use super::{IdentityError, key::random};

/// Permission bits that would let somebody else in.
const OTHERS: u32 = 0o077;

/// Replaces the file at `path`, or makes it, with mode 0600.
pub(crate) fn replace(path: &Path, octets: &[u8]) -> Result<(), IdentityError> {
    let temporary = write_beside(path, octets)?;
    if let Err(error) = fs::rename(&temporary, path) {
        let _ = fs::remove_file(&temporary);
        return Err(IdentityError::io("write", path)(error));
    }
    sync_folder_of(path)
}

/// Makes the file at `path` with mode 0600; [`IdentityError::Exists`] with `hint` if there is one.
pub(crate) fn create(path: &Path, octets: &[u8], hint: &'static str) -> Result<(), IdentityError> {
    let temporary = write_beside(path, octets)?;
    // A hard link, unlike a rename, fails if the name is taken.
    let linked = fs::hard_link(&temporary, path);
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => sync_folder_of(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(IdentityError::Exists { path: path.display().to_string(), hint })
        }
        Err(error) => Err(IdentityError::io("write", path)(error)),
    }
}

/// Reads a file of at most `limit` bytes; `None` if there is none.
pub(crate) fn read_if_present(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, IdentityError> {
    match File::open(path) {
        Ok(file) => read_open(file, path, limit).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(IdentityError::io("open", path)(error)),
    }
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, IdentityError> {
    let file = File::open(path).map_err(IdentityError::io("open", path))?;
    read_open(file, path, limit)
}

/// As [`read`], of a file that nobody else may read or change.
pub(crate) fn read_secret(path: &Path, limit: u64) -> Result<Vec<u8>, IdentityError> {
    let file = File::open(path).map_err(IdentityError::io("open", path))?;
    // Of the open file, not of the path: what is checked is what is read.
    let metadata = file.metadata().map_err(IdentityError::io("read", path))?;
    check_private(path, metadata.mode(), 0o600)?;
    read_open(file, path, limit)
}

/// Refuses a file or folder on which group or others have any permission.
pub(super) fn check_private(path: &Path, mode: u32, wanted: u32) -> Result<(), IdentityError> {
    let mode = mode & 0o7777;
    if mode & OTHERS == 0 {
        Ok(())
    } else {
        Err(IdentityError::Exposed { path: path.display().to_string(), mode, wanted })
    }
}

fn read_open(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, IdentityError> {
    let mut octets = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut octets).map_err(IdentityError::io("read", path))?;
    if octets.len() as u64 > limit {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes"));
        return Err(IdentityError::io("read", path)(source));
    }
    Ok(octets)
}

/// Writes a complete file of mode 0600 beside `path` and returns where.
fn write_beside(path: &Path, octets: &[u8]) -> Result<PathBuf, IdentityError> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", HEXLOWER.encode(&random::<8>()?)));
    let temporary = path.with_file_name(name);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
        file.write_all(octets)?;
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(IdentityError::io("write", path)(error))
        }
    }
}

/// Makes a new name in a folder survive a crash.
fn sync_folder_of(path: &Path) -> Result<(), IdentityError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(IdentityError::io("write", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_limited_and_leave_nothing_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(read_if_present(&path, 9).unwrap(), None);
        create(&path, b"one", "hint").unwrap();
        assert!(matches!(create(&path, b"two", "hint"), Err(IdentityError::Exists { .. })));
        assert_eq!(read(&path, 3).unwrap(), b"one");
        replace(&path, b"three").unwrap();
        assert!(read(&path, 4).unwrap_err().to_string().contains("longer than 4 bytes"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("x"), "x").unwrap();
        assert!(matches!(replace(&path, b"new"), Err(IdentityError::Io { action: "write", .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(&folder.path().join("none/file"), b"new").is_err());
    }
}
