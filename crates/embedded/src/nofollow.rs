//! Files and folders that are opened only where they really lie.
//!
//! A data folder that root uses belongs to an unprivileged user, whose processes may put symbolic
//! links into it at any moment. None of them may lead root to a place outside.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Opens the file at `path`, which may not be a link.
pub(crate) fn open_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

/// Opens the folder at `path`, which may not be a link.
pub(crate) fn open_folder(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// Reads the file `name` of `folder`, neither of which may be a link; `None` when there is none.
pub(crate) fn read_in(folder: &Path, name: &str) -> io::Result<Option<String>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = open_folder(folder)
        .and_then(|folder| Ok(File::from(openat(&folder, name, flags, Mode::empty())?)));
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(Some(text))
}

/// Removes the file `name` of `folder`, which may not be a link.
pub(crate) fn remove_in(folder: &Path, name: &str) -> io::Result<()> {
    Ok(unlinkat(open_folder(folder)?, name, UnlinkatFlags::NoRemoveDir)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_of_a_real_folder_is_read_and_removed() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read_in(root.path(), "file").unwrap(), None);
        assert_eq!(read_in(&root.path().join("absent"), "file").unwrap(), None);
        fs::write(root.path().join("file"), "text").unwrap();
        assert_eq!(read_in(root.path(), "file").unwrap().as_deref(), Some("text"));
        remove_in(root.path(), "file").unwrap();
        assert_eq!(read_in(root.path(), "file").unwrap(), None);
    }

    #[test]
    fn no_link_leads_to_a_file_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let (real, link) = (root.path().join("real"), root.path().join("link"));
        fs::create_dir(&real).unwrap();
        fs::write(real.join("file"), "precious").unwrap();
        symlink(&real, &link).unwrap();
        symlink(real.join("file"), real.join("alias")).unwrap();

        assert!(open_folder(&link).is_err());
        assert!(open_file(&real.join("alias"), OpenOptions::new().read(true)).is_err());
        assert!(read_in(&link, "file").is_err());
        assert!(read_in(&real, "alias").is_err());
        assert!(remove_in(&link, "file").is_err());
        assert_eq!(read_in(&real, "file").unwrap().as_deref(), Some("precious"));
    }
}
