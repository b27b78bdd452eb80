//! What a workspace tells the programs in it of themselves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use musterbeat_core::build::Build;
use musterbeat_core::id::{OwnerId, WorkspaceId};
use serde::Serialize;

use super::error::WorkError;
use super::places::Places;

/// The name of the file in a workspace's folder.
pub(super) const NAME: &str = ".musterbeat.json";

#[derive(Serialize)]
struct Label<'a> {
    workspace_id: WorkspaceId,
    name: &'a str,
    owner_id: Option<OwnerId>,
    parameters: &'a BTreeMap<String, String>,
}

/// Writes the label of `build` into `folder`; readers see the old one or the new one.
///
/// What is there is replaced and never opened: it may be a link, or a FIFO.
pub(super) fn write(build: &Build, places: &Places, folder: &Path) -> Result<(), WorkError> {
    let label = Label {
        workspace_id: build.workspace,
        name: &build.name,
        owner_id: build.owner,
        parameters: &build.parameters,
    };
    let mut text = serde_json::to_vec_pretty(&label).expect("a label has no keys that JSON lacks");
    text.push(b'\n');
    let (part, place) = (places.label(), folder.join(NAME));
    forget(&part)?;
    let written = File::create_new(&part).and_then(|mut file| file.write_all(&text));
    written.map_err(WorkError::file("write", &part))?;
    fs::rename(&part, &place).map_err(WorkError::file("write", &place))
}

/// Removes a file or link that may be there.
pub(super) fn forget(path: &Path) -> Result<(), WorkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(WorkError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}
