//! Carries out builds of workspaces, as the port
//! [`Provisioner`](musterbeat_core::port::Provisioner) asks.
//!
//! | provisioner | a workspace is | a build is |
//! |---|---|---|
//! | [`CommandProvisioner`] | whatever the operator's programs make | a start of one of them |
//! | [`DirectoryProvisioner`] | a folder | a copy of a template's folder |
//!
//! ```
//! use std::sync::Arc;
//!
//! use musterbeat_core::build::Build;
//! use musterbeat_core::port::{BuildContext, ProvisionError, Provisioner};
//! use musterbeat_provision::{CheckError, DirectoryLimits, DirectoryProvisioner, add_template};
//!
//! # async fn example(build: Build, context: Arc<dyn BuildContext>) -> Result<(), CheckError> {
//! let provisioner = DirectoryProvisioner {
//!     root: "/srv/workspaces".into(),
//!     templates: "/srv/templates".into(),
//!     limits: DirectoryLimits::default(),
//! };
//! // A replica that cannot write there should serve no builds.
//! provisioner.check()?;
//! match provisioner.provision(&build, context).await {
//!     Ok(_) => println!("it is done"),
//!     Err(ProvisionError::Invalid(why)) => println!("not to be asked again: {why}"),
//!     Err(error) => println!("worth another attempt: {error}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A build that is carried out again after the death of its process comes to the same: folders by
//! what is found in them, programs by the promise of who wrote them.

pub mod command;
pub mod directory;

mod explain;

pub use command::{CommandLimits, CommandProvisioner, Program};
pub use directory::{
    AddTemplateError, CheckError, DirectoryLimits, DirectoryProvisioner, add_template,
};
