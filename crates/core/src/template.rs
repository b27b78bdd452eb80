//! What workspaces are built from: templates, their versions, and the presets of those.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{PresetId, TemplateId, TemplateVersionId};
use crate::invalid::{Invalid, check_text};
use crate::prebuild::{DESIRED_MAX, Health, ScheduleInput, Schedules};
use crate::timestamp::Timestamp;

/// Bytes of the name of a template, a version, a preset or a workspace, at most.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of the source of a version, at most.
pub const SOURCE_BYTES_MAX: usize = 4_096;

/// Presets that come with a version, at most.
pub const PRESETS_MAX: usize = 50;

/// Parameters of a preset, at most.
pub const PARAMETERS_MAX: usize = 64;

/// Bytes of all names and values of a preset's parameters together, at most: they fit into one
/// variable of an environment.
pub const PARAMETERS_BYTES_MAX: usize = 64 * 1024;

/// Longest time that a workspace or a prebuild may be given, and the furthest that activity moves
/// a deadline: a year.
pub const TIME_MAX: Duration = Duration::from_hours(365 * 24);

/// What workspaces are built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Names it.
    pub id: TemplateId,
    /// What people call it; no other one that is not deleted bears the same name.
    pub name: String,
    /// Which version new workspaces are of.
    pub active_version: Option<TemplateVersionId>,
    /// How its workspaces live.
    pub rules: TemplateRules,
    /// When it was created.
    pub created_at: Timestamp,
}

/// How a template's workspaces live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateRules {
    /// Whether no workspaces are to be made of it any more.
    pub deprecated: bool,
    /// How long a workspace may run once started; `None` for ever.
    pub ttl: Option<Duration>,
    /// How far activity may extend that; `None` for ever.
    pub max_ttl: Option<Duration>,
    /// Whether a workspace may have another time.
    pub user_ttl_allowed: bool,
    /// How far from now activity moves a deadline; zero for not at all.
    pub activity_bump: Duration,
}

impl Default for TemplateRules {
    fn default() -> Self {
        let activity_bump = Duration::from_hours(1);
        Self { deprecated: false, ttl: None, max_ttl: None, user_ttl_allowed: true, activity_bump }
    }
}

impl TemplateRules {
    /// Checks what would not fit.
    ///
    /// # Errors
    /// Names the field and its limit.
    pub fn check(&self) -> Result<(), Invalid> {
        self.ttl.map_or(Ok(()), |ttl| check_time("ttl", ttl))?;
        self.max_ttl.map_or(Ok(()), |ttl| check_time("max_ttl", ttl))?;
        if self.activity_bump.is_zero() {
            return Ok(());
        }
        check_time("activity_bump", self.activity_bump)
    }
}

/// What changes about a template; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplatePatch {
    /// What people call it.
    pub name: Option<String>,
    /// Which of its versions new workspaces are of.
    pub active_version: Option<TemplateVersionId>,
    /// How its workspaces live.
    pub rules: Option<TemplateRules>,
}

/// A version of a template; none is ever changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateVersion {
    /// Names it.
    pub id: TemplateVersionId,
    /// Of which template.
    pub template: TemplateId,
    /// What people call it; unique within the template.
    pub name: String,
    /// What it is made of, as its provisioner reads it.
    pub source: String,
    /// Whether it is the one that new workspaces are of.
    pub is_active: bool,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A version to add, with its presets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVersion {
    /// Names it.
    pub id: TemplateVersionId,
    /// What people call it.
    pub name: String,
    /// What it is made of.
    pub source: String,
    /// Its presets.
    pub presets: Vec<NewPreset>,
    /// Whether it becomes the active one.
    pub activate: bool,
}

impl NewVersion {
    /// Checks everything about it.
    ///
    /// # Errors
    /// Names the field and its limit.
    pub fn check(&self) -> Result<(), Invalid> {
        check_text("name", &self.name, NAME_BYTES_MAX)?;
        check_text("source", &self.source, SOURCE_BYTES_MAX)?;
        if self.presets.len() > PRESETS_MAX {
            let reason =
                format!("has {} entries, at most {PRESETS_MAX} are allowed", self.presets.len());
            return Err(Invalid::new("presets", reason));
        }
        for (place, preset) in self.presets.iter().enumerate() {
            preset.check().map_err(|invalid| invalid.within(&format!("presets[{place}]")))?;
            if self.presets[..place].iter().any(|other| other.name == preset.name) {
                let reason = format!("is {:?}, as that of an earlier one is", preset.name);
                return Err(Invalid::new(format!("presets[{place}].name"), reason));
            }
        }
        Ok(())
    }
}

/// A preset to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPreset {
    /// Names it.
    pub id: PresetId,
    /// What people call it; unique within the version.
    pub name: String,
    /// With what its workspaces are built.
    pub parameters: BTreeMap<String, String>,
    /// How many prebuilds it wants.
    pub pool: PoolWish,
}

impl NewPreset {
    /// Checks everything about it.
    ///
    /// # Errors
    /// Names the field and its limit.
    pub fn check(&self) -> Result<(), Invalid> {
        check_text("name", &self.name, NAME_BYTES_MAX)?;
        check_parameters(&self.parameters)?;
        self.pool.check()
    }
}

/// Parameters with which workspaces of a version are built, and how many are to stand ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Names it.
    pub id: PresetId,
    /// Of which version.
    pub version: TemplateVersionId,
    /// Of which template.
    pub template: TemplateId,
    /// What people call it.
    pub name: String,
    /// With what its workspaces are built.
    pub parameters: BTreeMap<String, String>,
    /// How many prebuilds it wants.
    pub pool: PoolWish,
    /// Whether prebuilds of it are made at all.
    pub health: Health,
    /// Whether it is of the active version of a template that may be used.
    pub is_active: bool,
    /// When it was created.
    pub created_at: Timestamp,
}

/// How many prebuilds are to stand ready, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolWish {
    /// How many when no schedule says otherwise; zero for none.
    pub desired: u32,
    /// After how long a prebuild is replaced; `None` for never.
    pub ttl: Option<Duration>,
    /// Where the schedules' hours are, as the IANA names it.
    pub timezone: String,
    /// When others are wanted.
    pub schedules: Vec<ScheduleInput>,
}

impl Default for PoolWish {
    fn default() -> Self {
        Self { desired: 0, ttl: None, timezone: "UTC".to_owned(), schedules: vec![] }
    }
}

impl PoolWish {
    /// Checks everything about it; a text of a schedule that would be refused later is refused here.
    ///
    /// # Errors
    /// Names the field and its limit.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.desired > DESIRED_MAX {
            let reason = format!("is {}, at most {DESIRED_MAX} are allowed", self.desired);
            return Err(Invalid::new("desired_instances", reason));
        }
        self.ttl.map_or(Ok(()), |ttl| check_time("ttl", ttl))?;
        Schedules::new(&self.timezone, &self.schedules).map(drop)
    }
}

/// What changes about a preset; what is `None` stays.
///
/// Any change makes it healthy again, and its failures forgotten: whoever edits it means to try.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresetPatch {
    /// How many prebuilds it wants.
    pub pool: Option<PoolWish>,
    /// Whether prebuilds from before are to be replaced.
    pub invalidate: bool,
}

/// Checks a time in whole seconds, from one second to [`TIME_MAX`].
///
/// # Errors
/// Names the field and the limits.
pub fn check_time(field: &str, time: Duration) -> Result<(), Invalid> {
    if Duration::from_secs(1) <= time && time <= TIME_MAX && time.subsec_nanos() == 0 {
        return Ok(());
    }
    let reason = format!("is {time:?}, whole seconds from 1 to {} are allowed", TIME_MAX.as_secs());
    Err(Invalid::new(field, reason))
}

fn check_parameters(parameters: &BTreeMap<String, String>) -> Result<(), Invalid> {
    const FIELD: &str = "parameters";
    if parameters.len() > PARAMETERS_MAX {
        let reason =
            format!("has {} entries, at most {PARAMETERS_MAX} are allowed", parameters.len());
        return Err(Invalid::new(FIELD, reason));
    }
    let bytes: usize = parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > PARAMETERS_BYTES_MAX {
        let reason = format!("has {bytes} bytes, at most {PARAMETERS_BYTES_MAX} are allowed");
        return Err(Invalid::new(FIELD, reason));
    }
    for (name, value) in parameters {
        check_text(FIELD, name, PARAMETERS_BYTES_MAX)?;
        if value.contains('\0') {
            return Err(Invalid::new(format!("{FIELD}.{name}"), "contains a NUL character"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn preset(name: &str) -> NewPreset {
        NewPreset {
            id: PresetId::new(Uuid::from_u128(1)),
            name: name.to_owned(),
            parameters: BTreeMap::new(),
            pool: PoolWish::default(),
        }
    }

    fn refused(change: impl FnOnce(&mut NewVersion)) -> String {
        let mut version = NewVersion {
            id: TemplateVersionId::new(Uuid::from_u128(2)),
            name: "one".to_owned(),
            source: "rust".to_owned(),
            presets: vec![preset("small"), preset("large")],
            activate: true,
        };
        assert_eq!(version.check(), Ok(()));
        change(&mut version);
        version.check().unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_named_where_it_stands() {
        let check = |found: String, expected: &str| assert_eq!(found, expected);
        check(refused(|version| version.name.clear()), "name: is empty");
        check(
            refused(|version| version.source = "x".repeat(4_097)),
            "source: has 4097 bytes, at most 4096 are allowed",
        );
        check(
            refused(|version| version.presets[1].name = "small".to_owned()),
            "presets[1].name: is \"small\", as that of an earlier one is",
        );
        check(
            refused(|version| version.presets[1].pool.desired = 1_001),
            "presets[1].desired_instances: is 1001, at most 1000 are allowed",
        );
        check(
            refused(|version| version.presets[0].pool.ttl = Some(Duration::from_millis(1_500))),
            "presets[0].ttl: is 1.5s, whole seconds from 1 to 31536000 are allowed",
        );
        check(
            refused(|version| {
                version.presets[0].parameters.insert("size".to_owned(), "a\0b".to_owned());
            }),
            "presets[0].parameters.size: contains a NUL character",
        );
        let many = |version: &mut NewVersion| version.presets = vec![preset("same"); 51];
        check(refused(many), "presets: has 51 entries, at most 50 are allowed");
    }

    #[test]
    fn rules_have_bounds() {
        let rules = TemplateRules::default();
        assert_eq!(rules.check(), Ok(()));
        assert_eq!(TemplateRules { activity_bump: Duration::ZERO, ..rules }.check(), Ok(()));
        let endless = TemplateRules { ttl: Some(Duration::MAX), ..rules };
        assert_eq!(endless.check().unwrap_err().field, "ttl");
    }
}
