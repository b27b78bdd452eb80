//! Which folder a source names.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::error::{CheckError, TemplateError, WorkError};

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
}
