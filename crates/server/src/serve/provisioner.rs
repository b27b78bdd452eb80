//! Who carries out builds, as the settings say.

use std::path::Path;
use std::sync::Arc;

use musterbeat_core::port::Provisioner;
use musterbeat_provision::{
    CommandLimits, CommandProvisioner, DirectoryLimits, DirectoryProvisioner, Program,
};

use crate::settings::{ProvisionerChoice, Settings};

/// Returns who carries out builds on this replica, `None` when nobody can.
pub(super) fn chosen(settings: &Settings) -> Option<Arc<dyn Provisioner>> {
    match settings.provisioner() {
        ProvisionerChoice::None => None,
        ProvisionerChoice::Directory => directory(settings).map(|found| Arc::new(found) as _),
        ProvisionerChoice::Command(path) => Some(Arc::new(command(settings, &path))),
    }
}

/// One program for all transitions: it is told which.
fn command(settings: &Settings, path: &Path) -> CommandProvisioner {
    let program = Program { path: path.to_owned(), args: vec![] };
    CommandProvisioner {
        start: program.clone(),
        claim: Some(program.clone()),
        stop: Some(program.clone()),
        delete: program,
        limits: CommandLimits { time_max: settings.build_timeout, ..CommandLimits::default() },
    }
}

/// A folder that the server chose by itself is made; one that was named must be there, or what is
/// to be mounted on it would be hidden later.
fn directory(settings: &Settings) -> Option<DirectoryProvisioner> {
    let provisioner = DirectoryProvisioner {
        root: settings.workspaces_folder(),
        templates: settings.templates_folder(),
        limits: DirectoryLimits::default(),
    };
    let own = [
        (settings.workspaces_dir.is_none(), &provisioner.root),
        (settings.templates_dir.is_none(), &provisioner.templates),
    ];
    for (_, folder) in own.into_iter().filter(|(is_own, _)| *is_own) {
        // What fails here, the check explains.
        let _ = std::fs::create_dir_all(folder);
    }
    match provisioner.check() {
        Ok(()) => Some(provisioner),
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "this replica serves no builds"
            );
            None
        }
    }
}
