//! Carries out builds of workspaces, as the port
//! [`Provisioner`](musterbeat_core::port::Provisioner) asks.
//!
//! [`CommandProvisioner`] runs one of the operator's programs for each build.

pub mod command;

mod explain;

pub use command::{CommandLimits, CommandProvisioner, Program};
