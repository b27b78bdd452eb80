//! Where settings come from, and what is refused.

mod agent;

use super::*;
use figment::Jail;
use figment::providers::Serialized;

fn none() -> Serialized<std::collections::BTreeMap<String, String>> {
    Serialized::defaults(std::collections::BTreeMap::new())
}

#[test]
#[expect(clippy::result_large_err, reason = "the shape of the jail's closure")]
fn later_sources_win() {
    Jail::expect_with(|jail| {
        jail.create_file(FILE, "capacity = 5\npoll_interval = \"3s\"\n")?;
        jail.set_env("MUSTERBEAT_CAPACITY", "6");
        jail.set_env("MUSTERBEAT_ECHO_PACE", "750ms");
        jail.set_env("MUSTERBEAT_TEST_PROVIDER", "embedded");
        jail.set_env("MUSTERBEAT_TOKEN", "mb_of_a_client");
        jail.set_env("MUSTERBEAT_SERVER_URL", "https://of.an.agent");
        jail.set_env("MUSTERBEAT_AGENT_ID", "of an agent");
        let settings = Settings::load(None, none()).unwrap();
        assert_eq!(settings.capacity.get(), 6);
        assert_eq!(settings.poll_interval, Duration::from_secs(3));
        assert_eq!(settings.echo_pace, Duration::from_millis(750));
        Ok(())
    });
}

#[test]
#[expect(clippy::result_large_err, reason = "the shape of the jail's closure")]
fn error_names_setting_and_source() {
    let check = |name: &str, value: &str, words: &[&str]| {
        Jail::expect_with(|jail| {
            jail.set_env(name, value);
            let error = Settings::load(None, none()).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{error:?} lacks {word:?}");
            }
            Ok(())
        });
    };
    check("MUSTERBEAT_CAPACITI", "7", &["capaciti", "unknown", "environment"]);
    check("MUSTERBEAT_CAPACITY", "0", &["CAPACITY", "nonzero", "environment"]);
    check("MUSTERBEAT_DRAIN_TIMEOUT", "soon", &["DRAIN_TIMEOUT", "environment"]);
    check("MUSTERBEAT_RUNNER", "gpt", &["gpt", "echo", "environment"]);
    check("MUSTERBEAT_RUNNER", "command", &["command:PROGRAM", "environment"]);
    check("MUSTERBEAT_RUNNER", "command: ", &["names no program", "path", "environment"]);
    check("MUSTERBEAT_POSTGRES", "somewhere", &["somewhere", "wheel"]);
}

#[test]
#[expect(clippy::result_large_err, reason = "the shape of the jail's closure")]
fn text_of_the_environment_stays_a_text() {
    for text in ["405", "0405", "true", "-1.50", "[x]", "{a=b}", "\"quoted\"", "'c'"] {
        Jail::expect_with(|jail| {
            for name in ["MODEL", "MODEL_KEY", "AGENT_INSTRUCTIONS", "DATABASE_URL", "DATA_DIR"] {
                jail.set_env(format!("MUSTERBEAT_{name}"), text);
            }
            let settings = Settings::load(None, none()).unwrap();
            let exposed = |secret: &Option<SecretString>| {
                secret.as_ref().map(|secret| secret.expose_secret().to_owned())
            };
            let data_dir = settings.data_dir.to_str().map(str::to_owned);
            let found = [exposed(&settings.model_key), exposed(&settings.database_url), data_dir];
            for found in found.iter().chain([&settings.model, &settings.agent_instructions]) {
                assert_eq!(found.as_deref(), Some(text));
            }
            Ok(())
        });
    }
}

#[test]
#[expect(clippy::result_large_err, reason = "the shape of the jail's closure")]
fn environment_sets_what_is_no_text() {
    Jail::expect_with(|jail| {
        jail.set_env("MUSTERBEAT_DEV", "true");
        jail.set_env("MUSTERBEAT_MODEL_CONTEXT", " 32768 ");
        jail.set_env("MUSTERBEAT_GIT", "[{origin=\"github.com\", provider=github, reviews=true}]");
        let settings = Settings::load(None, none()).unwrap();
        assert!(settings.dev && settings.git[0].reviews);
        assert_eq!(settings.model_context.map(NonZeroU32::get), Some(32_768));
        Ok(())
    });
}

#[test]
#[expect(clippy::result_large_err, reason = "the shape of the jail's closure")]
fn file_tells_texts_from_numbers() {
    let check = |line: &str, name: &str, words: &[&str]| {
        Jail::expect_with(|jail| {
            jail.create_file(FILE, line)?;
            // What wins over it does not mend it.
            jail.set_env(format!("MUSTERBEAT_{}", name.to_uppercase()), "1");
            let error = Settings::load(None, none()).unwrap_err().to_string();
            for word in words.iter().chain([&name, &FILE]) {
                assert!(error.contains(word), "{error:?} lacks {word:?}");
            }
            Ok(())
        });
    };
    check("model = 405", "model", &["405", "a string"]);
    check("data_dir = true", "data_dir", &["true"]);
    check("capacity = \"7\"", "capacity", &["\"7\"", "nonzero"]);
    check("dev = \"true\"", "dev", &["\"true\"", "a boolean"]);
}

#[test]
#[expect(clippy::result_large_err, reason = "the shape of the jail's closure")]
fn git_hosts_are_tables_whose_tokens_are_not_shown() {
    Jail::expect_with(|jail| {
        let file = "
            [[git]]
            origin = \"github.com\"
            provider = \"github\"
            token = \"ghp_secret\"
            reviews = true
            [[git]]
            origin = \"/srv/repositories\"
            provider = \"local-git\"
        ";
        jail.create_file(FILE, file)?;
        let settings = Settings::load(None, none()).unwrap();
        let providers: Vec<_> = settings.git.iter().map(|host| host.provider).collect();
        assert_eq!(providers, [GitProviderKind::Github, GitProviderKind::Local]);
        assert!(settings.git[0].reviews && !settings.git[1].reviews);
        assert!(!format!("{settings:?}").contains("ghp_secret"));
        jail.create_file(FILE, "[[git]]\norigin = \"x\"\nprovider = \"svn\"\n")?;
        let error = Settings::load(None, none()).unwrap_err().to_string();
        assert!(error.contains("svn") && error.contains("local-git"), "{error}");
        Ok(())
    });
}

#[test]
#[expect(clippy::result_large_err, reason = "the shape of the jail's closure")]
fn only_the_file_of_the_working_folder_is_read() {
    Jail::expect_with(|jail| {
        jail.create_file(FILE, "capacity = 5\n")?;
        let below = jail.create_dir("below")?;
        jail.change_dir(below)?;
        let settings = Settings::load(None, none()).unwrap();
        assert_eq!(settings.capacity, Settings::default().capacity);
        Ok(())
    });
}

#[test]
fn runner_is_named_by_a_word_or_a_program() {
    let check = |text: &str, runner: RunnerChoice| assert_eq!(text.parse(), Ok(runner));
    check("echo", RunnerChoice::Echo);
    check("command:answer", RunnerChoice::Command(PathBuf::from("answer")));
    check("command:/opt/my bots/a:b", RunnerChoice::Command(PathBuf::from("/opt/my bots/a:b")));
}

#[test]
fn poll_interval_is_a_pause() {
    let settings = Settings { poll_interval: Duration::ZERO, ..Settings::default() };
    let error = settings.checked().unwrap_err().to_string();
    assert_eq!(error, "`poll_interval` is 0ns, at least 10ms is allowed");
}

#[test]
fn silence_of_notifications_is_a_pause() {
    let settings = Settings { notify_silence: Duration::ZERO, ..Settings::default() };
    let error = settings.checked().unwrap_err().to_string();
    assert_eq!(error, "`notify_silence` is 0ns, at least 100ms is allowed");
}

#[test]
fn batch_of_values_fits_into_what_may_wait() {
    let metadata_pending_max = number(100);
    let error = Settings { metadata_pending_max, ..Settings::default() }.checked();
    let told = "`metadata_batch_max` is 5000, but no more than `metadata_pending_max`, 100, \
                can wait";
    assert_eq!(error.unwrap_err().to_string(), told);
}

#[test]
fn lease_leaves_room_for_a_beat_that_fails() {
    let settings = Settings { lease_ttl: Duration::from_secs(8), ..Settings::default() };
    let error = settings.checked().unwrap_err().to_string();
    assert!(error.contains("lease_ttl") && error.contains("9s"), "{error}");
}

#[test]
fn cluster_secret_is_not_easily_guessed() {
    let settings = Settings { cluster_secret: Some("short".into()), ..Settings::default() };
    let error = settings.checked().unwrap_err().to_string();
    assert!(error.contains("cluster_secret") && error.contains("16 bytes"), "{error}");
}

#[test]
fn advertise_url_is_one() {
    let check = |url: &str, holds: bool| {
        let advertise_url = Some(url.to_owned());
        let checked = Settings { advertise_url, ..Settings::default() }.checked();
        assert_eq!(checked.is_ok(), holds, "{url}");
    };
    check("http://10.0.0.7:7878", true);
    check("https://musterbeat-0.internal/", true);
    check("10.0.0.7:7878", false);
    check("musterbeat-0", false);
    check("http://", false);
    check("ftp://10.0.0.7", false);
    check("http://10.0.0.7/?a=b", false);
}

#[test]
fn dev_is_for_loopback() {
    let settings = Settings { dev: true, ..Settings::default() };
    assert!(settings.clone().checked().is_ok());
    let open = Settings { listen: SocketAddr::from(([0, 0, 0, 0], 80)), ..settings };
    assert!(open.checked().unwrap_err().to_string().contains("listen"));
}
