//! Which folder a source names.

use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use async_trait::async_trait;
use musterbeat_core::port::BuildContext;
use musterbeat_core::run::StopCause;

use super::DirectoryLimits;
use super::brake::Brake;
use super::copy::Copy;
use super::error::{CheckError, TemplateError, WorkError};
use super::remove::remove;

/// Returns the folder of the template `source`, without links in its path.
///
/// A link in the folder of templates may lead to another template, as `current` does.
pub(super) fn find(templates: &Path, source: &str, root: &Path) -> Result<PathBuf, WorkError> {
    if !is_plain(source) {
        return Err(TemplateError::Source(source.to_owned()).into());
    }
    let unreadable = |source| CheckError::Templates { templates: templates.to_owned(), source };
    let templates = templates.canonicalize().map_err(unreadable)?;
    let path = templates.join(source);
    let found = match path.canonicalize() {
        Ok(found) if found.is_dir() => found,
        Err(error) if !is_absence(&error) => {
            return Err(WorkError::file("read the template", &path)(error));
        }
        _ => return Err(TemplateError::Missing(source.to_owned()).into()),
    };
    if !found.starts_with(&templates) {
        return Err(TemplateError::Outside(source.to_owned()).into());
    }
    // A copy would be copied, and that copy again.
    if root.canonicalize().is_ok_and(|root| root.starts_with(&found)) {
        return Err(TemplateError::HoldsRoot(source.to_owned()).into());
    }
    Ok(found)
}

/// Copies `folder` to the template `source`, which is not there yet.
pub(super) fn add(
    folder: &Path,
    templates: &Path,
    source: &str,
    limits: DirectoryLimits,
) -> Result<(), WorkError> {
    if !is_plain(source) {
        return Err(TemplateError::Source(source.to_owned()).into());
    }
    let folder = folder.canonicalize().map_err(WorkError::file("read the folder", folder))?;
    let to = templates.join(source);
    if fs::symlink_metadata(&to).is_ok() {
        return Err(TemplateError::Added(source.to_owned()).into());
    }
    // Below the folder of templates, where a rename stays on one filesystem.
    let parent = to.parent().unwrap_or(templates);
    fs::create_dir_all(parent).map_err(WorkError::file("create", parent))?;
    let part = templates.join(format!(".add-{}", std::process::id()));
    let (brake, nobody) = (Brake::default(), Nobody);
    remove(&part, &brake, &nobody)?;
    let copied = Copy::new(&folder, limits, &brake, &nobody).run(&part);
    let added =
        copied.and_then(|()| fs::rename(&part, &to).map_err(WorkError::file("create", &to)));
    if added.is_err() {
        let _ = remove(&part, &brake, &nobody);
    }
    added
}

/// One who neither stops nor listens.
struct Nobody;

#[async_trait]
impl BuildContext for Nobody {
    async fn stopped(&self) -> StopCause {
        std::future::pending().await
    }

    fn log(&self, _line: &str) {}
}

/// Says whether `source` is made of names alone, and says so itself: `a//b` and `a/./b` do not.
fn is_plain(source: &str) -> bool {
    let names = Path::new(source).components().map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let names: Option<Vec<&str>> = names.collect();
    !source.contains('\0')
        && names.is_some_and(|names| !names.is_empty() && names.join("/") == source)
}

fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_source_leads_below() {
        for source in ["rust", "rust/2024", ".hidden", "a b", "..."] {
            assert!(is_plain(source), "{source:?}");
        }
        for source in
            ["", ".", "..", "/", "/etc", "../a", "a/..", "a/../b", "a/", "a//b", "./a", "a\0"]
        {
            assert!(!is_plain(source), "{source:?}");
        }
    }

    #[test]
    fn a_template_is_added_once_and_whole() {
        let ground = tempfile::tempdir().unwrap();
        let (folder, templates) = (ground.path().join("mine"), ground.path().join("templates"));
        fs::create_dir_all(folder.join("below")).unwrap();
        fs::write(folder.join("below/file"), "text").unwrap();
        let limits = DirectoryLimits::default();
        add(&folder, &templates, "hello/v1", limits).unwrap();
        let text = fs::read_to_string(templates.join("hello/v1/below/file")).unwrap();
        assert_eq!(text, "text");
        fs::write(folder.join("below/file"), "other").unwrap();
        let again = add(&folder, &templates, "hello/v1", limits).unwrap_err().to_string();
        assert!(again.contains("there is a template \"hello/v1\" already"), "{again}");
        assert!(add(&folder, &templates, "../out", limits).is_err());
        let few = DirectoryLimits { files_max: 1, ..limits };
        assert!(add(&folder, &templates, "hello/v2", few).is_err());
        assert!(!templates.join("hello/v2").exists());
        let text = fs::read_to_string(templates.join("hello/v1/below/file")).unwrap();
        assert_eq!(text, "text", "a template that is there is not changed");
        let left: Vec<_> = fs::read_dir(&templates).unwrap().collect();
        assert_eq!(left.len(), 1, "what was copied in vain is removed");
    }
}
