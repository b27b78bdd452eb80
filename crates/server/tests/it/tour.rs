//! The commands of the README's tour, as a new user gives them.

use std::path::Path;
use std::process::Command;

use musterbeat_testkit::{FakeModels, demo};
use reqwest::Method;
use serde_json::json;

use crate::client::Events;
use crate::models::told;
use crate::process::{on_its_own, open_to_all};
use crate::replica::{Replica, musterbeat};
use crate::spawning::REPORTS;

/// One who sits before a shell, beside a server of their own.
struct Shell<'a> {
    data_dir: &'a Path,
    server: &'a str,
}

impl Shell<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = musterbeat(self.data_dir.parent().unwrap());
        command.env("MUSTERBEAT_DATA_DIR", self.data_dir);
        command.args(args).env("MUSTERBEAT_SERVER_URL", self.server);
        command
    }

    /// Gives a command that succeeds; returns what it prints.
    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Gives a command that fails; returns why.
    fn fail(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Waits until pools are full; returns the cells of the only one's row.
    fn pool(&self) -> Vec<String> {
        let shown = self.run(&["pool", "--wait", "1m"]);
        let row = shown.lines().nth(1).unwrap_or_default();
        row.split_whitespace().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn pool_is_filled_claimed_and_refilled_by_five_commands() {
    let folder = tempfile::Builder::new().prefix("musterbeat-tour-").tempdir().unwrap();
    open_to_all(folder.path());
    let data_dir = folder.path().join("data");
    let server = Replica::start(on_its_own(&data_dir).arg("--dev"));
    let shell = Shell { data_dir: &data_dir, server: server.client.base() };
    let template = folder.path().join("hello");
    std::fs::create_dir(&template).unwrap();
    std::fs::write(template.join("README.md"), "Hello from a template\n").unwrap();

    let template = template.to_str().unwrap();
    let added = shell.run(&["template", "add", "hello", template, "--preset", "small=3"]);
    assert_eq!(added, "hello v1 is active, made of hello/v1\n");
    let full = ["hello/small", "3", "3", "0", "0", "0", "healthy"];
    assert_eq!(shell.pool(), full);
    let claimed = shell.run(&["claim", "hello/small", "blue"]);
    let id = claimed.lines().next().unwrap().strip_prefix("blue is yours: workspace ").unwrap();
    assert!(claimed.contains("succeeded"), "{claimed}");
    assert_eq!(shell.pool(), full);
    let read = std::fs::read_to_string(data_dir.join("workspaces").join(id).join("README.md"));
    assert_eq!(read.unwrap(), "Hello from a template\n");

    assert!(shell.run(&["workspace", "list"]).contains(id));
    assert!(shell.fail(&["claim", "hello/large", "red"]).contains("no preset \"large\""));
    assert!(shell.fail(&["claim", "hallo/small", "red"]).contains("no template \"hallo\""));
    assert!(shell.fail(&["claim", "hello/small", "blue"]).contains("the name is taken"));
    assert!(
        shell.run(&["pool", "set", "hello/small", "1", "--wait", "1m"]).contains("hello/small  1")
    );
    let second = shell.run(&["template", "add", "hello", template, "--preset", "small=2"]);
    assert_eq!(second, "hello v2 is active, made of hello/v2\n");
    assert!(shell.run(&["workspace", "delete", "blue"]).contains("succeeded"));
    assert!(!data_dir.join("workspaces").join(id).exists());
    server.stop();
}

#[tokio::test]
async fn two_agents_are_asked_by_one_curl() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(demo);
    let folder = tempfile::Builder::new().prefix("musterbeat-tour-").tempdir().unwrap();
    open_to_all(folder.path());
    let mut command = on_its_own(&folder.path().join("data"));
    command.args(["--dev", "--runner", "agent"]).env("MUSTERBEAT_MODEL", "demo");
    let server = Replica::start(command.env("MUSTERBEAT_MODEL_URL", models.base_url()));
    let request = server.client.request(Method::POST, "/api/v1/chats");
    let request = request.header("accept", "text/event-stream");
    let asked = request.json(&json!({ "content": "Please ask two agents." }));
    let events = Events::of(asked.send().await.unwrap()).rest().await;
    // The stream has ended, so the chat is at rest.
    let chat = events[0].1["chat"]["id"].as_str().unwrap();
    let answer = told(&server.client, chat).await.pop().unwrap();
    assert!(REPORTS.iter().all(|report| answer.contains(report)), "{answer}");
    server.stop();
}
