//! The password of the database's only user.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};

use crate::error::StartError;
use crate::folder::{DataFolder, Layout};
use crate::nofollow;

/// Random bytes in a password.
const RANDOM_BYTES: usize = 24;

/// A password in hexadecimal digits, which every URL and shell takes as they are.
#[derive(Clone)]
pub(crate) struct Password(String);

impl Password {
    /// Makes a new password and keeps it in the folder, safe on disk before a database knows it.
    pub(crate) fn create(folder: &DataFolder) -> Result<Self, StartError> {
        let path = folder.layout().password();
        let password = Self::random().map_err(StartError::io("make", &path))?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let mut file = folder.open_private(&path, &mut options)?;
        file.write_all(password.0.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(StartError::io("write", &path))?;
        Ok(password)
    }

    /// Reads the password of an existing database; `None` when the file is missing or empty.
    pub(crate) fn read(layout: &Layout) -> io::Result<Option<Self>> {
        let text = nofollow::read_in(&layout.root, Layout::PASSWORD)?;
        let password = text.map(|text| text.trim().to_owned());
        Ok(password.filter(|password| !password.is_empty()).map(Self))
    }

    /// Returns the URL of `database` on `port` of this machine.
    pub(crate) fn url(&self, port: u16, database: &str) -> String {
        // The server has no TLS, and without this word a client takes one from its environment.
        format!("postgres://postgres:{}@127.0.0.1:{port}/{database}?sslmode=disable", self.0)
    }

    fn random() -> io::Result<Self> {
        let mut bytes = [0; RANDOM_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let mut text = String::with_capacity(2 * RANDOM_BYTES);
        for byte in bytes {
            write!(text, "{byte:02x}").map_err(io::Error::other)?;
        }
        Ok(Self(text))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
