//! What an operator sets for a provider, and what follows from it.

use genai::adapter::AdapterKind;
use musterbeat_core::model_config::NAME_BYTES_MAX;
use reqwest::Url;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// A provider, as an operator sets it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// What configurations of models call it.
    pub name: String,
    /// What it speaks.
    #[serde(default)]
    pub kind: ProviderKind,
    /// Where it is, such as `http://127.0.0.1:11434/v1`; the public place of its kind by default.
    #[serde(default)]
    pub base_url: Option<String>,
    /// The right to ask it. Without one none is sent.
    #[serde(default)]
    pub key: Option<SecretString>,
}

/// What a provider speaks, and where it is if nothing else is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// Chat completions, as `OpenAI` and nearly all local servers offer them.
    #[default]
    Openai,
    /// Responses, the newer interface of `OpenAI`.
    OpenaiResponses,
    /// Messages of Anthropic.
    Anthropic,
    /// Google's Gemini.
    Gemini,
    /// Ollama in its own dialect; with a key, its service on the web unless a base URL is set.
    Ollama,
    /// Groq.
    Groq,
    /// `DeepSeek`.
    Deepseek,
    /// `xAI`.
    Xai,
    /// Mistral.
    Mistral,
    /// Together.
    Together,
    /// Fireworks.
    Fireworks,
    /// `OpenRouter`.
    Openrouter,
    /// Kimi of Moonshot.
    Kimi,
    /// `MiniMax`, which speaks as Anthropic does.
    Minimax,
}

/// The dialects, as far as the mapping has to know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Completions,
    Responses,
    Anthropic,
    Gemini,
    Ollama,
}

impl ProviderKind {
    pub(super) fn dialect(self) -> Dialect {
        match self {
            Self::OpenaiResponses => Dialect::Responses,
            Self::Anthropic | Self::Minimax => Dialect::Anthropic,
            Self::Gemini => Dialect::Gemini,
            Self::Ollama => Dialect::Ollama,
            Self::Openai
            | Self::Groq
            | Self::Deepseek
            | Self::Xai
            | Self::Mistral
            | Self::Together
            | Self::Fireworks
            | Self::Openrouter
            | Self::Kimi => Dialect::Completions,
        }
    }

    /// Says whether it wants thoughts back that it does not sign: it refuses calls without them.
    pub(super) fn wants_thoughts(self) -> bool {
        matches!(self, Self::Deepseek | Self::Kimi)
    }

    fn adapter(self, has_key: bool) -> AdapterKind {
        match self {
            Self::Openai => AdapterKind::OpenAI,
            Self::OpenaiResponses => AdapterKind::OpenAIResp,
            Self::Anthropic => AdapterKind::Anthropic,
            Self::Gemini => AdapterKind::Gemini,
            // The dialect is the same, and only this one sends a key.
            Self::Ollama if has_key => AdapterKind::OllamaCloud,
            Self::Ollama => AdapterKind::Ollama,
            Self::Groq => AdapterKind::Groq,
            Self::Deepseek => AdapterKind::DeepSeek,
            Self::Xai => AdapterKind::Xai,
            Self::Mistral => AdapterKind::Mistral,
            Self::Together => AdapterKind::Together,
            Self::Fireworks => AdapterKind::Fireworks,
            Self::Openrouter => AdapterKind::OpenRouter,
            Self::Kimi => AdapterKind::Kimi,
            Self::Minimax => AdapterKind::MiniMax,
        }
    }
}

/// A provider cannot be used as it is set.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Its name is empty, too long, or no line of text.
    #[error("the name of provider {0:?} is not a line of 1 to {NAME_BYTES_MAX} bytes")]
    Name(String),
    /// Its base URL is none.
    #[error(
        "the URL of provider {0} is not http:// or https:// with a host, without user, password, fragment, and, but for chat completions, without a query"
    )]
    BaseUrl(String),
    /// Its key cannot be sent.
    #[error("key of provider {0} has characters that no header can hold, such as a line break")]
    Key(String),
    /// It has no key, and its public place needs one.
    #[error("provider {0} has no key: set one, or the URL of a server that needs none")]
    NoKey(String),
    /// No client could be made.
    #[error("failed to make the client of provider {provider}")]
    Client {
        /// Whose.
        provider: String,
        /// Why.
        #[source]
        source: genai::BoxError,
    },
}

/// Whom to ask and by which right, checked.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) adapter: AdapterKind,
    pub(super) dialect: Dialect,
    /// Ends in a slash; `None` for the public place.
    pub(super) base: Option<Url>,
    pub(super) key: Option<SecretString>,
}

impl ProviderConfig {
    pub(super) fn place(&self) -> Result<Place, ProviderError> {
        let name = &self.name;
        let is_line = !name.trim().is_empty() && !name.contains(char::is_control);
        if !is_line || NAME_BYTES_MAX < name.len() {
            return Err(ProviderError::Name(name.clone()));
        }
        let dialect = self.kind.dialect();
        let base = match &self.base_url {
            Some(url) => {
                Some(base(url, dialect).ok_or_else(|| ProviderError::BaseUrl(name.clone()))?)
            }
            None => None,
        };
        let key = self.key.as_ref().map(|key| key.expose_secret().trim());
        let key = key.filter(|key| !key.is_empty());
        if key.is_some_and(|key| HeaderValue::from_str(key).is_err()) {
            return Err(ProviderError::Key(name.clone()));
        }
        if key.is_none() && base.is_none() && dialect != Dialect::Ollama {
            return Err(ProviderError::NoKey(name.clone()));
        }
        let adapter = self.kind.adapter(key.is_some());
        Ok(Place { adapter, dialect, base, key: key.map(Into::into) })
    }
}

/// Returns the root of an interface; `None` for a text that cannot be one.
fn base(url: &str, dialect: Dialect) -> Option<Url> {
    let mut url = Url::parse(url.trim()).ok()?;
    let is_web = matches!(url.scheme(), "https" | "http") && url.has_host();
    let is_bare = url.username().is_empty() && url.password().is_none();
    let may_ask = url.query().is_none() || dialect == Dialect::Completions;
    if !(is_web && is_bare && may_ask && url.fragment().is_none()) {
        return None;
    }
    // What follows would take the place of the last segment.
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn settings_have_defaults_and_words_for_kinds() {
        let config: ProviderConfig = serde_json::from_value(json!({"name": "local"})).unwrap();
        assert_eq!((config.kind, config.base_url), (ProviderKind::Openai, None));
        assert!(config.key.is_none());
        for (word, kind) in [
            ("openai", ProviderKind::Openai),
            ("openai_responses", ProviderKind::OpenaiResponses),
            ("deepseek", ProviderKind::Deepseek),
            ("xai", ProviderKind::Xai),
        ] {
            assert_eq!(serde_json::from_value::<ProviderKind>(json!(word)).unwrap(), kind);
        }
        serde_json::from_value::<ProviderConfig>(json!({"name": "a", "url": "x"})).unwrap_err();
    }

    #[test]
    fn base_urls_are_roots() {
        let url = |url: &str| {
            place(&json!({"base_url": url})).map(|place| place.base.unwrap().to_string())
        };
        assert_eq!(url("http://[::1]:8000/v1").unwrap(), "http://[::1]:8000/v1/");
        assert_eq!(url(" https://a.example ").unwrap(), "https://a.example/");
        assert_eq!(url("https://a.example/v1?x=1").unwrap(), "https://a.example/v1/?x=1");
        for refused in [
            "",
            "a.example/v1",
            "ftp://a.example",
            "https://me:word@a.example",
            "https://a.example#x",
        ] {
            let error = url(refused).unwrap_err().to_string();
            assert!(error.starts_with("the URL of provider x is not http"), "{error}");
        }
        let queried = json!({"kind": "anthropic", "base_url": "https://a.example?x=1"});
        assert!(matches!(place(&queried), Err(ProviderError::BaseUrl(_))));
    }

    #[test]
    fn public_places_need_a_key_and_others_may_go_without() {
        assert!(matches!(place(&json!({})), Err(ProviderError::NoKey(_))));
        assert!(matches!(place(&json!({"key": " \n"})), Err(ProviderError::NoKey(_))));
        assert!(matches!(place(&json!({"key": "a\nb"})), Err(ProviderError::Key(_))));
        assert_eq!(place(&json!({"key": "a\n"})).unwrap().key.unwrap().expose_secret(), "a");
        place(&json!({"base_url": "http://10.0.0.1/v1"})).unwrap();
        assert_eq!(place(&json!({"kind": "ollama"})).unwrap().adapter, AdapterKind::Ollama);
        let with_key = json!({"kind": "ollama", "key": "a"});
        assert_eq!(place(&with_key).unwrap().adapter, AdapterKind::OllamaCloud);
    }

    #[test]
    fn names_are_lines() {
        for name in ["", " ", "a\nb", "x".repeat(NAME_BYTES_MAX + 1).as_str()] {
            let refused = place(&json!({"name": name, "key": "a"}));
            assert!(matches!(refused, Err(ProviderError::Name(_))), "{name}");
        }
    }

    fn place(settings: &Value) -> Result<Place, ProviderError> {
        let mut all = json!({"name": "x"});
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        serde_json::from_value::<ProviderConfig>(all).unwrap().place()
    }
}
