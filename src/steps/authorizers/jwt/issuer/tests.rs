//! An issuer on a web of our own, with a clock that is turned by hand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{advance, sleep};

use super::super::samples::{self, EC, ED, NOW, OTHER_RSA, RSA, SigningKey, claims, jwks};
use super::*;
use crate::outbound::fetch::FetchError;

const ISSUER: &str = "https://id.example.com";
const JWKS: &str = "https://id.example.com/jwks";

/// What is published where. Each answer takes a second, unless all are to come at once.
#[derive(Clone, Default)]
struct Web(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    is_immediate: bool,
    documents: HashMap<String, String>,
    asked: Vec<String>,
}

impl Fetch for Web {
    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        self.0.lock().asked.push(url.to_owned());
        let is_immediate = self.0.lock().is_immediate;
        if !is_immediate {
            sleep(Duration::from_secs(1)).await;
        }
        self.0.lock().documents.get(url).cloned().map(Bytes::from).ok_or(FetchError::Status(503))
    }
}

impl Web {
    fn publish(&self, url: &str, document: impl ToString) {
        self.0.lock().documents.insert(url.to_owned(), document.to_string());
    }

    fn publish_keys(&self, keys: &[(&SigningKey, &str)]) {
        let keys: Vec<_> = keys.iter().map(|(key, kid)| key.jwk(json!({ "kid": kid }))).collect();
        self.publish(JWKS, jwks(&keys));
    }

    fn take_down(&self) {
        self.0.lock().documents.clear();
    }

    /// How often the keys were asked for.
    fn fetches(&self) -> usize {
        self.0.lock().asked.iter().filter(|url| *url == JWKS).count()
    }
}

/// An issuer, the web it publishes on, and the metrics that are kept of it.
struct Stage {
    issuer: Arc<Issuer>,
    web: Web,
    fetched: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Stage {
    fn new(source: Source) -> Stage {
        let (fetched, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let metrics =
            Metrics { fetched: Counter::from_arc(fetched.clone()), failed: Counter::from_arc(failed.clone()) };
        let issuer = Arc::new(Issuer::Fetched(Fetched::new(source, metrics)));
        Stage { issuer, web: Web::default(), fetched, failed }
    }

    /// One whose only key is `RSA`, by the name of `a`.
    fn with_a_key() -> Stage {
        let stage = Stage::new(Source::JwksUri(JWKS.to_owned()));
        stage.web.publish_keys(&[(&RSA, "a")]);
        stage
    }

    async fn verify(&self, token: &str) -> Result<(), Invalid> {
        let rules = Rules { issuer: Some(ISSUER.to_owned()), ..Rules::default() };
        self.issuer.verify(token, &rules, NOW, &self.web).await.map(drop)
    }

    /// What so many callers get who come at once.
    async fn verify_all(&self, tokens: impl IntoIterator<Item = String>) -> Vec<Result<(), Invalid>> {
        let mut calls = JoinSet::new();
        for token in tokens {
            let (issuer, web) = (self.issuer.clone(), self.web.clone());
            calls.spawn(async move { issuer.verify(&token, &Rules::default(), NOW, &web).await.map(drop) });
        }
        calls.join_all().await
    }

    /// How often keys came and did not come.
    fn counts(&self) -> (u64, u64) {
        (self.fetched.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

fn token(key: &SigningKey, kid: &str) -> String {
    let algorithm = match key {
        SigningKey::Rsa(_) => "RS256",
        SigningKey::Ec(_) => "ES256",
        SigningKey::Ed(_) => "EdDSA",
        SigningKey::Secret(_) => "HS256",
    };
    key.token(json!({"alg": algorithm, "kid": kid}), claims(json!({})))
}

/// How long the call took, in seconds of the hand-turned clock.
async fn seconds(call: impl Future<Output = Result<(), Invalid>>, wanted: Result<(), Invalid>) -> u64 {
    let begun = Instant::now();
    assert_eq!(call.await, wanted);
    begun.elapsed().as_secs()
}

/// Lets what runs in the background come to its end.
async fn settle() {
    sleep(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_for_the_first_token_and_kept() {
    let stage = Stage::with_a_key();
    assert_eq!(stage.web.fetches(), 0);
    let good = token(&RSA, "a");
    assert_eq!(seconds(stage.verify(&good), Ok(())).await, 1);
    for _ in 0..100 {
        assert_eq!(seconds(stage.verify(&good), Ok(())).await, 0);
    }
    assert_eq!(stage.verify(&token(&OTHER_RSA, "a")).await, Err(Invalid::Signature));
    assert_eq!((stage.web.fetches(), stage.counts()), (1, (1, 0)));
}

#[tokio::test(start_paused = true)]
async fn callers_who_come_at_once_share_the_first_fetch() {
    let stage = Stage::with_a_key();
    let outcomes = stage.verify_all(vec![token(&RSA, "a"); 100]).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(stage.web.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_token_asks_nobody() {
    let stage = Stage::with_a_key();
    let unsigned = format!("{}.e30.", samples::encode(r#"{"alg":"none"}"#));
    for (token, invalid) in [("", Invalid::Segments), ("a.b.c", Invalid::Header), (&unsigned, Invalid::Algorithm)] {
        assert_eq!(stage.verify(token).await, Err(invalid));
    }
    assert_eq!(stage.web.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn old_keys_serve_while_one_fetch_renews_them() {
    let stage = Stage::with_a_key();
    let good = token(&RSA, "a");
    stage.verify(&good).await.unwrap();
    advance(FRESH - Duration::from_millis(1)).await;
    stage.verify(&good).await.unwrap();
    assert_eq!(stage.web.fetches(), 1);
    advance(Duration::from_millis(1)).await;
    stage.web.publish_keys(&[(&EC, "b")]);
    for _ in 0..100 {
        assert_eq!(seconds(stage.verify(&good), Ok(())).await, 0);
    }
    settle().await;
    assert_eq!(stage.web.fetches(), 2);
    // The withdrawn key is good no longer, and the new one is known already.
    assert_eq!(seconds(stage.verify(&token(&EC, "b")), Ok(())).await, 0);
    assert_eq!(stage.verify(&good).await, Err(Invalid::UnknownKid));
}

#[tokio::test(start_paused = true)]
async fn keys_of_two_hours_ago_are_waited_for() {
    let stage = Stage::with_a_key();
    stage.verify(&token(&RSA, "a")).await.unwrap();
    advance(STALE).await;
    stage.web.publish_keys(&[(&OTHER_RSA, "a")]);
    assert_eq!(seconds(stage.verify(&token(&RSA, "a")), Err(Invalid::Signature)).await, 1);
    assert_eq!(seconds(stage.verify(&token(&OTHER_RSA, "a")), Ok(())).await, 0);
    assert_eq!(stage.web.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_issuer_takes_nothing_away() {
    let stage = Stage::with_a_key();
    let good = token(&RSA, "a");
    stage.verify(&good).await.unwrap();
    stage.web.take_down();
    for _ in 0..24 {
        advance(Duration::from_secs(3600)).await;
        stage.verify(&good).await.unwrap();
        settle().await;
    }
    // However many calls there are, it is asked about twice a minute.
    let before = stage.web.fetches();
    for _ in 0..600 {
        stage.verify(&good).await.unwrap();
        advance(Duration::from_millis(500)).await;
    }
    assert!((8..=12).contains(&(stage.web.fetches() - before)), "{}", stage.web.fetches() - before);
    settle().await;
    assert_eq!(stage.counts(), (1, stage.web.fetches() as u64 - 1));
    advance(LONGEST_PAUSE).await;
    stage.web.publish_keys(&[(&RSA, "a"), (&EC, "b")]);
    assert_eq!(stage.verify(&token(&EC, "b")).await, Ok(()));
    assert_eq!(stage.counts().0, 2);
}

/// As `pace` has it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn what_is_no_set_of_keys_replaces_none() {
    let stage = Stage::with_a_key();
    let good = token(&RSA, "a");
    stage.verify(&good).await.unwrap();
    for document in [r#"{"keys":[]}"#, "{}", "", "<html>", &jwks(&[samples::HMAC.jwk(json!({"kid": "a"}))])] {
        stage.web.publish(JWKS, document);
        advance(STALE).await;
        assert_eq!(stage.verify(&good).await, Ok(()), "{document}");
    }
    assert_eq!(stage.counts(), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn a_rotated_key_is_fetched_once_for_a_hundred_callers() {
    let stage = Stage::with_a_key();
    stage.verify(&token(&RSA, "a")).await.unwrap();
    stage.web.publish_keys(&[(&RSA, "a"), (&ED, "b")]);
    let outcomes = stage.verify_all(vec![token(&ED, "b"); 100]).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(stage.web.fetches(), 2);
    assert_eq!(seconds(stage.verify(&token(&ED, "b")), Ok(())).await, 0);
}

/// The same with callers that really run beside each other, and an issuer that answers before the last has asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rotated_key_is_fetched_once_for_callers_on_many_threads() {
    for _ in 0..50 {
        let stage = Stage::with_a_key();
        stage.web.0.lock().is_immediate = true;
        stage.verify(&token(&RSA, "a")).await.unwrap();
        stage.web.publish_keys(&[(&RSA, "a"), (&ED, "b")]);
        let outcomes = stage.verify_all(vec![token(&ED, "b"); 100]).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert_eq!(stage.web.fetches(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn who_looked_at_keys_that_are_gone_gets_the_new_ones_without_a_fetch() {
    let stage = Stage::with_a_key();
    stage.verify(&token(&RSA, "a")).await.unwrap();
    let Issuer::Fetched(fetched) = &*stage.issuer else { unreachable!("it fetches its keys") };
    let known = fetched.shared.kept.load_full();
    stage.web.publish_keys(&[(&ED, "b")]);
    stage.verify(&token(&ED, "b")).await.unwrap();
    for known in [known.as_ref(), None] {
        for reason in [Reason::UnknownKid, Reason::Age] {
            let newest = fetched.renewed(reason, known, &stage.web).await.unwrap();
            assert!(newest.keys.find(Some("b"), jsonwebtoken::Algorithm::EdDSA).is_ok());
        }
    }
    assert_eq!(stage.web.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn made_up_names_of_keys_make_no_storm() {
    let stage = Stage::with_a_key();
    // One after the other, so that each could have a fetch of its own.
    for name in 0..1_000 {
        assert_eq!(stage.verify(&token(&OTHER_RSA, &format!("{name}"))).await, Err(Invalid::UnknownKid));
    }
    assert_eq!(stage.web.fetches(), 4);
    // Those who have a key that is known are not bothered, and a new one is found as soon as time allows.
    assert_eq!(seconds(stage.verify(&token(&RSA, "a")), Ok(())).await, 0);
    stage.web.publish_keys(&[(&RSA, "a"), (&EC, "b")]);
    assert_eq!(stage.verify(&token(&EC, "b")).await, Err(Invalid::UnknownKid));
    advance(Duration::from_secs(10)).await;
    assert_eq!(stage.verify(&token(&EC, "b")).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn made_up_names_that_come_at_once_make_no_storm() {
    let stage = Stage::with_a_key();
    let outcomes = stage.verify_all((0..1_000).map(|name| token(&OTHER_RSA, &format!("{name}")))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Err(Invalid::UnknownKid)));
    assert_eq!(stage.web.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_cannot_be_had_is_left_alone_for_a_while() {
    let stage = Stage::with_a_key();
    stage.web.take_down();
    let good = token(&RSA, "a");
    let check = async |pause: u64, fetches: usize| {
        advance(Duration::from_secs(pause)).await;
        for _ in 0..100 {
            assert_eq!(stage.verify(&good).await, Err(Invalid::Unreachable));
        }
        assert_eq!(stage.web.fetches(), fetches);
    };
    check(0, 1).await;
    check(1, 2).await;
    check(1, 2).await;
    check(1, 3).await;
    check(3, 3).await;
    check(1, 4).await;
    check(1000, 5).await;
    assert_eq!(stage.verify_all(vec![good.clone(); 100]).await, [Err(Invalid::Unreachable); 100]);
    advance(LONGEST_PAUSE).await;
    stage.web.publish_keys(&[(&RSA, "a")]);
    assert_eq!(stage.verify(&good).await, Ok(()));
    assert_eq!(stage.counts(), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_outlives_the_caller_that_wanted_it() {
    let stage = Stage::with_a_key();
    let good = token(&RSA, "a");
    for _ in 0..100 {
        let gone = tokio::time::timeout(Duration::from_millis(5), stage.verify(&good));
        assert!(gone.await.is_err());
    }
    assert_eq!(stage.web.fetches(), 1);
    assert_eq!(stage.verify(&good).await, Ok(()));
    assert_eq!(stage.web.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_ends_with_its_issuer() {
    let stage = Stage::with_a_key();
    let good = token(&RSA, "a");
    let gone = tokio::time::timeout(Duration::from_millis(5), stage.verify(&good));
    assert!(gone.await.is_err());
    let Stage { issuer, fetched, web, .. } = stage;
    drop(issuer);
    settle().await;
    assert_eq!((web.fetches(), fetched.load(Ordering::Relaxed)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_an_issuer_publishes_is_no_key() {
    let stage = Stage::with_a_key();
    stage.web.publish_keys(&[(&samples::HMAC, "s"), (&RSA, "a")]);
    assert_eq!(stage.verify(&token(&samples::HMAC, "s")).await, Err(Invalid::UnknownKid));
    let nameless = samples::HMAC.token(json!({"alg": "HS256"}), claims(json!({})));
    assert_eq!(stage.verify(&nameless).await, Err(Invalid::Algorithm));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_says_itself_where_its_keys_are() {
    let stage = Stage::new(Source::Discovery(ISSUER.to_owned()));
    let document = "https://id.example.com/.well-known/openid-configuration";
    stage.web.publish(document, json!({"issuer": ISSUER, "jwks_uri": JWKS}));
    stage.web.publish_keys(&[(&RSA, "a")]);
    assert_eq!(seconds(stage.verify(&token(&RSA, "a")), Ok(())).await, 2);
    assert_eq!(stage.web.0.lock().asked, [document, JWKS]);
    stage.web.publish(document, json!({"issuer": "https://evil.example.com", "jwks_uri": JWKS}));
    stage.web.publish_keys(&[(&OTHER_RSA, "b")]);
    advance(STALE).await;
    assert_eq!(stage.verify(&token(&OTHER_RSA, "b")).await, Err(Invalid::UnknownKid));
    assert_eq!(stage.verify(&token(&RSA, "a")).await, Ok(()));
    assert_eq!(stage.counts(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_slash_at_the_end_of_an_issuer_is_not_doubled() {
    let stage = Stage::new(Source::Discovery("https://id.example.com/tenant/".to_owned()));
    assert_eq!(stage.verify(&token(&RSA, "a")).await, Err(Invalid::Unreachable));
    assert_eq!(stage.web.0.lock().asked, ["https://id.example.com/tenant/.well-known/openid-configuration"]);
}

#[tokio::test]
async fn keys_of_the_file_ask_nobody() {
    let issuer = Issuer::Static(KeySet::from_text(&RSA.pem()).unwrap());
    let web = Web::default();
    let verify = async |token: String| issuer.verify(&token, &Rules::default(), NOW, &web).await.map(drop);
    assert_eq!(verify(token(&RSA, "any")).await, Ok(()));
    assert_eq!(verify(token(&OTHER_RSA, "any")).await, Err(Invalid::Signature));
    assert!(web.0.lock().asked.is_empty());
}

/// Counts what an operator would be told at `warn`.
struct Warnings(AtomicU64);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn event(&self, event: &tracing::Event<'_>) {
        self.0.fetch_add(u64::from(*event.metadata().level() == tracing::Level::WARN), Ordering::Relaxed);
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once() {
    let warnings = Arc::new(Warnings(AtomicU64::new(0)));
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let stage = Stage::with_a_key();
    let told = async |wanted: u64| {
        for _ in 0..10 {
            advance(FRESH).await;
            let _ = stage.verify(&token(&RSA, "a")).await;
            settle().await;
        }
        assert_eq!(warnings.0.load(Ordering::Relaxed), wanted);
    };
    told(0).await;
    stage.web.take_down();
    told(1).await;
    told(1).await;
    stage.web.publish_keys(&[(&RSA, "a")]);
    told(1).await;
    stage.web.take_down();
    told(2).await;
}
