use proptest::prelude::*;

use super::*;

const KINDS: [ErrorKind; 10] = [
    ErrorKind::Auth,
    ErrorKind::Configuration,
    ErrorKind::ContextLength,
    ErrorKind::RateLimit,
    ErrorKind::Overloaded,
    ErrorKind::Timeout,
    ErrorKind::StartupTimeout,
    ErrorKind::Silence,
    ErrorKind::Transport,
    ErrorKind::Other,
];

#[test]
fn status_decides() {
    check(
        "
        401 answer -> auth final | Unauthorized
        401 answer -> auth final | prompt is too long: overloaded, try again later
        403 answer -> auth final | {'error':{'type':'permission_error','message':'Your key may not use this'}}
        407 answer -> auth final | Proxy Authentication Required
        402 answer -> auth final | {'error':{'message':'Insufficient Balance','type':'unknown_error'}}
        402 answer -> auth final | This request requires more credits, or fewer max_tokens
        400 answer -> configuration final | temperature: must be at most 2
        400 answer -> configuration final | rate limit exceeded, timeout, overloaded
        400 answer -> configuration final | max_tokens: 300000 > 200000, which is the maximum allowed number of output tokens
        404 answer -> configuration final | The model `gpt-9` does not exist or you do not have access to it.
        405 answer -> configuration final | Method Not Allowed
        422 answer -> configuration final | body.messages.0.role: Input should be 'user'
        301 answer -> configuration final | Moved Permanently
        501 answer -> configuration final | This server does not support chat
        408 answer -> timeout again | Request Timeout
        409 answer -> overloaded again | Conflict: lock held by another request
        425 answer -> transport again | Too Early
        499 answer -> transport again | {'error':{'code':499,'status':'CANCELLED'}}
        429 answer -> rate_limit again | Too Many Requests
        429 answer -> rate_limit again | invalid api key, model not found, timeout
        429 answer -> rate_limit again |
        500 answer -> overloaded again | {'error':{'type':'api_error','message':'Internal server error'}}
        500 answer -> overloaded again | invalid api key
        502 answer -> overloaded again | <html><h1>502 Bad Gateway</h1></html>
        503 answer -> overloaded again | invalid model
        503 answer -> overloaded again | the prompt is too long for what is free
        504 answer -> timeout again | upstream request timeout
        520 answer -> overloaded again | Web server returned an unknown error
        524 answer -> timeout again | A timeout occurred
        529 answer -> overloaded again | {'type':'error','error':{'type':'overloaded_error','message':'Overloaded'}}
        599 answer -> overloaded again | network connect timeout error
        503 transport -> overloaded again | error decoding response body
        401 timeout -> auth final | operation timed out
        ",
    );
}

#[test]
fn history_that_is_too_long_is_told_by_the_text() {
    check(
        "
        400 answer -> context_length final | {'error':{'message':'too much','type':'invalid_request_error','code':'context_length_exceeded'}}
        400 answer -> context_length final | This model's maximum context length is 8192 tokens. However, your messages resulted in 8545 tokens.
        400 answer -> context_length final | Your input exceeds the context window of this model. Please adjust your input and try again.
        400 answer -> context_length final | {'type':'error','error':{'type':'invalid_request_error','message':'prompt is too long: 202095 tokens > 200000 maximum'}}
        400 answer -> context_length final | input length and `max_tokens` exceed context limit: 90402 + 116650 > 204648
        400 answer -> context_length final | The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).
        400 answer -> context_length final | request (4390 tokens) exceeds the available context size (4096 tokens), try increasing it
        400 answer -> context_length final | {'error':{'code':400,'message':'no','type':'exceed_context_size_error'}}
        500 answer -> context_length final | {'error':{'code':500,'message':'Context size has been exceeded.','type':'server_error'}}
        400 answer -> context_length final | the input length exceeds the context length
        400 answer -> context_length final | Requested tokens (2285) exceed context window of 2048
        400 answer -> context_length final | This model's maximum prompt length is 131072 but the request contains 537812 tokens.
        400 answer -> context_length final | Please reduce the length of the messages or completion.
        400 answer -> context_length final | Input is too long for requested model.
        400 answer -> context_length final | length of prompt_tokens (163280) must be less than max_seq_len (32768).
        400 answer -> context_length final | prompt token count of 130000 exceeds the limit of 128000
        400 answer -> context_length final | Invalid request: Your request exceeded model token limit: 262144
        400 answer -> context_length final | invalid params, context window exceeds limit
        400 answer -> context_length final | Trying to keep the first 6402 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens
        400 answer -> context_length final | The input (40000 tokens) is longer than the model's context length (32768 tokens).
        422 answer -> context_length final | `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens
        413 answer -> context_length final | Payload Too Large
        429 answer -> context_length final | Request too large for gpt-4 on tokens per min (TPM): Limit 10000, Requested 12000.
        - event -> context_length final | {'error':{'code':400,'message':'the request exceeds the available context size'}}
        - event -> context_length final | context length exceeded: unauthorized, request timed out
        - local -> context_length final | the prompt is too long: it exceeds the context window
        ",
    );
}

#[test]
fn money_is_waited_for_by_nobody() {
    check(
        "
        429 answer -> auth final | {'error':{'message':'You exceeded your current quota, please check your plan and billing details.','type':'insufficient_quota'}}
        400 answer -> auth final | Your credit balance is too low to access the Anthropic API.
        - event -> auth final | billing_hard_limit_reached
        - event -> auth final | {'error':{'type':'insufficient_quota','message':'rate limit'}}
        429 answer -> rate_limit again | {'error':{'code':429,'message':'You exceeded your current quota, please check your plan and billing details.','status':'RESOURCE_EXHAUSTED'}}
        429 answer -> rate_limit again | You exceeded your current quota, check your billing details.\\nPlease retry in 15.0028s.
        429 answer -> rate_limit again | Rate limit reached on tokens per min (TPM): Limit 10000, Used 9000. Please try again in 6s.
        ",
    );
}

#[test]
fn without_a_status_the_text_decides() {
    check(
        "
        - event -> auth final | {'error':{'message':'Incorrect API key provided: sk-1***','type':'invalid_request_error','code':'invalid_api_key'}}
        400 answer -> auth final | API key not valid. Please pass a valid API key.
        - event -> auth final | rpc error: code = PermissionDenied
        - event -> configuration final | model 'x' not found, check your API key
        - event -> configuration final | the model does not exist; the request timed out
        - event -> configuration final | {'error':{'type':'invalid_request_error','message':'messages: at least one is required'}}
        - event -> configuration final | Model is not supported, please try again later
        - event -> configuration final | The response was stopped by the content filter
        - event -> rate_limit again | {'type':'error','error':{'type':'rate_limit_error','message':'slower'}}
        - event -> rate_limit again | ThrottlingException: Too many tokens, please wait before trying again.
        - event -> overloaded again | {'type':'error','error':{'type':'overloaded_error','message':'Overloaded'}}
        - event -> overloaded again | The server is busy. Please try again later.
        - event -> overloaded again | We're at CAPACITY right now
        - event -> overloaded again | {'error':{'code':'server_error','message':'Provider disconnected'}}
        - event -> timeout again | context deadline exceeded
        - event -> timeout again | upstream idle time-out
        - event -> transport again | stream error: stream ID 5; INTERNAL; received from peer
        - event -> transport again | unexpected EOF
        - event -> transport again | http2: server sent GOAWAY and closed the connection
        - event -> transport again | the connection was reset
        - event -> other final | {'error':{'message':'boom'}}
        - event -> other final |
        - answer -> overloaded again | Service Unavailable
        200 event -> overloaded again | the model is overloaded
        ",
    );
}

#[test]
fn numbers_count_as_statuses_only_where_they_are_called_so() {
    check(
        "
        - event -> rate_limit again | {'error':{'code':429,'message':'no'}}
        - event -> rate_limit again | HTTP 429
        - event -> rate_limit again | 429 Too Many Requests: model not found
        - event -> overloaded again | provider answered with status 503
        - event -> overloaded again | {'error':{'code':502,'message':'the model does not exist'}}
        200 event -> timeout again | {'error':{'code':504}}
        - event -> other final | request 14290 failed
        - event -> other final | request 429000 failed
        - event -> other final | code 1,429
        - event -> other final | after 4.29 seconds and 429 tokens
        - event -> other final | a42942
        - transport -> transport again | error 401: reading from 10.0.0.1:503
        ",
    );
}

#[test]
fn the_line_fails_in_its_own_ways() {
    check(
        "
        - transport -> transport again | error sending request for url (http://localhost:1/v1): connection refused
        - transport -> transport again | connection reset by peer (os error 104)
        - transport -> transport again | Broken pipe (os error 32)
        - transport -> transport again | connection error: stream closed because of a broken pipe
        - transport -> transport again | http2 error: stream error received: refused stream before processing any application logic
        - transport -> transport again | dns error: failed to lookup address information
        - transport -> transport again | EOF while parsing a value at line 1 column 0
        - transport -> transport again | the body ended: model not found, unauthorized
        - transport -> transport again |
        - transport -> timeout again | error sending request: operation timed out
        - transport -> configuration final | invalid peer certificate: UnknownIssuer
        - transport -> configuration final | builder error: relative URL without a base
        - timeout -> timeout again | context length exceeded
        - timeout -> timeout again |
        ",
    );
}

#[test]
fn a_failure_of_our_own_is_not_asked_again() {
    check(
        "
        - local -> other final | deadline exceeded
        - local -> other final | deadline has elapsed
        - local -> other final | the call was cancelled
        - local -> auth final | Model 'x' requires an API key.
        - local -> configuration final | the service is overloaded, 429, connection reset
        - local -> configuration final | the request has no messages
        503 local -> configuration final | unavailable
        ",
    );
}

#[test]
fn status_is_kept_or_taken_from_what_the_provider_named() {
    let status = |status, cause, text| ModelError::classify(failure(status, cause, text)).status;
    assert_eq!(status(Some(503), Cause::Answer, "code 429"), Some(503));
    assert_eq!(status(None, Cause::Event, r#"{"code":429}"#), Some(429));
    assert_eq!(status(None, Cause::Transport, "status 429"), None);
    assert_eq!(status(None, Cause::Event, "no"), None);
}

#[test]
fn message_is_what_the_provider_says_to_people() {
    let message = |text: &str| ModelError::classify(failure(None, Cause::Event, text)).message;
    assert_eq!(message(r#"{"error":{"message":" too long ","type":"x"}}"#), "too long");
    assert_eq!(message(r#"[{"error":{"code":1,"message":"in a list"}}]"#), "in a list");
    assert_eq!(message(r#"{"error":"as a text"}"#), "as a text");
    assert_eq!(message(r#"{"message":"beside","error":{}}"#), "beside");
    assert_eq!(message(r#"{"detail":"no such route"}"#), "no such route");
    assert_eq!(message(r#"{"code":1}"#), r#"{"code":1}"#);
    assert_eq!(message(" plain\0\n words "), "plain \n words");
    assert_eq!(message("\n"), "it gave no reason");
    assert_eq!(message(&"é".repeat(MESSAGE_BYTES_MAX)).len(), MESSAGE_BYTES_MAX);
    assert_eq!(message(&"ab€".repeat(MESSAGE_BYTES_MAX)).len(), MESSAGE_BYTES_MAX);
}

#[test]
fn what_the_provider_asks_for_is_kept() {
    let wait = Some(Duration::from_secs(7));
    let failure = Failure { retry_after: wait, ..failure(Some(429), Cause::Answer, "slower") };
    let error = ModelError::classify(failure);
    assert_eq!(error.retry_after, wait);
    assert_eq!(error.to_string(), "local: slower");
}

#[test]
fn kinds_are_called_the_same_everywhere() {
    for kind in KINDS {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
}

proptest! {
    #[test]
    fn classification_takes_anything_and_keeps_the_status(
        status: Option<u16>,
        cause in cause(),
        text in text(),
    ) {
        let error = ModelError::classify(failure(status, cause, &text));
        prop_assert!(status.is_none() || error.status == status);
        prop_assert!(!error.message.is_empty());
        prop_assert!(error.message.len() <= MESSAGE_BYTES_MAX);
        prop_assert!(!(cause == Cause::Local && error.kind.is_retryable()));
    }

    #[test]
    fn statuses_that_pass_are_asked_again_whatever_is_said(
        status in prop_oneof![Just(408_u16), Just(409), Just(425), 502_u16..=599],
        text in text(),
    ) {
        let error = ModelError::classify(failure(Some(status), Cause::Answer, &text));
        prop_assert!(error.kind.is_retryable(), "{error:?}");
    }

    #[test]
    fn statuses_that_do_not_pass_are_final_whatever_is_said(
        status in prop_oneof![300_u16..=407, 410_u16..=424, Just(501)],
        text in text(),
    ) {
        let error = ModelError::classify(failure(Some(status), Cause::Answer, &text));
        prop_assert!(!error.kind.is_retryable(), "{error:?}");
    }
}

fn cause() -> impl Strategy<Value = Cause> {
    proptest::sample::select(vec![
        Cause::Answer,
        Cause::Event,
        Cause::Transport,
        Cause::Timeout,
        Cause::Local,
    ])
}

/// Anything, and phrases that mean something, in any order.
fn text() -> impl Strategy<Value = String> {
    let phrases = Topic::ALL.iter().chain(&[Topic::Address, Topic::Ours]);
    let phrases = phrases.flat_map(|topic| topic.phrases().iter().map(ToString::to_string));
    let piece = prop_oneof![
        any::<String>(),
        "[0-9.,:{}\"\\\\ a-zA-Z]{0,20}",
        proptest::sample::select(phrases.collect::<Vec<_>>()),
    ];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.join(" "))
}

/// Reads lines `status cause -> kind again|final | text`, with `'` for `"` in JSON.
fn check(table: &str) {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in lines {
        let (rule, text) = line.split_once('|').unwrap();
        let text = text.trim();
        let text = if text.contains('{') { text.replace('\'', "\"") } else { text.to_owned() };
        let words: Vec<&str> = rule.split_whitespace().collect();
        let [status, cause, "->", expected, again] = *words else { panic!("unreadable: {line}") };
        let cause = match cause {
            "answer" => Cause::Answer,
            "event" => Cause::Event,
            "transport" => Cause::Transport,
            "timeout" => Cause::Timeout,
            "local" => Cause::Local,
            _ => panic!("no cause: {line}"),
        };
        let error = ModelError::classify(failure(status.parse().ok(), cause, &text));
        let found = if error.kind.is_retryable() { "again" } else { "final" };
        assert_eq!((error.kind.as_str(), found), (expected, again), "{line}");
    }
}

fn failure(status: Option<u16>, cause: Cause, text: &str) -> Failure<'_> {
    Failure { provider: "local", status, retry_after: None, text, cause }
}
