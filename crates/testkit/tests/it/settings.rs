//! What the environment asks for.

use expect_test::{Expect, expect};
use musterbeat_testkit::Settings;

#[test]
fn without_a_word_docker_comes_before_embedded() {
    check("", expect!["docker, embedded; image postgres:18"]);
    check("TEST_DATABASE_URL= PG_IMAGE=", expect!["docker, embedded; image postgres:18"]);
}

#[test]
fn a_given_server_stands_alone() {
    check("TEST_DATABASE_URL=postgres://h/", expect!["url; image postgres:18"]);
}

#[test]
fn a_named_provider_is_the_only_one() {
    check("MUSTERBEAT_TEST_PROVIDER=docker", expect!["docker; image postgres:18"]);
    check(
        "MUSTERBEAT_TEST_PROVIDER=embedded TEST_DATABASE_URL=postgres://h/",
        expect!["embedded; image postgres:18"],
    );
    check("MUSTERBEAT_TEST_PROVIDER=url TEST_DATABASE_URL=x", expect!["url; image postgres:18"]);
}

#[test]
fn a_wrong_word_names_the_right_ones() {
    check(
        "MUSTERBEAT_TEST_PROVIDER=podman",
        expect![
            "MUSTERBEAT_TEST_PROVIDER cannot be read: `podman` is no provider of test servers: \
             say docker, embedded or url"
        ],
    );
    check(
        "MUSTERBEAT_TEST_PROVIDER=url",
        expect!["MUSTERBEAT_TEST_PROVIDER=url needs a server: set TEST_DATABASE_URL"],
    );
}

#[test]
fn an_image_has_a_name_and_a_tag() {
    check("PG_IMAGE=postgres", expect!["docker, embedded; image postgres:latest"]);
    check(
        "PG_IMAGE=host:5000/own/postgres",
        expect!["docker, embedded; image host:5000/own/postgres:latest"],
    );
    check(
        "PG_IMAGE=postgres@sha256:12",
        expect![
            "PG_IMAGE cannot be read: the image `postgres@sha256:12` is named by a digest: \
             name it by a tag, as in postgres:18"
        ],
    );
}

/// Reads settings from an environment written as `NAME=value` words.
#[expect(clippy::needless_pass_by_value, reason = "an expectation is written in place")]
fn check(environment: &str, expected: Expect) {
    let lookup = |name: &str| {
        let mut pairs = environment.split(' ').filter_map(|word| word.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    };
    let found = match Settings::from_lookup(lookup) {
        Err(error) => format!("{error:#}"),
        Ok(settings) => {
            let candidates: Vec<String> =
                settings.candidates().iter().map(ToString::to_string).collect();
            format!("{}; image {}", candidates.join(", "), settings.image)
        }
    };
    expected.assert_eq(&found);
}
