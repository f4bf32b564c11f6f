//! Getting documents that are off the hot path, such as an issuer's keys: small, soon, and without redirects.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

/// How long a document may take, and how long it may be (both are AWS's for an issuer's documents).
const TIMEOUT: Duration = Duration::from_millis(1500);
const LONGEST: usize = 150_000;

/// Gets documents. A clone is as good as the original and costs little: a fetch goes on when whoever wanted it is gone.
pub trait Fetch: Clone + Send + Sync + 'static {
    /// The body of a 200 answer. The time it may take and the size it may have are bounded by who implements this.
    fn get(&self, url: &str) -> impl Future<Output = Result<Bytes, FetchError>> + Send;
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("no client for HTTP: {0}")]
    NoClient(String),
    #[error("{0}")]
    Failed(String),
    #[error("it answered {0}")]
    Status(u16),
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
}

/// Gets documents from where they are.
#[derive(Clone, Default)]
pub struct Web(Arc<OnceLock<Result<reqwest::Client, String>>>);

impl Fetch for Web {
    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        // Made on first use: reading the machine's authorities takes a while.
        let client = self.0.get_or_init(client).as_ref().map_err(|error| FetchError::NoClient(error.clone()))?;
        let mut answer = client.get(url).header("accept", "application/json").send().await.map_err(failed)?;
        if answer.status() != 200 {
            return Err(FetchError::Status(answer.status().as_u16()));
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            if whole.len() + piece.len() > LONGEST {
                return Err(FetchError::TooLong);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

/// With its causes, since the telling one (`Connection refused`) comes last.
fn failed(error: reqwest::Error) -> FetchError {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    FetchError::Failed(text)
}

fn client() -> Result<reqwest::Client, String> {
    let builder = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(Duration::from_secs(4))
        .no_proxy()
        .user_agent(concat!("livegate/", env!("CARGO_PKG_VERSION")));
    builder.build().map_err(|error| error.to_string())
}
