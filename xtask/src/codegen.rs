//! `cargo xtask codegen`: files that are generated, committed, and never edited.
//!
//! A generator returns what its files should contain; whether that is written or compared is
//! decided here, once for all of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use musterbeat_testkit::TestServer;

use crate::{postgres, product, workspace};

mod crates;
#[cfg(feature = "product")]
mod metrics;
#[cfg(feature = "product")]
mod openapi;
mod queries;
mod schema;
#[cfg(feature = "product")]
mod states;

/// Writes the generated files, or checks that they are up to date.
#[derive(Debug, Default, Args)]
pub(crate) struct Codegen {
    /// What to generate [default: everything].
    #[arg(value_enum)]
    only: Vec<Generator>,

    /// Compare with the committed files instead of writing, and fail when one is stale.
    #[arg(long)]
    check: bool,
}

/// What can be generated, in the order in which one needs the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Generator {
    /// The drawing of which crate uses which, in docs/architecture.md.
    Crates,
    /// The final schema, docs/schema.sql.
    Schema,
    /// What the checked statements return, crates/db/.sqlx.
    Queries,
    /// What happens to a chat in each state, in docs/chats.md.
    States,
    /// The list of metrics, docs/metrics.md.
    Metrics,
    /// The description of the HTTP interface, docs/openapi.json.
    Openapi,
}

/// What a generator makes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Output {
    /// Text by path from the root.
    files: BTreeMap<String, String>,
    /// A folder in which every other file is stale.
    owned: Option<&'static str>,
}

impl Output {
    fn file(path: &str, text: String) -> Self {
        Self { files: BTreeMap::from([(path.to_owned(), text)]), owned: None }
    }

    /// Puts `text` between the markers that `name` a section, and leaves the rest of the page alone.
    fn section(path: &str, name: &str, text: &str) -> Result<Self> {
        let page = replaced(&workspace::read(path)?, name, text).with_context(|| {
            let [begin, end] = markers(name);
            format!("found no place for a section: put the lines `{begin}` and `{end}` into {path}")
        })?;
        Ok(Self::file(path, page))
    }
}

fn markers(name: &str) -> [String; 2] {
    ["begin", "end"].map(|edge| format!("<!-- {edge} generated: {name} -->"))
}

/// Returns `page` with `text` between the markers of `name`, or `None` where it has none.
fn replaced(page: &str, name: &str, text: &str) -> Option<String> {
    let [begin, end] = markers(name);
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{text}{end}{after}"))
}

impl Codegen {
    /// Everything, compared and not written.
    pub(crate) fn check_all() -> Self {
        Self { only: Vec::new(), check: true }
    }

    /// Generates on a server of its own, if one is needed.
    pub(crate) async fn run(&self) -> Result<()> {
        if !self.generators().any(Generator::needs_postgres) {
            return self.run_on(None).await;
        }
        let server = postgres::start(None).await?;
        let done = self.run_on(Some(&server)).await;
        done.and(server.stop().await)
    }

    /// Generates with the help of `server`, which some generators need.
    pub(crate) async fn run_on(&self, server: Option<&TestServer>) -> Result<()> {
        let (later, here): (Vec<_>, Vec<_>) =
            self.generators().partition(|one| one.needs_product() && !product::LINKED);
        let mut stale = Vec::new();
        for generator in &here {
            let output = generator.generate(server).await?;
            let differing = differing(workspace::root(), &output)?;
            if !self.check {
                write(workspace::root(), &output, &differing)?;
            }
            stale.extend(differing);
        }
        if !here.is_empty() {
            self.report(&stale)?;
        }
        // Last, because the product compiles only once its statements are described.
        if !later.is_empty() {
            product::relaunch(self.args(&later)).await?;
        }
        Ok(())
    }

    fn generators(&self) -> impl Iterator<Item = Generator> {
        let wanted = |one: &Generator| self.only.is_empty() || self.only.contains(one);
        Generator::value_variants().iter().copied().filter(wanted)
    }

    /// The words that run `generators` in the same way.
    fn args(&self, generators: &[Generator]) -> Vec<String> {
        let names = generators.iter().filter_map(Generator::to_possible_value);
        let mut args = vec!["codegen".to_owned()];
        args.extend(names.map(|value| value.get_name().to_owned()));
        args.extend(self.check.then(|| "--check".to_owned()));
        args
    }

    fn report(&self, stale: &[String]) -> Result<()> {
        let list = stale.join("\n  ");
        match (stale.is_empty(), self.check) {
            (true, _) => println!("codegen: up to date"),
            (false, false) => println!("codegen: written\n  {list}"),
            (false, true) => bail!(
                "these generated files are stale\n  {list}\n\
                 run `cargo xtask codegen` and commit what it writes"
            ),
        }
        Ok(())
    }
}

impl Generator {
    fn needs_product(self) -> bool {
        matches!(self, Self::States | Self::Metrics | Self::Openapi)
    }

    fn needs_postgres(self) -> bool {
        matches!(self, Self::Schema | Self::Queries)
    }

    async fn generate(self, server: Option<&TestServer>) -> Result<Output> {
        let server = || server.context("this generator needs a PostgreSQL, and none was started");
        match self {
            Self::Crates => crates::generate(),
            Self::Schema => schema::generate(server()?).await,
            Self::Queries => queries::generate(server()?).await,
            #[cfg(feature = "product")]
            Self::States => states::generate(),
            #[cfg(feature = "product")]
            Self::Metrics => Ok(metrics::generate()),
            #[cfg(feature = "product")]
            Self::Openapi => Ok(openapi::generate()),
            #[cfg(not(feature = "product"))]
            Self::States | Self::Metrics | Self::Openapi => {
                bail!("{self:?} needs the feature `product` of xtask")
            }
        }
    }
}

/// Returns the paths whose content under `root` is not what `output` says, sorted.
fn differing(root: &Path, output: &Output) -> Result<Vec<String>> {
    let changed = output.files.iter().filter(|(path, text)| {
        std::fs::read_to_string(root.join(path)).ok().as_ref() != Some(text)
    });
    let mut paths: Vec<_> = changed.map(|(path, _)| path.clone()).collect();
    let listed = output.owned.map(|folder| (folder, std::fs::read_dir(root.join(folder))));
    // A folder that is not there yet holds nothing stale.
    if let Some((folder, Ok(entries))) = listed {
        for entry in entries {
            let name = entry.with_context(|| format!("failed to list {folder}"))?.file_name();
            let path = format!("{folder}/{}", name.to_string_lossy());
            if !output.files.contains_key(&path) {
                paths.push(path);
            }
        }
    }
    paths.sort();
    Ok(paths)
}

/// Makes `paths` what `output` says; what it does not mention is removed.
fn write(root: &Path, output: &Output, paths: &[String]) -> Result<()> {
    for path in paths {
        let target = root.join(path);
        let done = match output.files.get(path) {
            None => std::fs::remove_file(&target),
            Some(text) => target
                .parent()
                .map_or(Ok(()), std::fs::create_dir_all)
                .and_then(|()| std::fs::write(&target, text)),
        };
        done.with_context(|| format!("failed to write {path}: is the checkout writable?"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_missing_and_superfluous_files_are_told_and_mended() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("data")).unwrap();
        for (path, text) in [("data/same", "1"), ("data/old", "2"), ("data/changed", "3")] {
            std::fs::write(root.path().join(path), text).unwrap();
        }
        let wanted = [("data/same", "1"), ("data/changed", "4"), ("new/file", "5")];
        let files = wanted.map(|(path, text)| (path.to_owned(), text.to_owned()));
        let output = Output { files: BTreeMap::from(files), owned: Some("data") };

        let stale = differing(root.path(), &output).unwrap();
        assert_eq!(stale, ["data/changed", "data/old", "new/file"]);

        write(root.path(), &output, &stale).unwrap();
        assert_eq!(differing(root.path(), &output).unwrap(), Vec::<String>::new());
        assert!(!root.path().join("data/old").exists());
    }

    #[test]
    fn page_around_the_markers_stays() {
        let [begin, end] = markers("part");
        let page = |text| format!("above\n{begin}\n{text}{end}\nbelow\n");
        assert_eq!(replaced(&page("old\n"), "part", "new\n"), Some(page("new\n")));
        assert_eq!(replaced(&page("old\n"), "other", "new\n"), None);
    }

    #[test]
    fn the_relaunched_program_gets_the_same_wish() {
        let args = Codegen::check_all().args(&[Generator::Metrics, Generator::Openapi]);
        assert_eq!(args, ["codegen", "metrics", "openapi", "--check"]);
    }
}
