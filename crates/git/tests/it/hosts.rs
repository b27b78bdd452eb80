//! Which host answers for which origin, and what is wrong with a description of hosts.

use musterbeat_core::port::FetchError;
use musterbeat_git::{HostConfig, Hosts, ProviderConfig};
use musterbeat_testkit::{FakeGitHub, FakePull, Fault, Whom};

use crate::{ask, github};

#[tokio::test]
async fn each_host_is_asked_with_its_own_token() {
    let (one, two) = (FakeGitHub::start().await.unwrap(), FakeGitHub::start().await.unwrap());
    for fake in [&one, &two] {
        fake.set_pull("octo", "hello", 7, FakePull::of("feature"));
    }
    let hosts = Hosts::new(vec![
        github("one.example", &one.api_url(), "token of one"),
        // What stands around a token in a file is none of it.
        github("TWO.example", &format!("{}/", two.api_url()), " token of two\n"),
    ])
    .unwrap();
    for host in ["one.example", "Two.Example"] {
        let origin = format!("ssh://git@{host}:22/octo/hello.git");
        assert!(ask(&hosts, &origin, None, "feature").await.unwrap().is_some());
    }
    for (fake, token) in [(one, "token of one"), (two, "token of two")] {
        let tokens: Vec<_> = fake.calls().into_iter().filter_map(|call| call.token).collect();
        assert_eq!(tokens, [token, token]);
    }
}

#[tokio::test]
async fn a_limit_of_one_token_does_not_touch_another() {
    let fake = FakeGitHub::start().await.unwrap();
    fake.set_pull("octo", "hello", 7, FakePull::of("feature"));
    let hosts = Hosts::new(vec![
        github("one.example", &fake.api_url(), "one"),
        github("two.example", &fake.api_url(), "two"),
    ])
    .unwrap();
    fake.fail(Whom::Token("one".into()), Fault::TooFast { seconds: 1 });
    let told = ask(&hosts, "git@one.example:octo/hello", None, "feature").await;
    assert!(matches!(told, Err(FetchError::RateLimited { .. })), "{told:?}");
    let told = ask(&hosts, "git@two.example:octo/hello", None, "feature").await;
    assert!(told.unwrap().is_some());
}

#[tokio::test]
async fn nobody_is_asked_without_a_token() {
    let fake = FakeGitHub::start().await.unwrap();
    for token in [None, Some(""), Some(" \n")] {
        let token = token.map(|token| token.to_owned().into());
        let provider = ProviderConfig::GitHub { api: Some(fake.api_url()), token, reviews: false };
        let config = HostConfig { origin: "github.com".into(), provider };
        let hosts = Hosts::new(vec![config]).unwrap();
        let told = ask(&hosts, "git@github.com:octo/hello", None, "feature").await;
        assert_eq!(told, Err(FetchError::NoToken));
    }
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn an_origin_that_is_not_set_has_no_host() {
    let hosts = Hosts::new(vec![github("github.com", "http://127.0.0.1:1", "secret")]).unwrap();
    for origin in [
        "",
        "git@gitlab.com:octo/hello",
        "https://github.com.evil.example/octo/hello",
        "https://github.com@evil.example/octo/hello",
        "https://github.com/octo",
        "/srv/git/hello",
    ] {
        let told = ask(&hosts, origin, None, "feature").await;
        assert_eq!(told, Err(FetchError::NoHost), "{origin}");
    }
}

#[test]
fn a_wrong_description_is_told_what_to_give_instead() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let missing = format!("{folder}/missing");
    let good = || github("github.com", "https://api.github.com", "secret");
    for (configs, expected) in [
        (vec![good(), good()], "`origin` of git hosts: `github.com` is set twice: keep one"),
        (vec![good(), github("", "https://a", "t")], "`origin` of git host number 2 is no host's"),
        (vec![github("me:pass@host", "https://a", "t")], "`origin` of git host number 1 is no"),
        (vec![github("https://host", "https://a", "t")], "`origin` of git host number 1 is no"),
        (vec![github("host/path", "https://a", "t")], "`origin` of git host number 1 is no"),
        (vec![github("host", "host", "t")], "`api` of git host `host` is no URL that begins"),
        (vec![github("host", "ftp://host", "t")], "`api` of git host `host` is no URL"),
        (vec![github("host", "https://me:pass@host", "t")], "`api` of git host `host` is no URL"),
        (vec![github("host", "https://host?pass", "t")], "`api` of git host `host` is no URL"),
        (vec![github("host", "https://host", "pa\nss")], "`token` of git host `host` contains"),
        (vec![local("srv/git")], "`origin` of git hosts: `srv/git` is not absolute: give"),
        (vec![local(&missing)], &format!("`origin` of git hosts: `{missing}` is no folder that")),
        (vec![local("/dev/null")], "`origin` of git hosts: `/dev/null` is no folder that"),
        (
            vec![local(folder), local(&format!("{folder}/."))],
            &format!("`origin` of git hosts: `{folder}/.` is set twice: keep one"),
        ),
    ] {
        let error = Hosts::new(configs).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}\n{expected}");
        assert!(!error.contains("pass"), "{error}");
    }
}

#[test]
fn a_token_is_never_shown() {
    let config = github("github.com", "https://api.github.com", "secret");
    assert!(!format!("{config:?}").contains("secret"));
    let hosts = Hosts::new(vec![config]).unwrap();
    assert!(!format!("{hosts:?}").contains("secret"));
}

fn local(origin: &str) -> HostConfig {
    HostConfig { origin: origin.to_owned(), provider: ProviderConfig::Local }
}
