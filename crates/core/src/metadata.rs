//! What agents report of themselves: definitions of keys, and samples of their values.
//!
//! A report is taken apart by key: what is wrong with one costs no other. Nothing in a sample can
//! make a database refuse the statement that writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::batch::Entry;
use crate::id::DefinitionsVersion;
use crate::invalid::{Invalid, check_text};
use crate::timestamp::Timestamp;

/// Bytes of a key or of its display name, at most.
pub const NAME_BYTES_MAX: usize = 127;

/// Bytes of a script, at most.
pub const SCRIPT_BYTES_MAX: usize = 16 * 1024;

/// Keys of one agent, at most.
pub const KEYS_MAX: usize = 128;

/// Entries of one report, at most: more than an agent has keys can only repeat some.
pub const REPORT_ENTRIES_MAX: usize = KEYS_MAX;

/// Bytes of all keys of one report together, at most.
pub const REPORT_KEY_BYTES_MAX: usize = 6_144;

/// Bytes of a value, and of an error, at most; what is longer is cut.
pub const VALUE_BYTES_MAX: usize = 2_048;

/// Seconds between two values of a key, at most: a day.
pub const INTERVAL_SECONDS_MAX: u32 = 86_400;

/// Seconds that a value may take, at most: an hour.
pub const TIMEOUT_SECONDS_MAX: u32 = 3_600;

/// The name of a value, from 1 to [`NAME_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Takes a name.
    ///
    /// # Errors
    /// Refuses one that is empty, too long, or bears a NUL.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        check_text("key", &text, NAME_BYTES_MAX)?;
        Ok(Self(text))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an agent is to report under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Names the value.
    pub key: Key,
    /// What people read.
    pub display_name: String,
    /// How the agent finds the value; empty when it knows by itself.
    pub script: String,
    /// Seconds between two values.
    pub interval_seconds: u32,
    /// Seconds that a value may take.
    pub timeout_seconds: u32,
    /// Where it stands among the others, the lowest first.
    pub display_order: i32,
}

impl Definition {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// Names the field and its limit.
    pub fn checked(self) -> Result<Self, Invalid> {
        check_text("display_name", &self.display_name, NAME_BYTES_MAX)?;
        if !self.script.is_empty() {
            check_text("script", &self.script, SCRIPT_BYTES_MAX)?;
        }
        let within = |field, seconds, max| match seconds {
            1.. if seconds <= max => Ok(()),
            _ => Err(Invalid::new(field, format!("is {seconds}, 1 to {max} are allowed"))),
        };
        within("interval_seconds", self.interval_seconds, INTERVAL_SECONDS_MAX)?;
        within("timeout_seconds", self.timeout_seconds, TIMEOUT_SECONDS_MAX)?;
        Ok(self)
    }
}

/// All that an agent is to report; at most [`KEYS_MAX`], each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definitions(Vec<Definition>);

impl Definitions {
    /// Takes definitions, in any order.
    ///
    /// # Errors
    /// Names the first that is not valid by its place, and the limit that is broken.
    pub fn new(definitions: Vec<Definition>) -> Result<Self, Invalid> {
        if definitions.len() > KEYS_MAX {
            let reason = format!("has {} keys, at most {KEYS_MAX} are allowed", definitions.len());
            return Err(Invalid::new("definitions", reason));
        }
        let mut keys = BTreeSet::new();
        let mut checked = Vec::with_capacity(definitions.len());
        for (place, definition) in definitions.into_iter().enumerate() {
            let named = |invalid: Invalid| {
                Invalid::new(format!("definitions[{place}].{}", invalid.field), invalid.reason)
            };
            let definition = definition.checked().map_err(named)?;
            if !keys.insert(definition.key.clone()) {
                return Err(named(Invalid::new("key", "is there twice")));
            }
            checked.push(definition);
        }
        Ok(Self(checked))
    }

    /// Returns them as they were given.
    pub fn as_slice(&self) -> &[Definition] {
        &self.0
    }
}

/// A value at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The value; what an agent could not find is empty.
    pub value: String,
    /// Why it could not be found, or what is wrong with it; empty when nothing is.
    pub error: String,
    /// When it came, by the server's clock.
    pub collected_at: Timestamp,
}

/// The newer one wins; of two of one time, the one that came later.
impl Entry for Sample {
    fn merge(&mut self, other: Self) {
        if self.collected_at <= other.collected_at {
            *self = other;
        }
    }

    fn bytes(&self) -> usize {
        self.value.len() + self.error.len()
    }
}

/// What an agent is to report under a key, and what it reported last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What it is to report.
    pub definition: Definition,
    /// What it reported; `None` before its first report and after a crash of the database.
    pub last: Option<Sample>,
}

/// All that an agent is to report, and what it reported last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Counts the changes of what it is to report.
    pub version: DefinitionsVersion,
    /// Each key, in the order of display.
    pub readings: Vec<Reading>,
}

/// A value as an agent sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Names it.
    pub key: String,
    /// The value.
    pub value: String,
    /// Why there is none, or what is wrong with it.
    pub error: String,
}

/// A report, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What is to be stored.
    pub accepted: BTreeMap<Key, Sample>,
    /// What is not stored as it was sent, and what was changed about it.
    pub altered: Vec<(String, String)>,
    /// What is not stored, and why.
    pub refused: Vec<(String, String)>,
}

/// Takes a report apart; `is_defined` tells which keys its agent has.
///
/// Blanks around values and errors are taken away without a word. Of a key that is there twice
/// the last counts.
pub fn check(report: Vec<Reported>, is_defined: impl Fn(&Key) -> bool, now: Timestamp) -> Checked {
    let mut checked = Checked::default();
    let mut key_bytes = 0_usize;
    for Reported { key, value, error } in report {
        key_bytes = key_bytes.saturating_add(key.len());
        if key_bytes > REPORT_KEY_BYTES_MAX {
            let reason = format!("the report's keys have more than {REPORT_KEY_BYTES_MAX} bytes");
            checked.refused.push((shown(key), reason));
            continue;
        }
        let key = match Key::new(key.as_str()) {
            Ok(key) if is_defined(&key) => key,
            Ok(key) => {
                checked.refused.push((key.0, "is not defined for this agent".to_owned()));
                continue;
            }
            Err(invalid) => {
                checked.refused.push((shown(key), invalid.reason));
                continue;
            }
        };
        let (sample, changes) = sample(&value, &error, now);
        if !changes.is_empty() {
            checked.altered.push((key.0.clone(), changes.join("; ")));
        }
        checked.accepted.insert(key, sample);
    }
    checked
}

/// Makes of a value what may be stored, and says what was changed about it.
fn sample(value: &str, error: &str, now: Timestamp) -> (Sample, Vec<String>) {
    let mut changes = Vec::new();
    let stripped = |text: &str, what: &str, changes: &mut Vec<String>| {
        let whole = text.replace('\0', "");
        if whole.len() < text.len() {
            changes.push(format!("NUL characters were removed from the {what}"));
        }
        whole.trim().to_owned()
    };
    let mut value = stripped(value, "value", &mut changes);
    let mut error = stripped(error, "error", &mut changes);
    if value.len() > VALUE_BYTES_MAX {
        let told = format!("value of {} bytes exceeded {VALUE_BYTES_MAX} bytes", value.len());
        value.truncate(value.floor_char_boundary(VALUE_BYTES_MAX));
        error = if error.is_empty() { told.clone() } else { format!("{told}; {error}") };
        changes.push(told);
    }
    if error.len() > VALUE_BYTES_MAX {
        let told = format!("error of {} bytes exceeded {VALUE_BYTES_MAX} bytes", error.len());
        let room = VALUE_BYTES_MAX - told.len() - 2;
        error.truncate(error.floor_char_boundary(room));
        error = format!("{told}; {error}");
        changes.push(told);
    }
    (Sample { value, error, collected_at: now }, changes)
}

/// Returns a key as it may be shown to who sent it: never longer than a good one.
fn shown(mut key: String) -> String {
    key.truncate(key.floor_char_boundary(NAME_BYTES_MAX));
    key
}

#[cfg(test)]
mod tests;
