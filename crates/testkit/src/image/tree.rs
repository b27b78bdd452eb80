//! The files of the image.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tar::{Builder, EntryType, Header};

/// Changes when the choice of files does.
pub(super) const RECIPE: &str = "1";

/// The user that PostgreSQL runs as, the same as in the official image.
const POSTGRES_ID: u64 = 999;

/// What the entry script and `initdb` run, and two for somebody who looks into a container.
const PROGRAMS: &[&str] = &["initdb", "postgres", "pg_isready", "psql"];

/// Where the wheel's folders go; programs find `share` and `lib` beside their own folder.
const PREFIX: &str = "usr/local/pgsql";

const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\n\
                      postgres:x:999:999:PostgreSQL:/var/lib/postgresql:/bin/sh\n";
const GROUP: &str = "root:x:0:\npostgres:x:999:\n";

/// Folders that programs write to: path, mode, owner.
const FOLDERS: &[(&str, u32, u64)] = &[
    ("tmp", 0o1777, 0),
    ("var/run/postgresql", 0o775, POSTGRES_ID),
    ("var/lib/postgresql", 0o755, POSTGRES_ID),
    ("var/lib/postgresql/data", 0o700, POSTGRES_ID),
];

/// Packs the image's files: the programs in `bin_dir`, the shell, `entry`, and what they load.
pub(super) fn pack(bin_dir: &Path, entry: &str) -> Result<Vec<u8>> {
    let install = bin_dir.parent().context("the wheel's programs lie in no folder of their own")?;
    let mut tree = Tree::default();
    tree.text("etc/passwd", 0o644, PASSWD);
    tree.text("etc/group", 0o644, GROUP);
    tree.text("usr/local/bin/docker-entrypoint.sh", 0o755, entry);
    let lib = install.join("lib");
    tree.program(Path::new("bin/sh"), Path::new("/bin/sh"), &lib)?;
    for name in PROGRAMS {
        tree.program(&Path::new(PREFIX).join("bin").join(name), &bin_dir.join(name), &lib)?;
    }
    tree.folder(&Path::new(PREFIX).join("share"), &install.join("share"))?;
    tree.modules(&lib)?;
    tree.archive()
}

/// Files by their place in the image.
#[derive(Default)]
struct Tree {
    files: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

impl Tree {
    fn text(&mut self, place: &str, mode: u32, text: &str) {
        self.files.insert(PathBuf::from(place), (mode, text.as_bytes().to_vec()));
    }

    fn copy(&mut self, place: &Path, from: &Path, mode: u32) -> Result<()> {
        let bytes = fs::read(from).with_context(|| {
            format!("{} cannot be read: remove the cached wheel", from.display())
        })?;
        self.files.insert(place.to_owned(), (mode, bytes));
        Ok(())
    }

    /// Adds a program and the libraries that it loads.
    fn program(&mut self, place: &Path, from: &Path, lib: &Path) -> Result<()> {
        self.copy(place, from, 0o755)?;
        for library in libraries(from, lib)? {
            self.copy(&library.place(), &library.path, 0o755)?;
            // Older C libraries load this one by name when they look up a user.
            let users = library.path.with_file_name("libnss_files.so.2");
            if library.name.starts_with("libc.so") && users.exists() {
                self.copy(&Path::new(PREFIX).join("lib/libnss_files.so.2"), &users, 0o755)?;
            }
        }
        Ok(())
    }

    /// Adds a folder and everything below it, without documentation.
    fn folder(&mut self, place: &Path, from: &Path) -> Result<()> {
        for (name, path) in list(from)? {
            match (path.is_dir(), name.as_str()) {
                (true, "doc" | "man") => {}
                (true, _) => self.folder(&place.join(name), &path)?,
                (false, _) => self.copy(&place.join(name), &path, 0o644)?,
            }
        }
        Ok(())
    }

    /// Adds the server's modules from `lib`, without what only compilers read.
    fn modules(&mut self, lib: &Path) -> Result<()> {
        for (name, path) in list(lib)? {
            if path.is_file() && name.contains(".so") {
                self.copy(&Path::new(PREFIX).join("lib").join(name), &path, 0o755)?;
            }
        }
        Ok(())
    }

    /// Packs folders first, each above what it holds.
    fn archive(&self) -> Result<Vec<u8>> {
        let failed = "the image cannot be packed: is a name in the wheel too long?";
        let mut folders: BTreeMap<&Path, (u32, u64)> = BTreeMap::new();
        let named = FOLDERS.iter().map(|(place, ..)| Path::new(place));
        for place in self.files.keys().map(PathBuf::as_path).chain(named) {
            let above = place.ancestors().skip(1).filter(|above| *above != Path::new(""));
            folders.extend(above.map(|above| (above, (0o755, 0))));
        }
        folders.extend(FOLDERS.iter().map(|(place, mode, id)| (Path::new(*place), (*mode, *id))));

        let mut packed = Builder::new(Vec::new());
        for (place, (mode, owner)) in folders {
            append(&mut packed, EntryType::Directory, place, mode, owner, &[]).context(failed)?;
        }
        for (place, (mode, bytes)) in &self.files {
            append(&mut packed, EntryType::Regular, place, *mode, 0, bytes).context(failed)?;
        }
        packed.into_inner().context(failed)
    }
}

fn append(
    packed: &mut Builder<Vec<u8>>,
    kind: EntryType,
    place: &Path,
    mode: u32,
    owner: u64,
    bytes: &[u8],
) -> std::io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    packed.append_data(&mut header, place, bytes)
}

/// Returns the entries of a folder with their names.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = || format!("{} cannot be listed: remove the cached wheel", folder.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        entries.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    Ok(entries)
}

/// A library that a program loads.
#[derive(Debug, PartialEq, Eq)]
struct Library {
    /// What the program asks for: the name of a library, or the path of the interpreter.
    name: String,
    /// Where it is on this machine.
    path: PathBuf,
}

impl Library {
    fn place(&self) -> PathBuf {
        match self.name.strip_prefix('/') {
            // The kernel looks for it at the place that the program names.
            Some(interpreter) => PathBuf::from(interpreter),
            None => Path::new(PREFIX).join("lib").join(&self.name),
        }
    }
}

/// Asks what `program` loads, given that `lib` holds libraries too.
fn libraries(program: &Path, lib: &Path) -> Result<Vec<Library>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        // A wheel that was moved no longer finds its own libraries by itself.
        .env("LD_LIBRARY_PATH", lib)
        .output()
        .context("ldd does not run: install the tools of the C library")?;
    let listed = String::from_utf8_lossy(&output.stdout);
    if let Some(missing) = listed.lines().find(|line| line.contains("not found")) {
        bail!("{} lacks a library, install it: {}", program.display(), missing.trim());
    }
    Ok(listed.lines().filter_map(library).collect())
}

/// Reads a line of `ldd`: `name => path (address)`, or the interpreter's `path (address)`.
fn library(line: &str) -> Option<Library> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, path) = match words[..] {
        [path, _] if path.starts_with('/') => (path, path),
        [name, "=>", path, _] => (name, path),
        _ => return None,
    };
    Some(Library { name: name.to_owned(), path: PathBuf::from(path) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_move_to_the_prefix_and_the_interpreter_stays() {
        let place = |line| library(line).map(|found| found.place().display().to_string());
        assert_eq!(place("\tlinux-vdso.so.1 (0x00007f78e5fe2000)"), None);
        assert_eq!(
            place("\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f78e5fb2000)"),
            Some("usr/local/pgsql/lib/libz.so.1".to_owned())
        );
        assert_eq!(
            place("\t/lib64/ld-linux-x86-64.so.2 (0x00007f78e5fe4000)"),
            Some("lib64/ld-linux-x86-64.so.2".to_owned())
        );
    }
}
