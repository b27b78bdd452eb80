//! `pgbench`, sending the product's statement.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use musterbeat_core::run::SUSPECT_ATTEMPTS;
use musterbeat_db::runs;
use musterbeat_testkit::TestDatabase;
use sqlx::PgConnection;
use tempfile::NamedTempFile;

use super::super::arm::Arm;
use super::super::meter::Counts;
use super::{BATCH, CLAIMERS, KIND, State, kind, refill, worker};
use crate::workspace;

pub(super) struct Pgbench {
    program: PathBuf,
    url: String,
    script: NamedTempFile,
    /// Claims of each client.
    claims: u32,
    conn: PgConnection,
    time: Duration,
}

impl Pgbench {
    pub(super) async fn new(database: &TestDatabase, programs: &Path, claims: u32) -> Result<Self> {
        let program = programs.join("pgbench");
        ensure!(
            program.exists(),
            "there is no pgbench in {}: install PostgreSQL's contributed programs (Debian: \
             postgresql; others: postgresql-contrib), or let MUSTERBEAT_POSTGRES name a folder \
             that has it",
            programs.display(),
        );
        let mut conn = database.connect().await?;
        let script = tempfile::Builder::new().suffix(".sql").tempfile();
        let script = script.context("failed to make a file for pgbench")?;
        let text = script_of(&statement(&mut conn).await?)?;
        std::fs::write(script.path(), text).context("failed to write pgbench's script")?;
        // Parameters behind it are sqlx's own.
        let url = database.url().split('?').next().unwrap_or_default().to_owned();
        Ok(Self { program, url, script, claims, conn, time: Duration::ZERO })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--no-vacuum", "--protocol=prepared"])
            .arg(format!("--client={CLAIMERS}"))
            // Its threads share the machine with the server, as those of this program do.
            .arg(format!("--jobs={}", threads()))
            .arg(format!("--transactions={}", self.claims))
            .arg(format!("--define=kind={KIND}"))
            .arg(format!("--define=batch={BATCH}"))
            .arg(format!("--define=suspect={SUSPECT_ATTEMPTS}"));
        for number in 0..CLAIMERS {
            command.arg(format!("--define=w{number}={}", worker(number)));
        }
        command.arg("--file").arg(self.script.path());
        // Not as an argument, which others on the machine could read.
        command.env("PGDATABASE", &self.url).env("PGGSSENCMODE", "disable");
        command.env("LC_ALL", "C");
        command
    }
}

#[async_trait]
impl Arm for Pgbench {
    fn name(&self) -> &'static str {
        "pgbench, our statement"
    }

    async fn prepare(&mut self) -> Result<()> {
        refill(&mut self.conn).await
    }

    async fn run(&mut self) -> Result<Counts> {
        let mut command = self.command();
        let output = tokio::task::spawn_blocking(move || workspace::output(&mut command));
        let output = output.await.context("the task of pgbench broke off")??;
        self.time = time(&output, CLAIMERS * self.claims)?;
        Ok(Counts::default())
    }

    fn time(&self) -> Option<Duration> {
        Some(self.time)
    }

    async fn digest(&mut self) -> Result<String> {
        Ok(State::read(&mut self.conn).await?.told())
    }
}

fn threads() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores).unwrap_or(CLAIMERS).min(CLAIMERS)
}

/// Returns the text of the product's claim, as its session has prepared it.
async fn statement(conn: &mut PgConnection) -> Result<String> {
    runs::claim(conn, worker(0), &kind()?, 1, None).await.context("failed to claim")?;
    let query = "
        select statement from pg_prepared_statements
        where statement ~ 'update runs' and statement !~ 'pg_prepared_statements'";
    let texts: Vec<String> = sqlx::query_scalar(query)
        .fetch_all(conn)
        .await
        .context("failed to ask the session for its statements")?;
    match &texts[..] {
        [text] => Ok(text.clone()),
        _ => bail!("the claim is {} statements: mend the benchmark", texts.len()),
    }
}

/// Writes the statement for each client with its own worker, and names for the parameters.
fn script_of(statement: &str) -> Result<String> {
    let mut script = String::new();
    for number in 0..CLAIMERS {
        let worker = format!(":w{number}");
        let names = [("$1", &*worker), ("$2", ":kind"), ("$3", ":batch"), ("$4", "null")];
        let names = names.into_iter().chain([("$5", ":suspect")]);
        let text = names.fold(statement.to_owned(), |text, (from, to)| text.replace(from, to));
        ensure!(!text.contains('$'), "the claim has new parameters: mend the benchmark");
        let test = if number == 0 { "if" } else { "elif" };
        writeln!(script, "\\{test} :client_id = {number}\n{};", text.trim())?;
    }
    Ok(script + "\\endif\n")
}

/// Reads how long the transactions took, without the time to connect.
fn time(output: &str, transactions: u32) -> Result<Duration> {
    let line = |start: &str| output.lines().find_map(|line| line.strip_prefix(start));
    let done = line("number of transactions actually processed: ").unwrap_or_default();
    ensure!(
        done.split('/').next() == Some(&*transactions.to_string()),
        "pgbench did not do all of its work:\n{output}"
    );
    let rate = line("tps = ").and_then(|rate| rate.split(' ').next()?.parse::<f64>().ok());
    let rate = rate.filter(|rate| 0.0 < *rate).context("pgbench tells no rate")?;
    Ok(Duration::from_secs_f64(f64::from(transactions) / rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_worker() {
        let script = script_of("update runs set worker_id = $1 where $4::timestamptz is null");
        let script = script.unwrap();
        assert!(script.starts_with("\\if :client_id = 0\nupdate runs set worker_id = :w0 where"));
        assert!(script.contains("\\elif :client_id = 7\nupdate runs set worker_id = :w7 where"));
        assert!(script.contains("null::timestamptz is null;\n"));
        assert!(script_of("select $6").is_err());
    }

    #[test]
    fn the_time_is_that_of_the_transactions() {
        let output = "number of transactions actually processed: 1000/1000\n\
                      tps = 500.000000 (without initial connection time)\n";
        assert_eq!(time(output, 1000).unwrap(), Duration::from_secs(2));
        assert!(time(output, 1001).is_err());
    }
}
