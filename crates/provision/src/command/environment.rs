//! What a program finds in its environment.

use std::ffi::{OsStr, OsString};

use musterbeat_core::build::Build;
use tokio::process::Command;

/// Begins the names of the server's own variables, some of which are secrets.
const OWN_PREFIX: &[u8] = b"MUSTERBEAT_";

/// Variables of others that let one into the server's database.
const DATABASE: [&str; 2] = ["DATABASE_URL", "PGPASSWORD"];

/// Takes what the server keeps to itself out of the environment of `command`.
///
/// What is set for the program comes afterwards, as some of the names are the same.
pub(super) fn hide_secrets(command: &mut Command, names: impl Iterator<Item = OsString>) {
    for name in names.filter(|name| is_secret(name)) {
        command.env_remove(name);
    }
}

fn is_secret(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(OWN_PREFIX) || DATABASE.iter().any(|secret| name == *secret)
}

/// Returns the variables that hand a build over.
pub(super) fn variables(build: &Build) -> Vec<(&'static str, String)> {
    let parameters = serde_json::to_string(&build.parameters)
        .expect("a map of texts has no keys that JSON lacks");
    let mut variables = vec![
        ("MUSTERBEAT_BUILD_ID", build.id.to_string()),
        ("MUSTERBEAT_WORKSPACE_ID", build.workspace.to_string()),
        ("MUSTERBEAT_TRANSITION", build.transition.as_str().to_owned()),
        ("MUSTERBEAT_WORKSPACE_NAME", build.name.clone()),
        ("MUSTERBEAT_SOURCE", build.source.clone()),
        ("MUSTERBEAT_PARAMETERS", parameters),
    ];
    variables.extend(build.owner.map(|owner| ("MUSTERBEAT_OWNER_ID", owner.to_string())));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_server_are_removed() {
        let names = ["HOME", "MUSTERBEAT_CLUSTER_SECRET", "DATABASE_URL", "PATH", "PGPASSWORD"];
        let mut command = Command::new("true");
        hide_secrets(&mut command, names.into_iter().map(OsString::from));
        let removed: Vec<_> = command.as_std().get_envs().collect();
        let gone = ["DATABASE_URL", "MUSTERBEAT_CLUSTER_SECRET", "PGPASSWORD"];
        assert_eq!(removed, gone.map(|name| (OsStr::new(name), None)));
    }
}
