//! Templates, presets and workspaces: the one place that changes them, and tells of it.

use std::sync::Arc;
use std::time::Instant;

use musterbeat_core::build::Transition;
use musterbeat_core::id::{BuildId, PresetId, RunId, TemplateId, TemplateVersionId, WorkspaceId};
use musterbeat_core::port::{
    Claimed, NewTemplate, PrebuildStore, Publish, Reach, StoreError, TemplateError, TemplateStore,
    Topic, WorkspaceError, WorkspaceStore,
};
use musterbeat_core::template::{
    NewPreset, NewVersion, Preset, PresetPatch, Template, TemplatePatch,
};
use musterbeat_core::workspace::Order;

use crate::metrics::{CLAIM_SECONDS, PREBUILDS_CLAIMED};

/// Where workspaces meet the world.
#[derive(Clone)]
pub struct WorkspacePorts {
    /// Keeps templates.
    pub templates: Arc<dyn TemplateStore>,
    /// Keeps workspaces.
    pub workspaces: Arc<dyn WorkspaceStore>,
    /// Keeps prebuilds.
    pub prebuilds: Arc<dyn PrebuildStore>,
    /// Tells of changes.
    pub publish: Arc<dyn Publish>,
}

/// Changes what workspaces are built from, and workspaces; wakes whoever has to act, after each
/// commit. Clones share the ports.
#[derive(Clone)]
pub struct Workspaces {
    ports: WorkspacePorts,
}

impl Workspaces {
    /// Changes what is behind `ports`.
    pub fn new(ports: WorkspacePorts) -> Self {
        Self { ports }
    }

    /// Adds a template; see [`TemplateStore::create`].
    pub async fn create_template(&self, template: &NewTemplate) -> Result<(), TemplateError> {
        self.ports.templates.create(template).await?;
        self.wants_look(template.id.uuid());
        Ok(())
    }

    /// Adds a version; see [`TemplateStore::add_version`].
    pub async fn add_version(
        &self,
        template: TemplateId,
        version: &NewVersion,
    ) -> Result<(), TemplateError> {
        self.ports.templates.add_version(template, version).await?;
        self.wants_look(template.uuid());
        Ok(())
    }

    /// Changes a template; see [`TemplateStore::update`].
    pub async fn update_template(
        &self,
        template: TemplateId,
        patch: &TemplatePatch,
    ) -> Result<Template, TemplateError> {
        let updated = self.ports.templates.update(template, patch).await?;
        self.wants_look(template.uuid());
        Ok(updated)
    }

    /// Deletes a template; see [`TemplateStore::delete`].
    pub async fn delete_template(&self, template: TemplateId) -> Result<bool, StoreError> {
        let deleted = self.ports.templates.delete(template).await?;
        self.wants_look(template.uuid());
        Ok(deleted)
    }

    /// Adds a preset; see [`TemplateStore::add_preset`].
    pub async fn add_preset(
        &self,
        version: TemplateVersionId,
        preset: &NewPreset,
    ) -> Result<(), TemplateError> {
        self.ports.templates.add_preset(version, preset).await?;
        self.wants_look(preset.id.uuid());
        Ok(())
    }

    /// Changes a preset; see [`TemplateStore::update_preset`].
    pub async fn update_preset(
        &self,
        preset: PresetId,
        patch: &PresetPatch,
    ) -> Result<Preset, TemplateError> {
        let updated = self.ports.templates.update_preset(preset, patch).await?;
        self.wants_look(preset.uuid());
        Ok(updated)
    }

    /// Deletes a preset; see [`TemplateStore::delete_preset`].
    pub async fn delete_preset(&self, preset: PresetId) -> Result<bool, StoreError> {
        let deleted = self.ports.templates.delete_preset(preset).await?;
        self.wants_look(preset.uuid());
        Ok(deleted)
    }

    /// Pauses the supply of all pools, or goes on with it; see [`PrebuildStore::pause`].
    pub async fn pause(&self, paused: bool) -> Result<(), StoreError> {
        self.ports.prebuilds.pause(paused).await?;
        self.wants_look(uuid::Uuid::nil());
        Ok(())
    }

    /// Claims a prebuild; see [`WorkspaceStore::claim`].
    pub async fn claim(&self, order: &Order) -> Result<WorkspaceId, WorkspaceError> {
        let asked = Instant::now();
        let Claimed { workspace, pool } = self.ports.workspaces.claim(order).await?;
        self.ordered(order.build);
        self.wants_look(order.preset.uuid());
        metrics::histogram!(CLAIM_SECONDS.name).record(asked.elapsed());
        if let Some(name) = pool {
            let labels = [("template_name", name.template), ("preset_name", name.preset)];
            metrics::counter!(PREBUILDS_CLAIMED.name, &labels).increment(1);
        }
        Ok(workspace)
    }

    /// Makes a workspace; see [`WorkspaceStore::create`].
    pub async fn create(&self, order: &Order) -> Result<WorkspaceId, WorkspaceError> {
        let workspace = self.ports.workspaces.create(order).await?;
        self.ordered(order.build);
        Ok(workspace)
    }

    /// Claims a prebuild, or makes a workspace when none is ready.
    pub async fn claim_or_create(&self, order: &Order) -> Result<WorkspaceId, WorkspaceError> {
        match self.claim(order).await {
            Err(WorkspaceError::NoClaimable) => self.create(order).await,
            answered => answered,
        }
    }

    /// Has a workspace started, stopped or deleted; see [`WorkspaceStore::build`].
    pub async fn build(
        &self,
        workspace: WorkspaceId,
        reach: Reach,
        build: BuildId,
        transition: Transition,
    ) -> Result<(), WorkspaceError> {
        self.ports.workspaces.build(workspace, reach, build, transition).await?;
        self.ordered(build);
        Ok(())
    }

    /// Wakes a worker for a build.
    fn ordered(&self, build: BuildId) {
        self.ports.publish.publish(Topic::Pending, RunId::from(build).uuid());
    }

    /// Wakes whoever supplies the pools.
    fn wants_look(&self, id: uuid::Uuid) {
        self.ports.publish.publish(Topic::Pool, id);
    }
}
