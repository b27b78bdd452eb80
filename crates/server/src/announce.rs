//! What a new user reads first.

use std::fmt::Write as _;

use secrecy::{ExposeSecret, SecretString};

use crate::settings::Settings;

/// Returns the lines that a server prints once it listens.
///
/// The token is there only at the first start; only its hash is stored.
pub(crate) fn text(
    url: &str,
    database: Option<&str>,
    settings: &Settings,
    token: Option<&SecretString>,
) -> String {
    let mut text = format!("musterbeat listens on {url}\n");
    if let Some(database) = database {
        let _ = writeln!(text, "  database  {database}");
    }
    match token {
        _ if settings.dev => text.push_str("  tokens    none needed (dev)\n"),
        Some(token) => {
            let token = token.expose_secret();
            let _ = writeln!(text, "  token     {token}   (admin; shown once, keep it)");
        }
        None => text.push_str("  token     as before; `musterbeat token` makes another\n"),
    }
    let _ = writeln!(text, "  API       {url}/docs\n");
    let _ = writeln!(text, "Ask something, and watch the answer come:\n");
    text.push_str(&curl(url, settings.dev, token));
    text
}

fn curl(url: &str, dev: bool, token: Option<&SecretString>) -> String {
    let bearer = token.map_or("$MUSTERBEAT_TOKEN", |token| token.expose_secret());
    let authorization = if dev {
        String::new()
    } else {
        format!("\n       -H \"Authorization: Bearer {bearer}\" \\")
    };
    format!(
        "  curl -N {url}/api/v1/chats \\{authorization}\n       \
         -H 'Accept: text/event-stream' -H 'Content-Type: application/json' \\\n       \
         -d '{{\"content\": \"Hello, who keeps the muster roll?\"}}'\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn first_start_shows_a_curl_that_works() {
        let token = SecretString::from("mb_1");
        let shown = text(
            "http://127.0.0.1:7878",
            Some("own PostgreSQL"),
            &Settings::default(),
            Some(&token),
        );
        expect![[r#"
            musterbeat listens on http://127.0.0.1:7878
              database  own PostgreSQL
              token     mb_1   (admin; shown once, keep it)
              API       http://127.0.0.1:7878/docs

            Ask something, and watch the answer come:

              curl -N http://127.0.0.1:7878/api/v1/chats \
                   -H "Authorization: Bearer mb_1" \
                   -H 'Accept: text/event-stream' -H 'Content-Type: application/json' \
                   -d '{"content": "Hello, who keeps the muster roll?"}'
        "#]]
        .assert_eq(&shown);
    }
}
