//! Where PgBouncer's program is: installed, or fetched from Debian without root's rights.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use musterbeat_embedded::default_cache_dir;

/// Folder of the fetched program, inside the cache.
const FOLDER: &str = "pgbouncer";

/// Where packages put it, which is in the `PATH` of administrators only.
const USUAL: &str = "/usr/sbin";

/// A program, and the libraries that were fetched with it.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    libraries: Vec<PathBuf>,
}

impl Program {
    /// Returns a command that runs it.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if !self.libraries.is_empty() {
            let paths = env::join_paths(&self.libraries).unwrap_or_default();
            command.env("LD_LIBRARY_PATH", paths);
        }
        command
    }

    /// Runs it once to see that it can be run.
    fn tried(self) -> Result<Self> {
        output(self.command().arg("--version"))?;
        Ok(self)
    }
}

/// Finds the program, or fetches it into the cache, where it stays.
pub(super) fn find() -> Result<Program> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain([PathBuf::from(USUAL)]);
    let installed = places.map(|folder| folder.join("pgbouncer")).find(|path| path.is_file());
    match installed {
        Some(path) => Program { path, libraries: Vec::new() }.tried(),
        None => fetched().context("it is not installed, and it cannot be fetched from Debian"),
    }
}

fn fetched() -> Result<Program> {
    let cache = default_cache_dir();
    // Root's pooler runs as somebody else.
    DirBuilder::new().recursive(true).mode(0o755).create(&cache)?;
    // One fetches, the others wait for it.
    let fetching = File::create(cache.join(format!("{FOLDER}.lock")))?;
    fetching.lock()?;
    let root = cache.join(FOLDER);
    if let Ok(program) = unpacked(&root).tried() {
        return Ok(program);
    }
    let fresh = cache.join(format!("{FOLDER}.new"));
    for folder in [&root, &fresh] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    let packages = fresh.join("packages");
    DirBuilder::new().recursive(true).mode(0o755).create(&packages)?;
    Apt { folder: packages.clone() }.fetch_into(&fresh)?;
    fs::remove_dir_all(&packages)?;
    fs::rename(&fresh, &root)?;
    unpacked(&root).tried()
}

/// Returns the program as it lies in the folder where its packages were unpacked.
fn unpacked(root: &Path) -> Program {
    let above = ["lib", "usr/lib"].map(|name| root.join(name));
    let below = above.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
    let libraries = below.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    Program { path: root.join("usr/sbin/pgbouncer"), libraries: libraries.collect() }
}

/// Debian's archive, asked for single packages, which land in `folder`.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Unpacks PgBouncer and the libraries that it needs into `root`.
    fn fetch_into(&self, root: &Path) -> Result<()> {
        let pooler = self.download("pgbouncer").or_else(|_| {
            // The machine's own lists of packages are old, or not there as in most containers.
            self.run(&["update"])?;
            self.download("pgbouncer")
        })?;
        let depends = output(Command::new("dpkg-deb").arg("-f").arg(&pooler).arg("Depends"))?;
        unpack(&pooler, root)?;
        for library in libraries(&depends) {
            unpack(&self.download(library)?, root)?;
        }
        Ok(())
    }

    fn download(&self, name: &str) -> Result<PathBuf> {
        self.run(&["download", name])?;
        let prefix = format!("{name}_");
        let mut files = fs::read_dir(&self.folder)?.flatten().map(|entry| entry.path());
        let is_asked = |path: &PathBuf| {
            path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix))
        };
        files.find(is_asked).with_context(|| format!("apt-get left no package of {name}"))
    }

    /// Runs apt-get on lists of our own where they are there, else on the machine's.
    fn run(&self, words: &[&str]) -> Result<()> {
        let lists = self.folder.join("lists");
        let mut command = Command::new("apt-get");
        command.current_dir(&self.folder).env("LC_ALL", "C");
        if words == ["update"] {
            DirBuilder::new().recursive(true).create(lists.join("partial"))?;
        }
        if lists.exists() {
            let cache = self.folder.join("cache");
            DirBuilder::new().recursive(true).create(cache.join("archives/partial"))?;
            command.arg("-o").arg(format!("Dir::State::Lists={}", lists.display()));
            command.arg("-o").arg(format!("Dir::Cache={}", cache.display()));
        }
        // Root's apt-get would fetch as a user who may not write here.
        command.args(["-qq", "-o", "APT::Sandbox::User=root"]).args(words);
        output(&mut command).map(drop)
    }
}

/// Picks the libraries, but for the one that every program has, out of what a package needs.
fn libraries(depends: &str) -> impl Iterator<Item = &str> {
    let names = depends.split([',', '|']).filter_map(|need| need.split_whitespace().next());
    names.filter(|name| name.starts_with("lib") && *name != "libc6")
}

fn unpack(package: &Path, root: &Path) -> Result<()> {
    output(Command::new("dpkg-deb").arg("-x").arg(package).arg(root)).map(drop)
}

/// Runs a program to its end and returns what it wrote.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("no {name} here"))?;
    let complaint = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{name} failed ({}): {}", done.status, complaint.trim());
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_fetched_with_it() {
        let depends = "lsb-base (>= 3.1), libc-ares2 (>= 1.12), libc6 (>= 2.36), libpam0g | other";
        assert_eq!(libraries(depends).collect::<Vec<_>>(), ["libc-ares2", "libpam0g"]);
    }
}
