use async_trait::async_trait;

use super::StoreError;
use crate::id::{PresetId, TemplateId, TemplateVersionId};
use crate::template::{
    NewPreset, NewVersion, Preset, PresetPatch, Template, TemplatePatch, TemplateRules,
    TemplateVersion,
};

/// Keeps templates, their versions and presets.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait TemplateStore: Send + Sync {
    /// Adds a template with its first version, which becomes active; repeated, it changes nothing.
    async fn create(&self, template: &NewTemplate) -> Result<(), TemplateError>;

    /// Adds a version with its presets; repeated, it changes nothing.
    async fn add_version(
        &self,
        template: TemplateId,
        version: &NewVersion,
    ) -> Result<(), TemplateError>;

    /// Changes a template.
    async fn update(
        &self,
        template: TemplateId,
        patch: &TemplatePatch,
    ) -> Result<Template, TemplateError>;

    /// Deletes a template: nothing is made of it any more, and its prebuilds go.
    ///
    /// Its workspaces stay. Returns false when it is not there.
    async fn delete(&self, template: TemplateId) -> Result<bool, StoreError>;

    /// Returns a template that is not deleted.
    async fn get(&self, template: TemplateId) -> Result<Option<Template>, StoreError>;

    /// Returns all templates that are not deleted, by name; 1,000 at most.
    async fn list(&self) -> Result<Vec<Template>, StoreError>;

    /// Returns a template's versions, the youngest first; 1,000 at most.
    async fn versions(&self, template: TemplateId) -> Result<Vec<TemplateVersion>, StoreError>;

    /// Adds a preset to a version; repeated, it changes nothing.
    async fn add_preset(
        &self,
        version: TemplateVersionId,
        preset: &NewPreset,
    ) -> Result<(), TemplateError>;

    /// Changes a preset; it is healthy then.
    async fn update_preset(
        &self,
        preset: PresetId,
        patch: &PresetPatch,
    ) -> Result<Preset, TemplateError>;

    /// Deletes a preset: its prebuilds go, its workspaces stay. Returns false when it is not there.
    async fn delete_preset(&self, preset: PresetId) -> Result<bool, StoreError>;

    /// Returns a preset that is not deleted.
    async fn preset(&self, preset: PresetId) -> Result<Option<Preset>, StoreError>;

    /// Returns the presets of a template's active version, or of all templates', by the names of
    /// template and preset; 1,000 at most.
    async fn presets(&self, template: Option<TemplateId>) -> Result<Vec<Preset>, StoreError>;
}

/// A template to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTemplate {
    /// Names it.
    pub id: TemplateId,
    /// What people call it.
    pub name: String,
    /// How its workspaces live.
    pub rules: TemplateRules,
    /// Its first version.
    pub version: NewVersion,
}

/// A template was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// What is to be changed is not there.
    #[error("there is no such template, version or preset")]
    NotFound,
    /// Another one bears the name.
    #[error("the name is taken")]
    NameTaken,
    /// The version is of another template.
    #[error("the version is not one of this template")]
    ForeignVersion,
    /// Storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
