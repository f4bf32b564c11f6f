//! Asking a gateway that runs, over its admin listener.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, Response, StatusCode, Url};

use super::terminal;

/// How long it may take to be connected, and how long the gateway may say nothing at all: a tail is never silent for so long.
const CONNECT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(40);

/// Far more than a gateway has to say of itself.
const LONGEST: usize = 16 * 1024 * 1024;

/// The address that a file's `admin_listen` names (a URL, or a path of a Unix socket), and its `admin_token`.
pub type OfFile = fn(&Path) -> anyhow::Result<(String, Option<String>)>;

// Which gateway to ask. (clap would show a doc comment as what the verb is about.)
#[derive(Clone, Debug, clap::Args)]
pub struct Whom {
    /// Its admin listener, like http://127.0.0.1:8081 or unix:/run/livegate/admin.sock; without it, the file's
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    #[arg(long, value_name = "FILE", default_value = "routes.toml")]
    config: PathBuf,
    /// Its admin_token; without it, the file's. Other users of the machine see arguments, but not the environment
    #[arg(long, value_name = "TOKEN", env = "LIVEGATE_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// The admin listener of a gateway that may be running.
pub struct Admin {
    client: Client,
    /// Without a slash at its end.
    base: String,
    /// As a person would write it.
    pub shown: String,
    token: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Address {
    Url(String),
    Socket(PathBuf),
}

impl Whom {
    pub fn find(self, of_file: OfFile) -> anyhow::Result<Admin> {
        let given = self.token.filter(|token| !token.is_empty());
        let (address, token) = match self.admin {
            // Whoever is asked at another address than the file's is not told the file's token.
            Some(address) => (address, given),
            None => {
                let (address, token) = of_file(&self.config)?;
                (address, given.or(token))
            }
        };
        Admin::new(Address::parse(&address)?, token)
    }
}

impl Address {
    fn parse(text: &str) -> anyhow::Result<Self> {
        if let Some(path) = text.strip_prefix("unix:").or(text.starts_with('/').then_some(text)) {
            return Ok(Self::Socket(PathBuf::from(path)));
        }
        let written = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let wrong = || format!("`{text}` is no address of an admin listener; write it like `http://127.0.0.1:8081`");
        let mut url = Url::parse(&written).with_context(wrong)?;
        if !["http", "https"].contains(&url.scheme()) {
            bail!(wrong());
        }
        if url.port() == Some(0) {
            bail!("the admin listener has no port of its own (`{text}`): say where it listens with `--admin`");
        }
        // What listens everywhere is reached here, and by this name asks for no token.
        let here = match url.host_str() {
            Some("0.0.0.0") => Some("127.0.0.1"),
            Some("[::]") => Some("[::1]"),
            _ => None,
        };
        if let Some(here) = here {
            url.set_host(Some(here)).context("an address can be replaced by an address")?;
        }
        Ok(Self::Url(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl Admin {
    fn new(address: Address, token: Option<String>) -> anyhow::Result<Self> {
        let builder = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .user_agent(concat!("livegate/", env!("CARGO_PKG_VERSION")));
        let (builder, base, shown) = match address {
            Address::Url(url) => (builder, url.clone(), url),
            Address::Socket(path) => {
                let shown = format!("unix:{}", path.display());
                (builder.unix_socket(path), "http://localhost".to_owned(), shown)
            }
        };
        let client = builder.build().context("no client for HTTP")?;
        Ok(Self { client, base, shown, token })
    }

    /// Asks, and gives back an answer that is a 200; of any other, the error says what would do.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        let mut request = self.client.get(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let status = answer.status();
        let said = self.whole(answer).await.unwrap_or_default();
        bail!("{}", self.refusal(status, &said))
    }

    /// The whole body of an answer.
    pub async fn whole(&self, mut answer: Response) -> anyhow::Result<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| self.unreachable(error))? {
            if whole.len() + piece.len() > LONGEST {
                bail!("what {} answers is longer than {LONGEST} bytes: that is no gateway", self.shown);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let why = anyhow::Error::from(error.without_url()).root_cause().to_string();
        let why = terminal::plain(&why);
        anyhow::anyhow!(
            "no answer from {} ({why}): does the gateway run, and is that its `admin_listen`? `--admin` names another",
            self.shown
        )
    }

    fn refusal(&self, status: StatusCode, said: &[u8]) -> String {
        let shown = &self.shown;
        if status == StatusCode::UNAUTHORIZED {
            return match self.token {
                Some(_) => format!("the gateway at {shown} does not know this token: is it its `admin_token`?"),
                None => format!(
                    "the gateway at {shown} asks for its `admin_token`: set LIVEGATE_ADMIN_TOKEN, or pass `--token`"
                ),
            };
        }
        let said: Option<serde_json::Value> = serde_json::from_slice(said).ok();
        let said = said.as_ref().and_then(|said| said["message"].as_str());
        match said.filter(|_| status != StatusCode::NOT_FOUND) {
            Some(message) => format!("{shown} answered {}: {}", status.as_u16(), terminal::plain(message)),
            // The side of the clients, most likely, which has nothing at such a path.
            None => format!("{shown} answered {}: is that a gateway's `admin_listen`?", status.as_u16()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, wanted: &str) {
        assert_eq!(Address::parse(text).unwrap(), Address::Url(wanted.to_owned()), "{text}");
    }

    #[test]
    fn an_address_is_a_url_a_host_or_a_socket() {
        check("http://127.0.0.1:8081", "http://127.0.0.1:8081");
        check("https://gate.example.com/", "https://gate.example.com");
        check("localhost:8081", "http://localhost:8081");
        check("http://0.0.0.0:8081", "http://127.0.0.1:8081");
        check("[::]:8081", "http://[::1]:8081");
        for text in ["unix:/run/admin.sock", "/run/admin.sock"] {
            assert_eq!(Address::parse(text).unwrap(), Address::Socket("/run/admin.sock".into()));
        }
    }

    #[test]
    fn what_cannot_be_asked_is_said_at_once() {
        for text in ["", "ftp://127.0.0.1", "http://", "127.0.0.1:0", "http://a b"] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    fn whom(admin: Option<&str>, token: Option<&str>) -> Admin {
        let (admin, token) = (admin.map(str::to_owned), token.map(str::to_owned));
        let of_file: OfFile = |_| Ok(("http://127.0.0.1:7".to_owned(), Some("of the file".to_owned())));
        Whom { admin, token, config: "routes.toml".into() }.find(of_file).unwrap()
    }

    #[test]
    fn the_token_of_the_file_is_for_the_address_of_the_file() {
        assert_eq!(whom(None, None).token.as_deref(), Some("of the file"));
        assert_eq!(whom(None, Some("mine")).token.as_deref(), Some("mine"));
        assert_eq!(whom(Some("localhost:1"), None).token, None);
        assert_eq!(whom(Some("localhost:1"), Some("")).token, None);
    }

    #[test]
    fn a_refusal_says_what_would_do() {
        let check = |admin: Admin, status, said: &str, wanted: &str| {
            let text = admin.refusal(StatusCode::from_u16(status).unwrap(), said.as_bytes());
            assert!(text.contains(wanted), "{text}");
        };
        check(whom(Some("localhost:1"), None), 401, "", "LIVEGATE_ADMIN_TOKEN");
        check(whom(None, None), 401, "", "does not know this token");
        check(whom(None, None), 503, r#"{"message":"16 tails\u001b[2J"}"#, "503: 16 tails[2J");
        check(whom(None, None), 404, r#"{"message":"Not Found"}"#, "is that a gateway's");
        check(whom(None, None), 502, "<html>", "is that a gateway's");
    }
}
