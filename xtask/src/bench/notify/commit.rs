//! Writers that tell of each row they commit: inside the transaction, or after it.

use std::num::NonZeroUsize;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use musterbeat_core::port::{Publish as _, Topic};
use musterbeat_pubsub::PgTransport;
use musterbeat_pubsub::codec::Policy;
use musterbeat_testkit::TestDatabase;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::arm::{Arm, Contest, Subject};
use super::super::meter::{self, Counts, Meter};
use super::super::report::{Report, Section};
use super::super::{Keep, Output, report_on};
use super::audience::NAIVE_CHANNEL;
use super::{ids, tellers};

const WRITERS: usize = 32;

const TABLE: &str = "
    create table if not exists bench_rows (id uuid primary key, filler text not null)
    with (autovacuum_enabled = off)";

const INSERT: &str = "insert into bench_rows (id, filler) values ($1, repeat('x', 100))";

/// One statement, so that the transaction is as short as it can be.
const INSERT_AND_NOTIFY: &str = "
    with added as (
        insert into bench_rows (id, filler) values ($1, repeat('x', 100)) returning id
    )
    select pg_notify($2, id::text) from added";

const NOTIFY: &str = "select pg_notify($1, $2)";

/// What a flush costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    AsItIs,
    /// A flush waits 5 ms before it begins, as one over a network does.
    Slow,
}

/// How writers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Silent,
    Inside,
    After,
    Publisher,
}

/// Measures with the disk as it is, and with a slow one.
pub(super) async fn run(
    database: &TestDatabase,
    rounds: NonZeroUsize,
    keep: &mut Keep<'_>,
) -> Result<()> {
    for disk in [Disk::AsItIs, Disk::Slow] {
        let mut contest = prepare(database, disk).await?;
        let (name, question) = (disk.name().to_owned(), disk.question());
        let mut report = report_on(name, question, &mut contest, rounds).await?;
        report.sections.push(slowness(&report));
        keep(Output::of(&report)?)?;
    }
    Ok(())
}

/// Says how much longer writers take that tell.
fn slowness(report: &Report) -> Section {
    let times = report.arms.iter().map(|arm| 1.0 / arm.speed.median).collect();
    Section {
        title: "median".to_owned(),
        columns: report.arms.iter().map(|arm| arm.name.to_owned()).collect(),
        rows: vec![("times as slow as insert only", times)],
    }
}

impl Disk {
    fn name(self) -> &'static str {
        match self {
            Self::AsItIs => "notify-commit",
            Self::Slow => "notify-commit-slow-flush",
        }
    }

    /// Returns how many rows a round has, the same number for each writer.
    fn rows(self) -> usize {
        match self {
            Self::AsItIs => 6_400,
            Self::Slow => 1_600,
        }
    }

    fn question(self) -> &'static str {
        match self {
            Self::AsItIs => {
                "What does a NOTIFY cost 32 writers, inside their transaction or after it?"
            }
            Self::Slow => {
                "The same where a flush takes 5 ms more (commit_delay = 5000, \
                 commit_siblings = 0 in each writer's session, as a superuser may set)"
            }
        }
    }

    async fn connect(self, url: &str) -> Result<PgConnection> {
        let mut options = PgConnectOptions::from_str(url).context("the URL is none")?;
        if self == Self::Slow {
            options = options.options([("commit_delay", "5000"), ("commit_siblings", "0")]);
        }
        let conn = PgConnection::connect_with(&options).await;
        conn.context("a writer could not connect: `commit_delay` is for superusers")
    }
}

async fn prepare(database: &TestDatabase, disk: Disk) -> Result<Contest> {
    let meter = Meter::connect(database).await?;
    let mut conn = database.connect().await?;
    sqlx::raw_sql(TABLE).execute(&mut conn).await.context("failed to make the table")?;
    let ids = Arc::new(ids::v4(disk.rows()));
    let ways = [
        ("insert only", Way::Silent),
        ("insert and NOTIFY in one transaction", Way::Inside),
        ("insert, then NOTIFY by itself", Way::After),
        ("ours: insert, then publish", Way::Publisher),
    ];
    let mut arms: Vec<Box<dyn Arm>> = Vec::new();
    for (name, way) in ways {
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            writers.push(disk.connect(database.url()).await?);
        }
        let url = database.url().to_owned();
        let (conn, ids) = (database.connect().await?, Arc::clone(&ids));
        let (transport, time) = (None, Duration::ZERO);
        arms.push(Box::new(Writing { name, way, url, ids, writers, transport, conn, time }));
    }
    Ok(Contest {
        subject: Subject { unit: "row", count: disk.rows() as u64, size: None },
        arms,
        meter,
    })
}

/// An arm: all writers tell in one way.
struct Writing {
    name: &'static str,
    way: Way,
    url: String,
    ids: Arc<Vec<Uuid>>,
    writers: Vec<PgConnection>,
    transport: Option<PgTransport>,
    conn: PgConnection,
    time: Duration,
}

#[async_trait]
impl Arm for Writing {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn prepare(&mut self) -> Result<()> {
        let empty = sqlx::query("truncate bench_rows").execute(&mut self.conn).await;
        empty.context("failed to empty the table")?;
        if self.way == Way::Publisher {
            self.transport = Some(tellers::connected(&self.url, Policy::DEFAULT).await?);
        }
        Ok(())
    }

    async fn run(&mut self) -> Result<Counts> {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (number, conn) in self.writers.drain(..).enumerate() {
            let (ids, way, transport) = (Arc::clone(&self.ids), self.way, self.transport.clone());
            tasks.spawn(async move { write(conn, &ids, number, way, transport).await });
        }
        while let Some(writer) = tasks.join_next().await {
            self.writers.push(writer.context("a writer's task broke off")??);
        }
        if let Some(transport) = &self.transport {
            transport.flush().await.context("failed to publish")?;
        }
        self.time = start.elapsed();
        Ok(Counts::default())
    }

    fn time(&self) -> Option<Duration> {
        Some(self.time)
    }

    async fn settle(&mut self) -> Result<()> {
        if let Some(transport) = self.transport.take() {
            transport.close(Duration::from_secs(5)).await.context("a transport did not end")?;
        }
        for writer in &mut self.writers {
            meter::settle(writer).await?;
        }
        Ok(())
    }

    async fn digest(&mut self) -> Result<String> {
        let query = "select count(*) from bench_rows";
        let rows: i64 = sqlx::query_scalar(query)
            .fetch_one(&mut self.conn)
            .await
            .context("failed to count the rows")?;
        let all = self.ids.len();
        ensure!(usize::try_from(rows) == Ok(all), "{rows} rows were stored, of {all}");
        Ok(format!("{rows} rows"))
    }
}

/// Writes every id that is this writer's, each in a transaction.
async fn write(
    mut conn: PgConnection,
    ids: &[Uuid],
    number: usize,
    way: Way,
    transport: Option<PgTransport>,
) -> Result<PgConnection> {
    for id in ids.iter().skip(number).step_by(WRITERS) {
        let insert = if way == Way::Inside {
            sqlx::query(INSERT_AND_NOTIFY).bind(id).bind(NAIVE_CHANNEL)
        } else {
            sqlx::query(INSERT).bind(id)
        };
        insert.execute(&mut conn).await.context("failed to insert")?;
        if way == Way::After {
            let notify = sqlx::query(NOTIFY).bind(NAIVE_CHANNEL).bind(id.to_string());
            notify.execute(&mut conn).await.context("failed to notify")?;
        }
        if let Some(transport) = &transport {
            transport.publish(Topic::Chat, *id);
        }
    }
    Ok(conn)
}
