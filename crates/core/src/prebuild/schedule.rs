//! When a preset wants more prebuilds, or fewer.

use std::str::FromStr;

use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, Timelike as _};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde::{Deserialize, Serialize};

use crate::invalid::{Invalid, check_text};
use crate::timestamp::Timestamp;

/// Schedules of one preset, at most.
pub const SCHEDULES_MAX: usize = 20;

/// Bytes of a cron expression, at most.
pub const CRON_BYTES_MAX: usize = 200;

/// Days over which overlaps are looked for: after 28 years, dates fall on the same weekdays again.
const DAYS_LOOKED_AT: i64 = 28 * 365 + 7;

/// Prebuilds that a preset may want at most.
pub const DESIRED_MAX: u32 = 1_000;

/// A schedule as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleInput {
    /// Five fields, of which the first is `*`: the hours and days in which it holds.
    pub cron: String,
    /// How many prebuilds are wanted then.
    #[serde(rename = "desired_instances")]
    pub desired: u32,
}

/// Hours and days in which other numbers of prebuilds are wanted, in one time zone.
#[derive(Clone, Debug, Default)]
pub struct Schedules {
    zone: Tz,
    schedules: Vec<Schedule>,
}

/// Hours and days in which a number of prebuilds is wanted.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    desired: u32,
}

impl Schedules {
    /// Takes schedules; `zone` is a name as the IANA has it, such as `Europe/Lisbon`.
    ///
    /// # Errors
    /// Refuses a zone that is not known, an expression that is none or names minutes, and two
    /// that hold in the same hour of one of the next years.
    pub fn new(zone: &str, schedules: &[ScheduleInput]) -> Result<Self, Invalid> {
        let found = Self::stored(zone, schedules)?;
        match found.overlap() {
            None => Ok(found),
            Some((one, other)) => {
                let reason = format!("holds in hours in which `schedules[{one}]` holds, too");
                Err(Invalid::new(format!("schedules[{other}].cron"), reason))
            }
        }
    }

    /// Takes schedules that were checked when they were stored: overlaps are not looked for.
    ///
    /// # Errors
    /// As [`new`](Self::new), but for overlaps.
    pub fn stored(zone: &str, schedules: &[ScheduleInput]) -> Result<Self, Invalid> {
        let zone = Tz::from_str(zone).map_err(|_| {
            Invalid::new("timezone", format!("is {zone:?}, which is no zone of the IANA's list"))
        })?;
        if schedules.len() > SCHEDULES_MAX {
            let reason =
                format!("has {} entries, at most {SCHEDULES_MAX} are allowed", schedules.len());
            return Err(Invalid::new("schedules", reason));
        }
        let parsed = schedules.iter().enumerate().map(|(place, input)| {
            Schedule::new(input).map_err(|invalid| {
                Invalid::new(format!("schedules[{place}].{}", invalid.field), invalid.reason)
            })
        });
        Ok(Self { zone, schedules: parsed.collect::<Result<_, _>>()? })
    }

    /// Returns how many prebuilds are wanted at `now`; `None` when no schedule holds, and when
    /// several do, which the check of new ones prevents.
    pub fn desired(&self, now: Timestamp) -> Option<u32> {
        let local = DateTime::from_timestamp_micros(now.micros())?.with_timezone(&self.zone);
        let mut holding = self.schedules.iter().filter(|schedule| schedule.holds_at(&local));
        let first = holding.next()?;
        holding.next().is_none().then_some(first.desired)
    }

    /// Says whether there is none.
    pub fn is_empty(&self) -> bool {
        self.schedules.is_empty()
    }

    /// Returns the places of two schedules that hold in the same hour.
    fn overlap(&self) -> Option<(usize, usize)> {
        // Of local times only: whether a zone skips or repeats an hour makes no difference.
        let begin = DateTime::from_timestamp(0, 0)?.naive_utc().date();
        let days =
            (0..DAYS_LOOKED_AT).filter_map(|day| begin.checked_add_signed(TimeDelta::days(day)));
        for day in days {
            let mut of_hours: [Option<usize>; 24] = [None; 24];
            for (place, schedule) in self.schedules.iter().enumerate() {
                if !schedule.holds_on(day) {
                    continue;
                }
                for (hour, taken) in (0..).zip(&mut of_hours) {
                    if !schedule.holds_in_hour(hour) {
                        continue;
                    }
                    if let Some(former) = taken.replace(place) {
                        return Some((former, place));
                    }
                }
            }
        }
        None
    }
}

impl Schedule {
    /// Takes a schedule.
    ///
    /// # Errors
    /// Refuses an expression that is none or names minutes, and a number beyond its limit.
    pub fn new(input: &ScheduleInput) -> Result<Self, Invalid> {
        check_text("cron", &input.cron, CRON_BYTES_MAX)?;
        if input.desired > DESIRED_MAX {
            let reason = format!("is {}, at most {DESIRED_MAX} are allowed", input.desired);
            return Err(Invalid::new("desired_instances", reason));
        }
        let minutes = input.cron.split_whitespace().next();
        if minutes != Some("*") {
            let reason = "does not begin with `*`: a schedule holds for whole hours";
            return Err(Invalid::new("cron", reason));
        }
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&input.cron).map_err(|error| {
            Invalid::new("cron", format!("is no expression of five fields: {error}"))
        })?;
        Ok(Self { cron, desired: input.desired })
    }

    fn holds_at(&self, local: &DateTime<Tz>) -> bool {
        self.holds_on(local.date_naive()) && self.holds_in_hour(local.hour())
    }

    /// A part of a date that no calendar has matches nothing.
    fn holds_on(&self, day: NaiveDate) -> bool {
        let pattern = &self.cron.pattern;
        pattern.month_match(day.month()).unwrap_or(false)
            && pattern.day_match(day.year(), day.month(), day.day()).unwrap_or(false)
    }

    fn holds_in_hour(&self, hour: u32) -> bool {
        self.cron.pattern.hour_match(hour).unwrap_or(false)
    }
}
