//! Which command takes which flag.

use std::net::SocketAddr;
use std::path::Path;

use figment::Jail;
use secrecy::ExposeSecret;

use super::*;

/// Settings that have a flag, and the file.
const FLAGS: [&str; 7] =
    ["config", "data-dir", "listen", "database-url", "postgres", "dev", "runner"];

/// Reads the settings of `line`, in a folder where `FILE` sets a capacity.
fn settings(line: &str) -> Settings {
    let mut read = None;
    #[expect(clippy::result_large_err, reason = "the shape of the jail's closure")]
    Jail::expect_with(|jail| {
        jail.create_file("some.toml", "capacity = 7")?;
        jail.create_file("other.toml", "capacity = 8")?;
        jail.set_env("MUSTERBEAT_CONFIG", "other.toml");
        let cli = parse(line.split(' ')).unwrap();
        let of_command = match cli.command {
            None => Flags::default(),
            Some(Command::Serve(flags) | Command::Migrate(flags)) => flags,
            Some(Command::Doctor(args)) => args.flags,
            Some(Command::Token(args)) => args.flags,
            Some(other) => panic!("{other:?} is no command of the server"),
        };
        read = Some(cli.flags.settings(of_command).unwrap());
        Ok(())
    });
    read.unwrap()
}

#[test]
fn flags_of_the_server_stand_before_its_commands_or_after_them() {
    let flags = "--listen 127.0.0.1:1 --data-dir /data --database-url postgres://x --dev \
                 --runner command:x --postgres wheel --config some.toml";
    for line in [
        format!("musterbeat {flags}"),
        format!("musterbeat {flags} serve"),
        format!("musterbeat serve {flags}"),
        format!("musterbeat {flags} migrate"),
        format!("musterbeat migrate {flags}"),
        format!("musterbeat {flags} doctor --json"),
        format!("musterbeat doctor {flags} --json"),
        format!("musterbeat {flags} token --kind user"),
        format!("musterbeat token --kind user {flags}"),
    ] {
        let settings = settings(&line);
        assert_eq!(settings.listen, SocketAddr::from(([127, 0, 0, 1], 1)), "{line}");
        assert_eq!(settings.data_dir, Path::new("/data"), "{line}");
        assert_eq!(settings.database_url.unwrap().expose_secret(), "postgres://x", "{line}");
        assert!(settings.dev, "{line}");
        assert_eq!(settings.runner, "command:x".parse().unwrap(), "{line}");
        assert_eq!(settings.postgres, "wheel".parse().unwrap(), "{line}");
        assert_eq!(settings.capacity.get(), 7, "{line}");
    }
}

#[test]
fn flag_after_a_command_wins_over_one_before_it() {
    let line = "musterbeat --postgres auto --dev --config other.toml serve --postgres wheel \
                --config some.toml";
    let settings = settings(line);
    assert!(settings.dev);
    assert_eq!(settings.postgres, "wheel".parse().unwrap());
    assert_eq!(settings.capacity.get(), 7);
}

#[test]
fn settings_file_is_that_of_the_flag_or_else_of_the_variable() {
    assert_eq!(settings("musterbeat --config some.toml serve").capacity.get(), 7);
    assert_eq!(settings("musterbeat serve").capacity.get(), 8);
}

#[test]
fn commands_of_clients_show_no_flag_of_the_server() {
    let mut program = Cli::command();
    program.build();
    let mut open: Vec<_> = program.get_subcommands().cloned().collect();
    open.retain(|command| {
        !["serve", "migrate", "doctor", "token", "help"].contains(&command.get_name())
    });
    let mut seen = 0;
    while let Some(mut command) = open.pop() {
        let help = command.render_long_help().to_string();
        let called = command.get_bin_name().unwrap();
        for flag in FLAGS {
            let takes =
                called == "musterbeat template add" && ["config", "data-dir"].contains(&flag);
            assert_eq!(help.contains(&format!("--{flag} ")), takes, "{called}: {help}");
        }
        seen += 1;
        open.extend(
            command.get_subcommands().filter(|command| command.get_name() != "help").cloned(),
        );
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn flag_of_the_server_is_refused_by_commands_of_clients() {
    let id = uuid::Uuid::nil();
    let check = |before: &str, called: &str, after: &str, flag: &str| {
        let refused = |line: String| parse(line.split_whitespace()).unwrap_err().to_string();
        let error = refused(format!("musterbeat {before} {called} {after}"));
        assert!(error.contains(&format!("`musterbeat {called}` takes no {flag}")), "{error}");
        let error = refused(format!("musterbeat {called} {after} {before}"));
        assert!(
            error.contains(flag) && error.contains(&format!("musterbeat {called} ")),
            "{error}"
        );
    };
    check("--dev", "agent", &format!("--server http://x --agent {id}"), "--dev");
    check("--listen 127.0.0.1:1", "claim", "hello/small blue", "--listen");
}
