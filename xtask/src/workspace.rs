//! Where the workspace lies, and how its commands are started.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Begins the variables by which cargo tells a program of its package, here of `xtask`.
const OF_A_PACKAGE: [&str; 2] = ["CARGO_MANIFEST_", "CARGO_PKG_"];

/// Returns the root folder of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the manifest of xtask lies one folder below the root")
}

/// Returns `path` relative to the root, with forward slashes, as it is shown and compared.
pub(crate) fn relative(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap_or(path);
    path.to_string_lossy().replace('\\', "/")
}

/// Reads a file named relative to the root.
pub(crate) fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path))
        .with_context(|| format!("failed to read {path}: run this from a complete checkout"))
}

/// Returns the cargo that started this program, working in the root folder.
///
/// It is not told of our own package: a build script that watches such a variable, like that of
/// `ring`, would run anew, with all that is built upon it, whenever cargo was started otherwise.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if OF_A_PACKAGE.iter().any(|beginning| name.starts_with(beginning)) {
            command.env_remove(variable);
        }
    }
    command.current_dir(root()).args(args);
    command
}

/// Runs `command` to its end, its output passing through; dropping this kills it.
pub(crate) async fn run(command: Command) -> Result<()> {
    let shown = shown(&command);
    let status = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("failed to start `{shown}`: is it installed?"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status}): see its output above");
    }
    Ok(())
}

/// Runs `command` to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("failed to start `{}`: is it installed?", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}):\n{stderr}", shown(command), output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not UTF-8", shown(command)))
}

/// Returns `command` as one would type it, without the path of the program.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    std::iter::once(program.file_name().unwrap_or(program.as_os_str()))
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns every Rust file below `folders`, sorted; folders that do not exist hold none.
pub(crate) fn rust_files(folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut open = folders.to_vec();
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        if !folder.is_dir() {
            continue;
        }
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("failed to list {}: may it be read?", folder.display()))?;
        for entry in entries {
            let path = entry.context("failed to list a folder")?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension() == Some(OsStr::new("rs")) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_not_told_of_our_own_package() {
        let command = cargo(["build"]);
        let removed = |name: &str| {
            assert!(std::env::var_os(name).is_some(), "{name} is what cargo sets for a test");
            command.get_envs().any(|(variable, value)| variable == name && value.is_none())
        };
        assert!(removed("CARGO_MANIFEST_DIR") && removed("CARGO_PKG_NAME"));
        assert!(!removed("CARGO"));
    }
}
