//! Templates, their versions and presets.

use async_trait::async_trait;
use musterbeat_core::id::{PresetId, TemplateId, TemplateVersionId};
use musterbeat_core::port::{NewTemplate, StoreError, TemplateError, TemplateStore};
use musterbeat_core::template::{
    NewPreset, NewVersion, Preset, PresetPatch, Template, TemplatePatch, TemplateVersion,
};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::PgStore;
use crate::error::{failed, is_taken};
use crate::templates::Added;
use crate::{presets, templates};

const CREATE: &str = "create a template";
const ADD_VERSION: &str = "add a version";
const UPDATE: &str = "change a template";
const ADD_PRESET: &str = "add a preset";
const UPDATE_PRESET: &str = "change a preset";

#[async_trait]
impl TemplateStore for PgStore {
    async fn create(&self, template: &NewTemplate) -> Result<(), TemplateError> {
        let mut call = self.call(CREATE).await?;
        let created = timeout(self.answer_time, create(&mut call.conn, template)).await;
        call.answered(created)?
    }

    async fn add_version(
        &self,
        template: TemplateId,
        version: &NewVersion,
    ) -> Result<(), TemplateError> {
        let mut call = self.call(ADD_VERSION).await?;
        let added = add_version(&mut call.conn, template, version);
        let added = timeout(self.answer_time, added).await;
        call.answered(added)?
    }

    async fn update(
        &self,
        template: TemplateId,
        patch: &TemplatePatch,
    ) -> Result<Template, TemplateError> {
        let mut call = self.call(UPDATE).await?;
        let updated = timeout(self.answer_time, update(&mut call.conn, template, patch)).await;
        call.answered(updated)?
    }

    async fn delete(&self, template: TemplateId) -> Result<bool, StoreError> {
        let mut call = self.call("delete a template").await?;
        let deleted = timeout(self.answer_time, templates::delete(&mut call.conn, template)).await;
        call.ended(deleted)
    }

    async fn get(&self, template: TemplateId) -> Result<Option<Template>, StoreError> {
        let mut call = self.call("read a template").await?;
        let list = templates::list(&mut call.conn, Some(template));
        let found = timeout(self.answer_time, list).await;
        Ok(call.ended(found)?.pop())
    }

    async fn list(&self) -> Result<Vec<Template>, StoreError> {
        let mut call = self.call("list templates").await?;
        let listed = timeout(self.answer_time, templates::list(&mut call.conn, None)).await;
        call.ended(listed)
    }

    async fn versions(&self, template: TemplateId) -> Result<Vec<TemplateVersion>, StoreError> {
        let mut call = self.call("list versions").await?;
        let listed = timeout(self.answer_time, templates::versions(&mut call.conn, template)).await;
        call.ended(listed)
    }

    async fn add_preset(
        &self,
        version: TemplateVersionId,
        preset: &NewPreset,
    ) -> Result<(), TemplateError> {
        let mut call = self.call(ADD_PRESET).await?;
        let added = add_preset(&mut call.conn, version, preset);
        let added = timeout(self.answer_time, added).await;
        call.answered(added)?
    }

    async fn update_preset(
        &self,
        preset: PresetId,
        patch: &PresetPatch,
    ) -> Result<Preset, TemplateError> {
        let mut call = self.call(UPDATE_PRESET).await?;
        let updated = timeout(self.answer_time, update_preset(&mut call.conn, preset, patch)).await;
        call.answered(updated)?
    }

    async fn delete_preset(&self, preset: PresetId) -> Result<bool, StoreError> {
        let mut call = self.call("delete a preset").await?;
        let deleted = timeout(self.answer_time, presets::delete(&mut call.conn, preset)).await;
        call.ended(deleted)
    }

    async fn preset(&self, preset: PresetId) -> Result<Option<Preset>, StoreError> {
        let mut call = self.call("read a preset").await?;
        let found = timeout(self.answer_time, presets::get(&mut call.conn, preset)).await;
        call.ended(found)
    }

    async fn presets(&self, template: Option<TemplateId>) -> Result<Vec<Preset>, StoreError> {
        let mut call = self.call("list presets").await?;
        let listed = timeout(self.answer_time, presets::list(&mut call.conn, template)).await;
        call.ended(listed)
    }
}

/// Tells what a statement failed of that writes a name.
fn refused(operation: &'static str) -> impl Fn(sqlx::Error) -> TemplateError {
    move |error| {
        if is_taken(&error) { TemplateError::NameTaken } else { failed(operation)(error).into() }
    }
}

async fn create(conn: &mut PgConnection, template: &NewTemplate) -> Result<(), TemplateError> {
    let mut tx = conn.begin().await.map_err(failed(CREATE))?;
    match templates::insert(&mut tx, template).await.map_err(failed(CREATE))? {
        Added::New => {}
        Added::Before => return Ok(()),
        Added::NameTaken | Added::Nowhere => return Err(TemplateError::NameTaken),
    }
    let version = NewVersion { activate: true, ..template.version.clone() };
    insert_version(&mut tx, template.id, &version).await?;
    tx.commit().await.map_err(failed(CREATE))?;
    Ok(())
}

async fn add_version(
    conn: &mut PgConnection,
    template: TemplateId,
    version: &NewVersion,
) -> Result<(), TemplateError> {
    let mut tx = conn.begin().await.map_err(failed(ADD_VERSION))?;
    insert_version(&mut tx, template, version).await?;
    tx.commit().await.map_err(failed(ADD_VERSION))?;
    Ok(())
}

/// Adds a version with its presets, and makes it the active one if it is to be; one that is there
/// stays as it is.
async fn insert_version(
    conn: &mut PgConnection,
    template: TemplateId,
    version: &NewVersion,
) -> Result<(), TemplateError> {
    let added = templates::insert_version(conn, template, version).await;
    match added.map_err(failed(ADD_VERSION))? {
        Added::New => {}
        Added::Before => return Ok(()),
        Added::NameTaken => return Err(TemplateError::NameTaken),
        Added::Nowhere => return Err(TemplateError::NotFound),
    }
    presets::insert(conn, version.id, &version.presets).await.map_err(refused(ADD_VERSION))?;
    if version.activate {
        let patch = TemplatePatch { active_version: Some(version.id), ..TemplatePatch::default() };
        templates::update(conn, template, &patch).await.map_err(failed(ADD_VERSION))?;
    }
    Ok(())
}

async fn update(
    conn: &mut PgConnection,
    template: TemplateId,
    patch: &TemplatePatch,
) -> Result<Template, TemplateError> {
    if let Some(updated) =
        templates::update(conn, template, patch).await.map_err(refused(UPDATE))?
    {
        return Ok(updated);
    }
    let found = templates::list(conn, Some(template)).await.map_err(failed(UPDATE))?;
    Err(if found.is_empty() { TemplateError::NotFound } else { TemplateError::ForeignVersion })
}

async fn add_preset(
    conn: &mut PgConnection,
    version: TemplateVersionId,
    preset: &NewPreset,
) -> Result<(), TemplateError> {
    let added = presets::insert(conn, version, std::slice::from_ref(preset)).await;
    if added.map_err(refused(ADD_PRESET))? { Ok(()) } else { Err(TemplateError::NotFound) }
}

/// Changes, and reads what there is then, so that a repeated call is answered alike.
async fn update_preset(
    conn: &mut PgConnection,
    preset: PresetId,
    patch: &PresetPatch,
) -> Result<Preset, TemplateError> {
    presets::update(conn, preset, patch).await.map_err(failed(UPDATE_PRESET))?;
    let found = presets::get(conn, preset).await.map_err(failed(UPDATE_PRESET))?;
    found.ok_or(TemplateError::NotFound)
}
