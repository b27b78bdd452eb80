//! What is done for a build, while its workspace is locked.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use musterbeat_core::build::{Build, Transition};
use musterbeat_core::port::BuildContext;

use super::DirectoryLimits;
use super::brake::Brake;
use super::copy::Copy;
use super::error::WorkError;
use super::lock::Lock;
use super::places::Places;
use super::remove::remove;
use super::{label, link, template};

/// Entries between two lines of the log that tell how far work came: 500 lines for the largest
/// template by default.
pub(super) const ENTRIES_BETWEEN_LINES: u64 = 2_000;

/// One build, and what it is carried out with.
pub(super) struct Work {
    pub(super) places: Places,
    pub(super) templates: PathBuf,
    pub(super) limits: DirectoryLimits,
    pub(super) build: Build,
    pub(super) brake: Brake,
    pub(super) context: Arc<dyn BuildContext>,
}

impl Work {
    /// Does what is not done yet; it blocks.
    pub(super) fn carry_out(&self, lock: Lock) -> Result<(), WorkError> {
        let done = match self.build.transition {
            Transition::Start => self.start(),
            Transition::Claim => self.claim(),
            Transition::Stop => Ok(()),
            Transition::Delete => self.delete(),
        };
        lock.release(&self.places);
        done
    }

    fn start(&self) -> Result<(), WorkError> {
        let part = self.places.start();
        remove(&part, &self.brake, &*self.context)?;
        if self.is_there()? {
            self.context.log("the folder is there already, and is left as it is");
            // A claim that failed may have left another's label.
            label::write(&self.build, &self.places, &self.places.workspace())?;
            return self.link();
        }
        if let Err(error) = self.prepare() {
            // Who stops shall not wait: what was copied is removed by the next build.
            if !matches!(error, WorkError::Stopped) {
                // The first error says more than one that follows from it.
                let _ = remove(&part, &self.brake, &*self.context);
            }
            return Err(error);
        }
        let place = self.places.workspace();
        fs::rename(&part, &place).map_err(WorkError::file("create", &place))?;
        self.link()
    }

    /// Makes what is to be the workspace, beside its place.
    fn prepare(&self) -> Result<(), WorkError> {
        let template = template::find(&self.templates, &self.build.source, self.places.root())?;
        let part = self.places.start();
        let mut copy = Copy::new(&template, self.limits, &self.brake, &*self.context);
        copy.run(&part)?;
        copy.tell();
        label::write(&self.build, &self.places, &part)
    }

    fn claim(&self) -> Result<(), WorkError> {
        if !self.is_there()? {
            return Err(WorkError::Unstarted(self.places.workspace()));
        }
        label::write(&self.build, &self.places, &self.places.workspace())?;
        self.link()
    }

    fn delete(&self) -> Result<(), WorkError> {
        if let Some(owner) = self.build.owner {
            link::sweep(&self.places, owner, None)?;
        }
        let (place, leaving) = (self.places.workspace(), self.places.delete());
        // A deletion that began earlier.
        remove(&leaving, &self.brake, &*self.context)?;
        if fs::symlink_metadata(&place).is_ok() {
            fs::rename(&place, &leaving).map_err(WorkError::file("remove", &place))?;
            remove(&leaving, &self.brake, &*self.context)?;
        }
        remove(&self.places.start(), &self.brake, &*self.context)?;
        label::forget(&self.places.label())?;
        label::forget(&self.places.link())
    }

    /// Says whether the workspace has its folder.
    fn is_there(&self) -> Result<bool, WorkError> {
        let place = self.places.workspace();
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_dir() => Ok(true),
            Ok(_) => Err(WorkError::Taken(place)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(WorkError::file("read", &place)(error)),
        }
    }

    /// Links the workspace under its owner, if it has one.
    fn link(&self) -> Result<(), WorkError> {
        let Some(owner) = self.build.owner else {
            return Ok(());
        };
        if !link::write(&self.places, owner, &self.build.name)? {
            self.context.log("the workspace is not linked: its name cannot be a file's");
        }
        Ok(())
    }
}
