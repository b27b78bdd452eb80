use reqwest::header::HeaderName;
use uuid::Uuid;

use super::*;

#[test]
fn a_path_of_the_server_is_kept() {
    let id = "00000000-0000-0000-0000-000000000000";
    for (server, expected) in [
        ("http://127.0.0.1:7878", "http://127.0.0.1:7878"),
        ("http://127.0.0.1:7878/", "http://127.0.0.1:7878"),
        ("https://example.org/muster/", "https://example.org/muster"),
    ] {
        let url = endpoint(server, AgentId::new(Uuid::nil())).unwrap();
        assert_eq!(url.as_str(), format!("{expected}/api/v1/agents/{id}/metadata"));
    }
}

#[test]
fn a_server_that_cannot_be_called_is_refused_and_not_repeated() {
    for server in [
        "",
        "muster",
        "ftp://muster",
        "http://",
        "http://u@muster",
        "http://:p@muster",
        "https://muster?a=b",
        "https://muster#a",
        "unix:/run/muster",
    ] {
        let options = ReporterOptions::new(server, AgentId::new(Uuid::nil()));
        assert!(matches!(HttpServer::new(&options), Err(ReporterError::Url)), "{server}");
    }
}

#[test]
fn a_token_that_no_header_takes_is_refused_and_not_repeated() {
    for token in ["", "mba_a b", "mba_a\n", "mba_ä"] {
        let mut options = ReporterOptions::new("http://127.0.0.1", AgentId::new(Uuid::nil()));
        options.token = Some(token.into());
        let error = HttpServer::new(&options).unwrap_err();
        assert!(matches!(error, ReporterError::Token), "{token}");
        assert!(!format!("{options:?} {error:?}").contains("mba_"));
    }
}

#[test]
fn each_status_has_its_meaning() {
    let away = |reason: &str| CallError::Away { reason: reason.to_owned(), wait: None };
    for (status, expected) in [
        (401, CallError::Unauthorized),
        (404, CallError::NotFound),
        (400, CallError::Refused("400 Bad Request: too much".to_owned())),
        (413, CallError::Refused("413 Payload Too Large: too much".to_owned())),
        (422, CallError::Refused("422 Unprocessable Entity: too much".to_owned())),
        (403, away("403 Forbidden: too much")),
        (429, away("429 Too Many Requests: too much")),
        (500, away("500 Internal Server Error: too much")),
        (503, away("503 Service Unavailable: too much")),
    ] {
        assert_eq!(refused(status, &[("content-type", PROBLEM)], "too much"), expected);
    }
}

#[test]
fn an_agent_is_not_gone_because_a_proxy_says_so() {
    for (status, name) in [(401, "401 Unauthorized"), (404, "404 Not Found")] {
        let reason = format!("{name} by something that is not musterbeat: is its URL right?");
        let expected = CallError::Away { reason, wait: None };
        assert_eq!(refused(status, &[("content-type", "text/html")], ""), expected);
        assert_eq!(refused(status, &[], ""), expected);
    }
}

#[test]
fn the_server_says_for_how_long_it_wants_to_be_left_alone() {
    for (text, seconds) in [("7", Some(7)), (" 0 ", Some(0)), ("soon", None), ("-1", None)] {
        for status in [429, 503] {
            let headers = [("content-type", PROBLEM), ("retry-after", text)];
            let CallError::Away { wait, .. } = refused(status, &headers, "") else {
                panic!("{status}");
            };
            assert_eq!(wait, seconds.map(Duration::from_secs), "{text}");
        }
    }
}

#[test]
fn a_detail_forges_no_line_of_the_log_and_has_a_bound() {
    let CallError::Refused(reason) = refused(400, &[("content-type", PROBLEM)], "a\nb") else {
        panic!("a detail of two lines");
    };
    assert_eq!(reason, "400 Bad Request: a b");
    let detail = "€".repeat(1_000);
    let error = refused(400, &[("content-type", PROBLEM)], &detail);
    assert_eq!(error, CallError::Refused(format!("400 Bad Request: {}", "€".repeat(166))));
    assert_eq!(self::detail(b"<html>"), "it does not say why");
}

#[test]
fn definitions_that_no_server_should_give_are_left_out_or_bounded() {
    let told: Told = serde_json::from_value(serde_json::json!({
        "definitions_version": 3,
        "metadata": [
            {"key": "load", "display_name": "Load", "script": "", "interval_seconds": 0,
             "timeout_seconds": 4_000_000, "display_order": 1, "value": null, "error": null,
             "collected_at": null},
            {"key": "", "script": "true", "interval_seconds": 1, "timeout_seconds": 1},
            {"key": "load", "script": "true", "interval_seconds": 1, "timeout_seconds": 1},
        ],
    }))
    .unwrap();
    let assignment = told.into_assignment();
    let duty = Duty {
        key: Key::new("load").unwrap(),
        script: String::new(),
        interval: Duration::from_secs(1),
        time_max: Duration::from_hours(1),
    };
    assert_eq!(assignment, Assignment { version: 3, duties: vec![duty] });
}

fn refused(status: u16, headers: &[(&str, &str)], detail: &str) -> CallError {
    let header = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
    };
    let headers = headers.iter().map(header).collect();
    let body = serde_json::to_vec(&serde_json::json!({ "detail": detail })).unwrap();
    refusal(StatusCode::from_u16(status).unwrap(), &headers, &body)
}
