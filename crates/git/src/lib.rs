//! Tells of branches and pull requests, as their hosts have them.
//!
//! [`Hosts`] is made of the hosts that an operator sets, and implements the port
//! [`GitHosts`](musterbeat_core::port::GitHosts): whoever has a repository's origin, as
//! `git remote` names it, is given a provider that answers for this one repository.
//!
//! | provider | answers for | by |
//! |---|---|---|
//! | [`GitHub`](ProviderConfig::GitHub) | repositories of one host | its REST API, asked conditionally |
//! | [`Local`](ProviderConfig::Local) | repositories at or below one folder | reading them, without the program `git` |
//!
//! ```
//! use musterbeat_core::diff::Reference;
//! use musterbeat_core::id::OwnerId;
//! use musterbeat_core::port::{FetchError, GitHosts};
//! use musterbeat_git::{HostConfig, Hosts, ProviderConfig};
//!
//! # async fn example(owner: OwnerId) -> Result<(), Box<dyn std::error::Error>> {
//! let token = Some("ghp_of_the_deployment".to_owned().into());
//! let github = ProviderConfig::GitHub { api: None, token, reviews: false };
//! let hosts = Hosts::new(vec![HostConfig { origin: "github.com".to_owned(), provider: github }])?;
//!
//! let origin = "git@github.com:octo/hello.git";
//! let branch = Some("feature".to_owned());
//! let reference = Reference::new(None, branch, Some(origin.to_owned()))?;
//! match hosts.open(owner, origin).await?.fetch(&reference).await {
//!     Ok(Some(status)) => println!("+{} -{}", status.additions, status.deletions),
//!     Ok(None) => println!("no pull request yet"),
//!     Err(FetchError::RateLimited { wait }) => println!("left alone for {wait:?}"),
//!     Err(error) => println!("{error}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Answers of a REST API are kept in a cache that all hosts share, with a bound in bytes. Only the
//! fields that are read are kept, so that an entry takes less than a KB instead of some tens.
//! A token is part of an entry's key: nobody is told what another may see.

mod config;
mod hosts;
mod origin;

mod cache;
mod github;
mod local;

pub mod metrics;

pub use config::{HostConfig, HostError, Options, ProviderConfig};
pub use hosts::Hosts;
