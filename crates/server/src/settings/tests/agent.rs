//! Settings of the runner `agent`: models, their keys, servers of tools.

use super::*;

/// Reads `file` with the runner `agent`, and these variables.
fn load(file: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let mut loaded = None;
    #[expect(clippy::result_large_err, reason = "the shape of the jail's closure")]
    Jail::expect_with(|jail| {
        jail.create_file(FILE, file)?;
        jail.create_file("key", " \n sk-in-a-file \n")?;
        jail.create_file("empty", "\n")?;
        jail.set_env("MUSTERBEAT_RUNNER", "agent");
        for (name, value) in variables {
            jail.set_env(name, value);
        }
        let settings = Settings::load(None, none());
        loaded = Some(settings.map_err(|error| format!("{error:#}")));
        Ok(())
    });
    loaded.unwrap()
}

/// Checks that `file` is refused with all of these words.
fn refused(file: &str, words: &[&str]) {
    let error = load(file, &[]).unwrap_err();
    for word in words {
        assert!(error.contains(word), "{error:?} lacks {word:?}");
    }
}

#[test]
fn agent_has_somebody_to_ask() {
    refused("", &["`agent`", "model_url", "MUSTERBEAT_MODEL_URL=", "[[provider]]"]);
    let own = [("MUSTERBEAT_MODEL_URL", "http://127.0.0.1:1/v1"), ("MUSTERBEAT_MODEL", "qwen3")];
    let settings = load("model_context = 32768", &own).unwrap();
    let config = settings.own_model().unwrap().unwrap();
    assert_eq!((config.name.as_str(), config.context_limit), ("qwen3", Some(32_768)));
    assert_eq!(config.provider, DEFAULT_PROVIDER);
    let providers = settings.providers().unwrap();
    assert_eq!(providers[0].base_url.as_deref(), Some("http://127.0.0.1:1/v1"));
    assert!(load("[[provider]]\nname = \"claude\"\nkind = \"anthropic\"", &[]).is_ok());
}

#[test]
fn key_comes_from_one_place() {
    let key = |file: &str, variables: &[(&str, &str)]| {
        let mut found = None;
        #[expect(clippy::result_large_err, reason = "the shape of the jail's closure")]
        Jail::expect_with(|jail| {
            jail.create_file(FILE, file)?;
            jail.create_file("key", " \n sk-in-a-file \n")?;
            for (name, value) in variables {
                jail.set_env(name, value);
            }
            let settings = Settings::load(None, none()).unwrap();
            found = settings.providers().unwrap().remove(0).key;
            Ok(())
        });
        found.map(|key| key.expose_secret().to_owned())
    };
    assert_eq!(key("model_key_file = \"key\"", &[]).as_deref(), Some("sk-in-a-file"));
    assert_eq!(key("model = \"x\"", &[("MUSTERBEAT_MODEL_KEY", "sk-x")]).as_deref(), Some("sk-x"));
    let table = "[[provider]]\nname = \"x\"\nkey_env = \"KEY_OF_X\"";
    assert_eq!(key(table, &[("KEY_OF_X", "sk-y")]).as_deref(), Some("sk-y"));
    assert_eq!(key("model = \"x\"", &[]), None);

    refused("model_key_file = \"nowhere\"", &["\"default\"", "`model_key_file`", "nowhere"]);
    refused("model_key_file = \"empty\"", &["`model_key_file`", "empty holds no key"]);
    let twice = "model_key = \"x\"\nmodel_key_file = \"key\"";
    refused(twice, &["`model_key`, `model_key_file`", "keep one"]);
    let table = "[[provider]]\nname = \"x\"\n";
    refused(&format!("{table}key_file = \"nowhere\""), &["\"x\"", "`key_file`", "nowhere"]);
    refused(&format!("{table}key_env = \"NOT_SET\""), &["\"x\"", "`key_env`", "NOT_SET"]);
}

#[test]
#[expect(clippy::result_large_err, reason = "the shape of the jail's closure")]
fn key_that_was_checked_is_the_key_that_is_used() {
    Jail::expect_with(|jail| {
        jail.set_env("MUSTERBEAT_RUNNER", "agent");
        jail.set_env("MUSTERBEAT_MODEL_KEY_FILE", "key");
        jail.create_file("key", "sk-checked")?;
        let settings = Settings::load(None, none()).unwrap();
        jail.create_file("key", "")?;
        let key = settings.providers().unwrap().remove(0).key.unwrap();
        assert_eq!(key.expose_secret(), "sk-checked");
        Ok(())
    });
}

#[test]
fn key_that_is_no_text_is_refused_without_showing_it() {
    for key in ["12345678", "1234.5678", "-12345678"] {
        for name in ["model_key", "cluster_secret"] {
            let error = load(&format!("{name} = {key}"), &[]).unwrap_err();
            assert!(error.contains(name) && error.contains("quotes"), "{error}");
            assert!(!error.contains("1234"), "{error}");
        }
    }
}

#[test]
fn providers_have_names_of_their_own() {
    let table = |name: &str| format!("[[provider]]\nname = \"{name}\"\n");
    refused(&[table("a"), table("a")].concat(), &["`provider`", "\"a\"", "taken"]);
    refused(&table(" "), &["`provider`", "empty"]);
    refused(&format!("model = \"x\"\n{}", table("default")), &["\"default\"", "taken"]);
    refused(&format!("{}colour = 1", table("a")), &["colour"]);
    refused(&format!("{}kind = \"telepathy\"", table("a")), &["telepathy", "openai"]);
}

#[test]
fn servers_of_tools_are_tables() {
    let file = "
        model = \"x\"
        [[mcp]]
        name = \"files\"
        command = \"mcp-files\"
        args = [\"--root\", \"/srv\"]
        env = { FILES_TOKEN = \"sk-of-files\" }
        allow = [\"read_*\"]
        lifetime = \"run\"
        [[mcp]]
        name = \"issues\"
        url = \"https://issues.example.org/mcp?key=sk-in-a-query\"
        headers = { authorization = \"Bearer sk-in-a-header\" }
        allow = [\"*\"]
        call_timeout = \"30s\"
    ";
    let settings = load(file, &[("MUSTERBEAT_MODEL_KEY", "sk-of-model")]).unwrap();
    let names: Vec<_> = settings.mcp.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["files", "issues"]);
    assert_eq!(settings.mcp[1].call_timeout, Duration::from_secs(30));
    assert!(!format!("{settings:?}").contains("sk-"), "{settings:?}");

    let server = |rest: &str| format!("model = \"x\"\n[[mcp]]\nname = \"files\"\n{rest}");
    refused(&server("command = \"x\""), &["mcp.files.allow"]);
    refused(&server("allow = [\"*\"]"), &["mcp.files.command", "`url`"]);
    refused(&server("allow = [\"*\"]\ncommand = \"x\"\ncolour = 1"), &["colour"]);
    let time = server("allow = [\"*\"]\ncommand = \"x\"\ncall_timeout = \"soon\"");
    refused(&time, &["mcp.files.call_timeout", "30s"]);
}

#[test]
fn subagents_are_as_the_operator_says() {
    let settings = load("model = \"x\"\nsubagent_depth_max = 3\nsubagents_limit = 7", &[]).unwrap();
    let policy = settings.subagents();
    assert_eq!((policy.default.depth_max, policy.default.at_work_max), (3, 100));
    assert_eq!((policy.bound.depth_max, policy.bound.at_work_max), (10, 7));
}
