//! What a benchmark found: as a table, and as one line of JSON.

use std::num::NonZeroUsize;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::arm::{Record, Subject};
use super::machine::Machine;
use super::stats::{Summary, speeds};

/// What a benchmark found.
pub(super) struct Report {
    pub(super) name: String,
    pub(super) question: &'static str,
    pub(super) subject: Subject,
    pub(super) rounds: NonZeroUsize,
    /// INVARIANT: the first is the baseline.
    pub(super) arms: Vec<ArmReport>,
    /// What rounds cannot show.
    pub(super) sections: Vec<Section>,
    pub(super) commit: String,
    pub(super) machine: Machine,
}

/// A table beside that of the arms.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Section {
    pub(super) title: String,
    pub(super) columns: Vec<String>,
    /// A name with its unit, and a value a column.
    pub(super) rows: Vec<(&'static str, Vec<f64>)>,
}

/// What was found about one arm.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ArmReport {
    pub(super) name: &'static str,
    /// Medians over the rounds.
    pub(super) counts: Vec<(&'static str, f64)>,
    /// How many times as fast as the baseline.
    pub(super) speed: Summary,
    pub(super) milliseconds: Summary,
}

/// Compares all arms with the first.
pub(super) fn compare(records: Vec<Record>) -> Vec<ArmReport> {
    let milliseconds = |record: &Record| -> Vec<f64> {
        record.times.iter().map(|time: &Duration| time.as_secs_f64() * 1000.0).collect()
    };
    let baseline = records.first().map(milliseconds).unwrap_or_default();
    let report = |record: Record| {
        let times = milliseconds(&record);
        ArmReport {
            name: record.name,
            counts: medians(&record),
            speed: Summary::of(&speeds(&baseline, &times)),
            milliseconds: Summary::of(&times),
        }
    };
    records.into_iter().map(report).collect()
}

/// Returns the median of each count over the rounds, in the order of the first round.
fn medians(record: &Record) -> Vec<(&'static str, f64)> {
    let names = record.counts.first().into_iter().flat_map(|counts| &counts.0);
    let median = |name| {
        let rounds = record.counts.iter().flat_map(|counts| &counts.0);
        let values = rounds.filter(|(other, _)| *other == name).map(|(_, count)| float(*count));
        Summary::of(&values.collect::<Vec<_>>()).median
    };
    names.map(|(name, _)| (*name, median(*name))).collect()
}

/// Counts stay far below the 2^52 where this would round.
#[expect(clippy::cast_precision_loss, reason = "counts of a round are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

impl Report {
    /// Returns the report for a reader: counts, then ratios, then times.
    pub(super) fn text(&self) -> String {
        let Self { name, question, subject, rounds, commit, machine, sections, .. } = self;
        let (Subject { unit, count, .. }, size) = (subject, self.size());
        let sections: String = sections.iter().map(Section::text).collect();
        format!(
            "{name}: {question}\n{size}{count} {unit}s a round, {rounds} rounds alternately after one \
             to warm up; median (lowest to highest)\ncommit {commit}; {}\n{}{sections}",
            machine.text(),
            self.table(),
        )
    }

    /// Returns what the file of the chart is called: reports of several sizes have one each.
    pub(super) fn chart_name(&self) -> String {
        match self.subject {
            Subject { unit: "run", count: number, .. }
            | Subject { size: Some((number, _)), .. } => {
                format!("{}-{number}", self.name)
            }
            _ => self.name.clone(),
        }
    }

    /// Returns what stands above the chart.
    pub(super) fn caption(&self) -> String {
        let Subject { unit, count, .. } = self.subject;
        format!("{}, {}{count} {unit}s: speed, baseline = 1", self.name, self.size())
    }

    fn size(&self) -> String {
        let size = |(number, of)| format!("{number} {of}, ");
        self.subject.size.map_or_else(String::new, size)
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let heads = self.arms.iter().map(|arm| arm.name.to_owned());
        let head = format!("total (a {})", self.subject.unit);
        table.set_header(std::iter::once(head).chain(heads));
        let counted = self.arms.first().map_or(&[][..], |arm| &arm.counts);
        for (index, (name, _)) in counted.iter().enumerate() {
            let cell = |arm: &ArmReport| arm.counts.get(index).map_or(0.0, |(_, count)| *count);
            if self.arms.iter().any(|arm| cell(arm) > 0.0) {
                let totals = self.arms.iter().map(|arm| self.share(cell(arm)));
                table.add_row(std::iter::once((*name).to_owned()).chain(totals));
            }
        }
        let spread = |Summary { median, low, high }: Summary, unit: &str, digits: usize| {
            format!("{median:.digits$}{unit} ({low:.digits$} to {high:.digits$})")
        };
        let speeds = self.arms.iter().map(|arm| spread(arm.speed, "x", 2));
        table.add_row(std::iter::once("speed".to_owned()).chain(speeds));
        let times = self.arms.iter().map(|arm| spread(arm.milliseconds, " ms", 1));
        table.add_row(std::iter::once("time".to_owned()).chain(times));
        let rates = self.arms.iter().map(|arm| format!("{:.0}", self.rate(arm)));
        table.add_row(std::iter::once(format!("{}s a second", self.subject.unit)).chain(rates));
        numbers_to_the_right(&mut table);
        table
    }

    /// Returns how much of the subject an arm does in a second.
    pub(super) fn rate(&self, arm: &ArmReport) -> f64 {
        float(self.subject.count) / arm.milliseconds.median * 1000.0
    }

    fn share(&self, total: f64) -> String {
        format!("{total:.0} ({:.2})", total / float(self.subject.count.max(1)))
    }

    /// Returns the report for a program.
    pub(super) fn json(&self) -> Value {
        json!({
            "bench": self.name,
            "at": now(),
            "commit": self.commit,
            "machine": self.machine.json(),
            "unit": self.subject.unit,
            "count": self.subject.count,
            "size": self.subject.size.map(|(number, _)| number),
            "rounds": self.rounds,
            "arms": self.arms.iter().map(|arm| arm.json(self.rate(arm))).collect::<Vec<_>>(),
            "sections": self.sections.iter().map(Section::json).collect::<Vec<_>>(),
        })
    }
}

/// Turns the tables of a report into those of Markdown, for the documentation.
pub(super) fn markdown(text: &str) -> String {
    let line = |line: &str| match line.chars().next() {
        // A paragraph before a table would swallow it, and so would another table.
        Some('┌') => Some(String::new()),
        Some('└' | '├') => None,
        Some('╞') => {
            let columns = line.matches('╪').count();
            Some(format!("|---|{}", "--:|".repeat(columns)))
        }
        Some('│') => {
            let cells = line.trim_matches('│').split('┆').map(str::trim);
            Some(format!("| {} |", cells.collect::<Vec<_>>().join(" | ")))
        }
        _ => Some(line.to_owned()),
    };
    text.lines().filter_map(line).collect::<Vec<_>>().join("\n")
}

/// Returns the time as a line of JSON has it.
pub(super) fn now() -> Option<String> {
    OffsetDateTime::now_utc().format(&Rfc3339).ok()
}

impl Section {
    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(std::iter::once(&self.title).chain(&self.columns));
        for (name, values) in &self.rows {
            let values = values.iter().map(|value| plain(*value));
            table.add_row(std::iter::once((*name).to_owned()).chain(values));
        }
        numbers_to_the_right(&mut table);
        format!("\n{table}")
    }

    pub(super) fn json(&self) -> Value {
        let Self { title, columns, rows } = self;
        let rows = rows.iter().map(|(name, values)| ((*name).to_owned(), json!(values)));
        json!({ "title": title, "columns": columns, "rows": rows.collect::<Map<_, _>>() })
    }
}

/// Writes a number with the digits that tell something, and nothing for what is none.
fn plain(value: f64) -> String {
    if value.is_nan() {
        return String::new();
    }
    let digits = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        size if size < 10.0 => 3,
        size if size < 1000.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

fn numbers_to_the_right(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

impl ArmReport {
    fn json(&self, per_second: f64) -> Value {
        let counts = self.counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count)));
        json!({
            "name": self.name,
            "counts": counts.collect::<Map<_, _>>(),
            "speed": summary(self.speed),
            "milliseconds": summary(self.milliseconds),
            "per_second": per_second,
        })
    }
}

fn summary(Summary { median, low, high }: Summary) -> Value {
    json!({ "median": median, "low": low, "high": high })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::meter::Counts;
    use super::*;

    #[test]
    fn arms_are_compared_with_the_first() {
        let arms =
            compare(vec![record("slow", &[30, 10], &[4, 4]), record("fast", &[3, 5], &[1, 3])]);
        assert_eq!(arms[0].speed, Summary { median: 1.0, low: 1.0, high: 1.0 });
        assert_eq!(arms[1].speed, Summary { median: 6.0, low: 2.0, high: 10.0 });
        assert_eq!(arms[1].milliseconds, Summary { median: 4.0, low: 3.0, high: 5.0 });
        assert_eq!(arms[1].counts, [("statements", 2.0)]);
    }

    #[test]
    fn a_run_is_one_line_of_json() {
        let json = report().json();
        assert_eq!(json["bench"], "messages");
        assert_eq!(json["commit"], "abc-dirty");
        assert_eq!(json["machine"]["cores"], 2);
        assert_eq!(json["count"], 10);
        assert_eq!(json["arms"][0]["counts"]["statements"], 4.0);
        assert_eq!(json["arms"][1]["speed"]["median"], 4.0);
        assert_eq!(json["arms"][1]["milliseconds"]["high"], 2.0);
        assert!(!json.to_string().contains('\n'));
    }

    #[test]
    fn counts_come_before_ratios_and_times_last() {
        let text = report().text();
        let place = |word: &str| text.find(word).unwrap_or_else(|| panic!("no {word} in\n{text}"));
        assert!(place("statements") < place("speed"));
        assert!(place("speed") < place("time  "));
        assert!(text.contains("4 (0.40)"), "{text}");
        assert!(text.contains("messages a second"), "{text}");
        assert!(place("time  ") < place("0.250"));
    }

    #[test]
    fn tables_become_those_of_markdown() {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["a", "slow", "fast"]).add_row(["time", "2 ms", "1 ms"]);
        let text = format!("before\n{table}\nafter");
        let expected =
            "before\n\n| a | slow | fast |\n|---|--:|--:|\n| time | 2 ms | 1 ms |\nafter";
        assert_eq!(markdown(&text), expected);
    }

    pub(in super::super) fn report() -> Report {
        Report {
            name: "messages".into(),
            question: "Which?",
            subject: Subject { unit: "message", count: 10, size: None },
            rounds: NonZeroUsize::MIN,
            arms: compare(vec![record("slow", &[8], &[4]), record("fast", &[2], &[1])]),
            sections: vec![Section {
                title: "beside".into(),
                columns: vec!["one".into(), "two".into()],
                rows: vec![("milliseconds", vec![0.25, 12.0])],
            }],
            commit: "abc-dirty".into(),
            machine: Machine { cores: 2, memory_mib: None, cpu: None, server: "PG".into() },
        }
    }

    fn record(name: &'static str, milliseconds: &[u64], statements: &[u64]) -> Record {
        let counts = |count: &u64| Counts(vec![("statements", *count)]);
        Record {
            name,
            times: milliseconds.iter().copied().map(Duration::from_millis).collect(),
            counts: statements.iter().map(counts).collect(),
        }
    }
}
