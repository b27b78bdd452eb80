//! The database folder: its version, its birth.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{self, Command};
use std::time::Duration;

use crate::command;
use crate::error::StartError;
use crate::folder::DataFolder;
use crate::nofollow;
use crate::options::Durability;
use crate::password::Password;
use crate::source::Binaries;

/// `initdb` takes about a second; this is for a disk that is very busy.
const INITDB_LIMIT: Duration = Duration::from_mins(3);

/// How the name of a database in the making begins.
const UNFINISHED: &str = "postgres.new.";

/// Returns the major version that made the folder's database, `None` when there is none yet.
pub(crate) fn major(folder: &DataFolder) -> Result<Option<u32>, StartError> {
    let pgdata = folder.layout().pgdata();
    if !pgdata.exists() {
        return Ok(None);
    }
    let version = nofollow::read_in(&pgdata, "PG_VERSION").ok().flatten();
    match version.and_then(|text| text.trim().parse().ok()) {
        Some(major) => Ok(Some(major)),
        None => Err(StartError::Damaged { pgdata }),
    }
}

/// Checks that `binaries` can run a database that `data_major` made.
pub(crate) fn check_major(
    folder: &DataFolder,
    data_major: Option<u32>,
    binaries: &Binaries,
) -> Result<(), StartError> {
    match data_major {
        Some(data_major) if data_major != binaries.version.major => Err(StartError::OtherMajor {
            data_dir: folder.layout().root.clone(),
            data_major,
            binaries: binaries.version,
            bin_dir: binaries.bin_dir.clone(),
        }),
        _ => Ok(()),
    }
}

/// Returns the password of the database, which is created first where it is missing.
pub(crate) fn prepare(
    folder: &DataFolder,
    binaries: &Binaries,
    durability: Durability,
    report: &dyn Fn(&str),
) -> Result<Password, StartError> {
    let path = folder.layout().password();
    if folder.layout().pgdata().exists() {
        return Password::read(folder.layout())
            .map_err(StartError::io("read", &path))?
            .ok_or(StartError::PasswordLost { path });
    }
    report(&format!(
        "creating a PostgreSQL {} database in {}",
        binaries.version,
        folder.layout().root.display()
    ));
    // Its own password first: a database that exists always has one beside it.
    let password = Password::create(folder)?;
    create(folder, binaries, durability)?;
    Ok(password)
}

/// Creates the database under another name, so that it appears complete or not at all.
fn create(
    folder: &DataFolder,
    binaries: &Binaries,
    durability: Durability,
) -> Result<(), StartError> {
    let layout = folder.layout();
    remove_unfinished(&layout.root);
    // The name is our own: programs of an `initdb` that was killed may still write to theirs.
    let unfinished = layout.root.join(format!("{UNFINISHED}{}", process::id()));
    let made = command::run(initdb(folder, binaries, durability, &unfinished), INITDB_LIMIT);
    if let Err(source) = made {
        remove_unfinished(&layout.root);
        return Err(StartError::Initdb { pgdata: layout.pgdata(), source });
    }
    fs::rename(&unfinished, layout.pgdata())
        .map_err(StartError::io("move the new database", &unfinished))?;
    if durability == Durability::Full {
        File::open(&layout.root)
            .and_then(|root| root.sync_all())
            .map_err(StartError::io("sync", &layout.root))?;
    }
    Ok(())
}

fn initdb(
    folder: &DataFolder,
    binaries: &Binaries,
    durability: Durability,
    pgdata: &Path,
) -> Command {
    let mut password_file = OsString::from("--pwfile=");
    password_file.push(folder.layout().password());
    let mut command = Command::new(binaries.program("initdb"));
    command
        .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
        .arg("--no-instructions")
        .arg(password_file)
        .arg("--pgdata")
        .arg(pgdata);
    if durability == Durability::None {
        command.arg("--no-sync");
    }
    confine(&mut command, folder);
    command
}

/// Makes `command` see nothing of our environment and run as the folder's user, inside the folder.
pub(crate) fn confine(command: &mut Command, folder: &DataFolder) {
    // Without a locale in the environment, macOS starts threads to find one, and PostgreSQL stops.
    command.env_clear().env("LC_ALL", "C").current_dir(&folder.layout().root);
    folder.run_as().apply(command);
}

/// Removes what interrupted starts left; the rest of it is for the next start.
fn remove_unfinished(root: &Path) {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED))
    {
        let _ = fs::remove_dir_all(entry.path());
    }
}
