//! Leftover servers: who they are, and how they go.

use std::fs;
use std::path::Path;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::error::StartError;
use crate::folder::DataFolder;
use crate::nofollow;
use crate::pidfile::PidFile;
use crate::shutdown::shut_down;

/// Ends a server that an earlier owner of `folder` left behind.
///
/// The lock of the folder is ours, so a server that lives in it has lost its owner.
pub(crate) fn evict_leftover(folder: &DataFolder) -> Result<(), StartError> {
    let pgdata = folder.layout().pgdata();
    let path = pgdata.join(PidFile::NAME);
    let Some(PidFile { pid, .. }) =
        PidFile::read(&pgdata).map_err(StartError::io("read", &path))?
    else {
        return Ok(());
    };
    if !shut_down_if_server(pid, &pgdata) {
        return Err(StartError::Leftover {
            data_dir: folder.layout().root.clone(),
            pid: pid.as_raw(),
        });
    }
    // PostgreSQL refuses to start when the number in the file is that of a living process of its
    // user, whatever that process is; a file with a dead number it replaces by itself.
    let is_left = PidFile::read(&pgdata).is_ok_and(|file| file.is_some());
    if is_left && kill(pid, None).is_ok() {
        nofollow::remove_in(&pgdata, PidFile::NAME).map_err(StartError::io("remove", &path))?;
    }
    Ok(())
}

/// Tells whether `pid` is a server that runs in `pgdata`, and not a later user of the number.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_server_of(pid: Pid, pgdata: &Path) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let is_postgres =
        fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == "postgres");
    let runs_here = match fs::read_link(process.join("cwd")) {
        Ok(folder) => folder == pgdata,
        // In a container even root may not look at another user's process, but anyone may read
        // its arguments. A zombie has none.
        Err(_) => fs::read(process.join("cmdline")).is_ok_and(|arguments| {
            arguments.split(|byte| *byte == 0).any(|argument| argument == path_bytes(pgdata))
        }),
    };
    is_postgres && runs_here
}

/// Tells whether `pid` is a server that runs in `pgdata`, and not a later user of the number.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn is_server_of(pid: Pid, pgdata: &Path) -> bool {
    let asked = std::process::Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
        .output();
    asked.is_ok_and(|answer| {
        let arguments = String::from_utf8_lossy(&answer.stdout).into_owned();
        arguments.contains("postgres") && arguments.contains(&*pgdata.to_string_lossy())
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn path_bytes(path: &Path) -> &[u8] {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())
}

/// Ends the server `pid` of `pgdata`; true when no such server is left.
fn shut_down_if_server(pid: Pid, pgdata: &Path) -> bool {
    shut_down(pid, || !is_server_of(pid, pgdata))
}
