//! The PostgreSQL that tests run on: the first of a given URL, Docker and embedded that works.

mod docker;
mod embedded;
mod given;
mod heir;
mod keeper;
mod owner;
mod ready;
mod settings;

use std::fmt;

use anyhow::{Context, Result, bail};
use tokio::sync::OnceCell;

use keeper::{Found, Kept};
pub use settings::{ImageName, Provider, Settings};

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
        Provider::Docker => keeper::start(move || docker::start(&settings.image)).await?,
        Provider::Embedded => keeper::start(|| embedded::start(settings.source)).await?,
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
