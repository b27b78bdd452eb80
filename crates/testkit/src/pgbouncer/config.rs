//! What a PgBouncer is told.

use anyhow::{Context, Result};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// Returns the settings of a pooler on `port` that lets everybody in as the user of `upstream`.
pub(super) fn text(upstream: &PgConnectOptions, port: u16) -> Result<String> {
    let url = upstream.to_url_lossy();
    let password = decoded(url.password().unwrap_or_default())
        .context("the password in the URL of the database is not UTF-8")?;
    let host = match upstream.get_socket() {
        Some(folder) => folder.to_string_lossy().into_owned(),
        None => upstream.get_host().to_owned(),
    };
    let (upstream_port, user) = (upstream.get_port(), quoted(upstream.get_username()));
    let host = quoted(&host);
    // An empty word would be read as an escaped quotation mark.
    let password = match &*password {
        "" => String::new(),
        password => format!(" password={}", quoted(password)),
    };
    Ok(format!(
        "[databases]\n\
         * = host={host} port={upstream_port} user={user}{password}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = any\n\
         pool_mode = transaction\n\
         ignore_startup_parameters = extra_float_digits,options\n"
    ))
}

/// Returns the URL of the database of `upstream` by way of a pooler on `port`.
pub(super) fn url(upstream: &PgConnectOptions, port: u16) -> String {
    let database = upstream.get_database().unwrap_or("postgres");
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username("anybody")
        .database(database)
        .ssl_mode(PgSslMode::Disable)
        .to_url_lossy()
        .to_string()
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// Undoes the percent signs of a URL.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use expect_test::expect;

    use super::*;

    #[test]
    fn everybody_comes_in_as_the_user_of_the_server() {
        let url = "postgres://us%65r:it%27s%20%C3%A9@db.example:5433/app";
        let upstream = PgConnectOptions::from_str(url).unwrap();
        expect![[r"
            [databases]
            * = host='db.example' port=5433 user='user' password='it''s é'
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = 7
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            ignore_startup_parameters = extra_float_digits,options
        "]]
        .assert_eq(&text(&upstream, 7).unwrap());
        let through = PgConnectOptions::from_str(&super::url(&upstream, 7)).unwrap();
        assert_eq!((through.get_port(), through.get_database()), (7, Some("app")));
    }
}
