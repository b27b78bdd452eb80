//! Links by which people find workspaces.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use musterbeat_core::id::OwnerId;

use super::error::WorkError;
use super::label::forget;
use super::places::{Places, is_file_name};

/// Links the workspace as `name` under `owner`, and under no other name.
///
/// What is linked there already by that name gives way: names are an owner's own. Returns whether
/// there is a link: not every name can be a file's.
pub(super) fn write(places: &Places, owner: OwnerId, name: &str) -> Result<bool, WorkError> {
    if !is_file_name(name) {
        sweep(places, owner, None)?;
        return Ok(false);
    }
    let folder = places.links_of(owner);
    fs::create_dir_all(&folder).map_err(WorkError::file("create", &folder))?;
    let (target, place) = (places.link_target(), folder.join(name));
    if fs::read_link(&place).ok().as_ref() != Some(&target) {
        let part = places.link();
        forget(&part)?;
        symlink(&target, &part).map_err(WorkError::file("link", &part))?;
        fs::rename(&part, &place).map_err(WorkError::file("link", &place))?;
    }
    sweep(places, owner, Some(OsStr::new(name)))?;
    Ok(true)
}

/// Removes the links of `owner` to the workspace but for the one that is to be kept.
pub(super) fn sweep(
    places: &Places,
    owner: OwnerId,
    kept: Option<&OsStr>,
) -> Result<(), WorkError> {
    let folder = places.links_of(owner);
    let failed = || WorkError::file("read", &folder);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed())?,
    };
    let target = places.link_target();
    for entry in entries {
        let entry = entry.map_err(failed())?;
        let path = entry.path();
        if Some(&*entry.file_name()) != kept && fs::read_link(&path).is_ok_and(|to| to == target) {
            forget(&path)?;
        }
    }
    Ok(())
}
