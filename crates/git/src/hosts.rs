//! Who tells of which repositories.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use musterbeat_core::id::OwnerId;
use musterbeat_core::port::{FetchError, GitHosts, GitProvider};
use reqwest::Url;
use tokio::sync::Semaphore;

use crate::cache::Cache;
use crate::config::{HostConfig, HostError, Options, ProviderConfig};
use crate::github::GitHub;
use crate::local::{Folder, LocalRepository, READERS};
use crate::origin::Origin;

/// The hosts that an operator sets, each with one right to ask for all owners.
#[derive(Debug)]
pub struct Hosts {
    remotes: BTreeMap<String, Arc<GitHub>>,
    folders: Vec<Arc<Folder>>,
    readers: Arc<Semaphore>,
}

impl Hosts {
    /// Makes hosts of what an operator set, with the usual limits.
    ///
    /// # Errors
    /// See [`Self::with_options`].
    pub fn new(configs: Vec<HostConfig>) -> Result<Self, HostError> {
        Self::with_options(configs, &Options::DEFAULT)
    }

    /// Makes hosts of what an operator set. Folders are looked up, which blocks; no host is asked.
    ///
    /// # Errors
    /// Names the field that is wrong, and what to give instead.
    pub fn with_options(configs: Vec<HostConfig>, options: &Options) -> Result<Self, HostError> {
        let cache = Arc::new(Cache::new(options.cache_bytes_max));
        let readers = Arc::new(Semaphore::new(READERS));
        let mut hosts = Self { remotes: BTreeMap::new(), folders: Vec::new(), readers };
        for (config, number) in configs.into_iter().zip(1..) {
            match &config.provider {
                ProviderConfig::GitHub { api, token, reviews } => {
                    let name = host_name(&config.origin).ok_or(HostError::HostName { number })?;
                    let settings = (api.as_deref(), token.as_ref(), *reviews);
                    let host = GitHub::new(name.clone(), settings, &cache, options)?;
                    if hosts.remotes.insert(name.clone(), Arc::new(host)).is_some() {
                        return Err(HostError::Duplicate(name));
                    }
                }
                ProviderConfig::Local => hosts.add_folder(config.origin.into())?,
            }
        }
        Ok(hosts)
    }

    fn add_folder(&mut self, path: PathBuf) -> Result<(), HostError> {
        if !path.is_absolute() {
            return Err(HostError::RelativeFolder(path));
        }
        let folder = Folder::new(&path)
            .map_err(|source| HostError::Folder { folder: path.clone(), source })?;
        if self.folders.iter().any(|other| other.root() == folder.root()) {
            return Err(HostError::Duplicate(path.display().to_string()));
        }
        self.folders.push(Arc::new(folder));
        Ok(())
    }

    async fn local(&self, path: &Path) -> Option<LocalRepository> {
        for folder in &self.folders {
            let (folder, readers) = (Arc::clone(folder), Arc::clone(&self.readers));
            let found = LocalRepository::open(folder, path.to_owned(), readers).await;
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

#[async_trait]
impl GitHosts for Hosts {
    async fn open(
        &self,
        _owner: OwnerId,
        origin: &str,
    ) -> Result<Arc<dyn GitProvider>, FetchError> {
        match Origin::parse(origin) {
            Some(Origin::Remote(remote)) => {
                let host = self.remotes.get(&remote.host).ok_or(FetchError::NoHost)?;
                Ok(Arc::new(Arc::clone(host).open(remote)?))
            }
            Some(Origin::Folder(path)) => {
                Ok(Arc::new(self.local(&path).await.ok_or(FetchError::NoHost)?))
            }
            None => Err(FetchError::NoHost),
        }
    }
}

/// Returns a host's name in lower case; `None` for a text that is more or less than one.
fn host_name(text: &str) -> Option<String> {
    let name = text.to_ascii_lowercase();
    let url = Url::parse(&format!("https://{name}/")).ok()?;
    (url.host_str() == Some(&name)).then_some(name)
}
