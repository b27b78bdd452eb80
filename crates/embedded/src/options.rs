//! What a server is made of.

use std::path::PathBuf;

use crate::source::Source;

/// What a server is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the binaries come from.
    pub source: Source,
    /// The folder of the database and all that belongs to it; created when missing.
    pub data_dir: PathBuf,
    /// Where fetched binaries are kept; several processes may share it.
    pub cache_dir: PathBuf,
    /// What a crash of the machine may cost.
    pub durability: Durability,
    /// Settings of PostgreSQL, name and value; those that keep it private cannot be changed.
    pub settings: Vec<(String, String)>,
}

/// What a crash of the machine may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was committed, which is PostgreSQL's default.
    #[default]
    Full,
    /// The whole database: for tests, which are faster for it.
    None,
}
