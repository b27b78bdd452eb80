//! What is said and shown of templates, their versions and presets.

use std::collections::BTreeMap;
use std::time::Duration;

use musterbeat_core::id::{PresetId, TemplateId, TemplateVersionId};
use musterbeat_core::invalid::{Invalid, check_text};
use musterbeat_core::port::NewTemplate;
use musterbeat_core::prebuild::{self, ScheduleInput};
use musterbeat_core::template::{self, NAME_BYTES_MAX, NewPreset, NewVersion, PoolWish};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// A template to create, with its first version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "name": "hello", "version": {
    "name": "v1", "source": "hello",
    "presets": [{ "name": "small", "pool": { "desired_instances": 3 } }],
} })))]
pub(crate) struct CreateTemplate {
    /// What to call it, at most 64 bytes; no other template bears the same name.
    #[schema(pattern = r"^[^\x00]*[^\s\x00][^\x00]*$", max_length = 64)]
    name: String,
    /// How its workspaces live.
    #[serde(default)]
    rules: TemplateRules,
    /// Its first version, which becomes the active one.
    version: AddVersion,
}

impl CreateTemplate {
    pub(crate) fn checked(self) -> Result<NewTemplate, Invalid> {
        check_text("name", &self.name, NAME_BYTES_MAX)?;
        let version = self.version.checked().map_err(|invalid| invalid.within("version"))?;
        Ok(NewTemplate {
            id: TemplateId::new(Uuid::now_v7()),
            name: self.name,
            rules: self.rules.checked()?,
            version,
        })
    }
}

/// How a template's workspaces live; times are in seconds.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TemplateRules {
    /// Whether no workspaces are to be made of it any more.
    deprecated: bool,
    /// How long a workspace may run once started; null for ever.
    #[schema(minimum = 1, maximum = 31_536_000)]
    ttl: Option<u32>,
    /// How far activity may extend that; null for ever.
    #[schema(minimum = 1, maximum = 31_536_000)]
    max_ttl: Option<u32>,
    /// Whether a workspace may have another time.
    user_ttl_allowed: bool,
    /// How far from now activity moves a deadline; 0 for not at all.
    #[schema(minimum = 0, maximum = 31_536_000)]
    activity_bump: u32,
}

impl Default for TemplateRules {
    fn default() -> Self {
        template::TemplateRules::default().into()
    }
}

impl TemplateRules {
    fn checked(self) -> Result<template::TemplateRules, Invalid> {
        let rules = template::TemplateRules {
            deprecated: self.deprecated,
            ttl: self.ttl.map(time),
            max_ttl: self.max_ttl.map(time),
            user_ttl_allowed: self.user_ttl_allowed,
            activity_bump: time(self.activity_bump),
        };
        rules.check().map_err(|invalid| invalid.within("rules"))?;
        Ok(rules)
    }
}

impl From<template::TemplateRules> for TemplateRules {
    fn from(rules: template::TemplateRules) -> Self {
        Self {
            deprecated: rules.deprecated,
            ttl: rules.ttl.map(seconds),
            max_ttl: rules.max_ttl.map(seconds),
            user_ttl_allowed: rules.user_ttl_allowed,
            activity_bump: seconds(rules.activity_bump),
        }
    }
}

/// What to change of a template; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "rules": { "ttl": 28_800 } })))]
pub(crate) struct PatchTemplate {
    /// What to call it.
    #[serde(default)]
    #[schema(nullable = false, pattern = r"^[^\x00]*[^\s\x00][^\x00]*$", max_length = 64)]
    name: Option<String>,
    /// Which of its versions new workspaces are of; prebuilds of others go.
    #[serde(default)]
    #[schema(nullable = false)]
    active_version_id: Option<Uuid>,
    /// How its workspaces live, as a whole.
    #[serde(default)]
    rules: Option<TemplateRules>,
}

impl PatchTemplate {
    pub(crate) fn checked(self) -> Result<template::TemplatePatch, Invalid> {
        if let Some(name) = &self.name {
            check_text("name", name, NAME_BYTES_MAX)?;
        }
        Ok(template::TemplatePatch {
            name: self.name,
            active_version: self.active_version_id.map(TemplateVersionId::new),
            rules: self.rules.map(TemplateRules::checked).transpose()?,
        })
    }
}

/// A version to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "name": "v2", "source": "hello" })))]
pub(crate) struct AddVersion {
    /// What to call it, at most 64 bytes; unique within the template.
    #[schema(pattern = r"^[^\x00]*[^\s\x00][^\x00]*$", max_length = 64)]
    name: String,
    /// What it is made of, as the provisioner reads it: of folders, the path of the template's
    /// below the folder of templates.
    #[schema(pattern = r"^[^\x00]*[^\s\x00][^\x00]*$", max_length = 4_096)]
    source: String,
    /// Its presets, each with a name of its own.
    #[serde(default)]
    #[schema(max_items = 50)]
    presets: Vec<PresetInput>,
    /// Whether it becomes the active version; by default it does.
    #[serde(default = "yes")]
    activate: bool,
}

const fn yes() -> bool {
    true
}

impl AddVersion {
    pub(crate) fn checked(self) -> Result<NewVersion, Invalid> {
        let version = NewVersion {
            id: TemplateVersionId::new(Uuid::now_v7()),
            name: self.name,
            source: self.source,
            presets: self.presets.into_iter().map(PresetInput::taken).collect(),
            activate: self.activate,
        };
        version.check()?;
        Ok(version)
    }
}

/// A preset of a version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PresetInput {
    /// What to call it, at most 64 bytes; unique within the version.
    #[schema(pattern = r"^[^\x00]*[^\s\x00][^\x00]*$", max_length = 64)]
    name: String,
    /// With what its workspaces are built.
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    /// How many prebuilds it wants; by default none.
    #[serde(default)]
    pool: PoolInput,
}

impl PresetInput {
    fn taken(self) -> NewPreset {
        NewPreset {
            id: PresetId::new(Uuid::now_v7()),
            name: self.name,
            parameters: self.parameters,
            pool: self.pool.taken(),
        }
    }

    pub(crate) fn checked(self) -> Result<NewPreset, Invalid> {
        let preset = self.taken();
        preset.check()?;
        Ok(preset)
    }
}

/// How many prebuilds are to stand ready, and when.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PoolInput {
    /// How many when no schedule says otherwise; 0 for none.
    #[schema(minimum = 0, maximum = 1_000)]
    desired_instances: u32,
    /// Seconds after which a prebuild is replaced; null for never.
    #[schema(minimum = 1, maximum = 31_536_000)]
    ttl: Option<u32>,
    /// Where the schedules' hours are, as the IANA names it, such as `Europe/Lisbon`.
    timezone: String,
    /// When others are wanted; no two may hold in the same hour.
    #[schema(max_items = 20)]
    schedules: Vec<Schedule>,
}

/// Hours and days in which another number of prebuilds is wanted.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schedule {
    /// Five fields, of which the first is `*`, such as `* 8-18 * * 1-5`.
    #[schema(max_length = 200)]
    cron: String,
    /// How many prebuilds are wanted then.
    #[schema(minimum = 0, maximum = 1_000)]
    desired_instances: u32,
}

impl Default for PoolInput {
    fn default() -> Self {
        PoolWish::default().into()
    }
}

impl PoolInput {
    fn taken(self) -> PoolWish {
        let schedules = self.schedules.into_iter().map(|schedule| ScheduleInput {
            cron: schedule.cron,
            desired: schedule.desired_instances,
        });
        PoolWish {
            desired: self.desired_instances,
            ttl: self.ttl.map(time),
            timezone: self.timezone,
            schedules: schedules.collect(),
        }
    }
}

impl From<PoolWish> for PoolInput {
    fn from(wish: PoolWish) -> Self {
        let schedules = wish
            .schedules
            .into_iter()
            .map(|schedule| Schedule { cron: schedule.cron, desired_instances: schedule.desired });
        Self {
            desired_instances: wish.desired,
            ttl: wish.ttl.map(seconds),
            timezone: wish.timezone,
            schedules: schedules.collect(),
        }
    }
}

/// A preset to add to a version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreatePreset {
    /// The version.
    version_id: Uuid,
    /// What to call it, at most 64 bytes; unique within the version.
    #[schema(pattern = r"^[^\x00]*[^\s\x00][^\x00]*$", max_length = 64)]
    name: String,
    /// With what its workspaces are built.
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    /// How many prebuilds it wants; by default none.
    #[serde(default)]
    pool: PoolInput,
}

impl CreatePreset {
    pub(crate) fn checked(self) -> Result<(TemplateVersionId, NewPreset), Invalid> {
        let Self { version_id, name, parameters, pool } = self;
        let preset = PresetInput { name, parameters, pool }.checked()?;
        Ok((TemplateVersionId::new(version_id), preset))
    }
}

/// What to change of a preset; what is left out stays. It is healthy again then.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "pool": { "desired_instances": 5 } })))]
pub(crate) struct PatchPreset {
    /// How many prebuilds it wants, as a whole.
    #[serde(default)]
    pool: Option<PoolInput>,
    /// Whether prebuilds from before are to be replaced.
    #[serde(default)]
    invalidate: bool,
}

impl PatchPreset {
    pub(crate) fn checked(self) -> Result<template::PresetPatch, Invalid> {
        let pool = self.pool.map(PoolInput::taken);
        if let Some(pool) = &pool {
            pool.check().map_err(|invalid| invalid.within("pool"))?;
        }
        Ok(template::PresetPatch { pool, invalidate: self.invalidate })
    }
}

/// What workspaces are built from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Template {
    id: Uuid,
    name: String,
    /// Which version new workspaces are of.
    #[schema(required)]
    active_version_id: Option<Uuid>,
    rules: TemplateRules,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<template::Template> for Template {
    fn from(template: template::Template) -> Self {
        Self {
            id: template.id.uuid(),
            name: template.name,
            active_version_id: template.active_version.map(TemplateVersionId::uuid),
            rules: template.rules.into(),
            created_at: template.created_at.time(),
        }
    }
}

/// A version of a template; none is ever changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TemplateVersion {
    id: Uuid,
    template_id: Uuid,
    name: String,
    source: String,
    /// Whether it is the one that new workspaces are of.
    is_active: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<template::TemplateVersion> for TemplateVersion {
    fn from(version: template::TemplateVersion) -> Self {
        Self {
            id: version.id.uuid(),
            template_id: version.template.uuid(),
            name: version.name,
            source: version.source,
            is_active: version.is_active,
            created_at: version.created_at.time(),
        }
    }
}

/// Parameters with which workspaces of a version are built, and how many are to stand ready.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Preset {
    id: Uuid,
    template_id: Uuid,
    version_id: Uuid,
    name: String,
    parameters: BTreeMap<String, String>,
    pool: PoolInput,
    #[schema(inline)]
    health: Health,
    /// Whether it is of the active version of a template that may be used.
    is_active: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// Whether prebuilds of a preset are made at all.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Health {
    /// They are.
    Healthy,
    /// So many failed in a row that nobody tries any more.
    HardLimited,
    /// What it asks for is not valid.
    ValidationFailed,
}

impl From<prebuild::Health> for Health {
    fn from(health: prebuild::Health) -> Self {
        match health {
            prebuild::Health::Healthy => Self::Healthy,
            prebuild::Health::HardLimited => Self::HardLimited,
            prebuild::Health::ValidationFailed => Self::ValidationFailed,
        }
    }
}

impl From<template::Preset> for Preset {
    fn from(preset: template::Preset) -> Self {
        Self {
            id: preset.id.uuid(),
            template_id: preset.template.uuid(),
            version_id: preset.version.uuid(),
            name: preset.name,
            parameters: preset.parameters,
            pool: preset.pool.into(),
            health: preset.health.into(),
            is_active: preset.is_active,
            created_at: preset.created_at.time(),
        }
    }
}

fn time(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
