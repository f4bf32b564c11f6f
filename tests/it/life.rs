//! How connections begin and end, what their backend is told of it, and what a reload or a drain leaves whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use crate::world::*;
use futures_util::future::join_all;

/// A second stage, whose sockets are idle at once.
const WITH_IMPATIENT: &str = "[apis.t.stages.impatient]\nidle_timeout = '100ms'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_has_one_disconnect_however_it_ended() {
    let world = World::start(WITH_IMPATIENT).await;
    let mut codes = BTreeMap::new();
    let mut stay = Vec::new();
    let endings = (0..100).map(|at| {
        let world = &world;
        async move {
            if at % 6 == 3 {
                // It may be closed before it could ask for its id: that is how impatient the stage is.
                assert_eq!(world.connect_to("/impatient").await.closed().await, 1001);
                return (None, 1001, None);
            }
            let mut client = world.connect_to("/s").await;
            let id = Some(client.id().await);
            match at % 6 {
                0 => (id, assert_code(client.close(4000 + at).await, 4000 + at), None),
                1 => {
                    client.reset();
                    (id, 1006, None)
                }
                2 => {
                    assert_eq!(world.pusher().delete(id.as_deref().unwrap_or_default()).await.0, 204);
                    (id, assert_code(client.closed().await, 1000), None)
                }
                4 => {
                    drop(client);
                    (id, 1006, None)
                }
                _ => (id, 1001, Some(client)),
            }
        }
    });
    for (id, code, client) in join_all(endings).await {
        codes.extend(id.map(|id| (id, code.to_string())));
        stay.extend(client);
    }
    for opened in world.backend.seen("/connect") {
        codes.entry(opened.connection().to_owned()).or_insert("1001".to_owned());
    }
    let leaving = join_all(stay.iter_mut().map(|client| async { assert_eq!(client.closed().await, 1001) }));
    tokio::join!(world.server.drain(), leaving);
    let told = world.backend.seen("/disconnect");
    assert_eq!(told.len(), 100);
    let told: BTreeMap<_, _> = told.iter().map(|seen| (seen.connection().to_owned(), disconnect_code(seen))).collect();
    assert_eq!(told, codes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_that_failed_is_told_again_with_the_same_request_id() {
    let world = World::start("").await;
    let attempts = AtomicUsize::new(0);
    world.backend.on("/disconnect", move |_| {
        let status = [503, 500, 200][attempts.fetch_add(1, SeqCst).min(2)];
        async move { Reply::status(status) }
    });
    world.connect().await.close(1000).await;
    world.backend.has_seen("/disconnect", 3).await;
    world.server.drain().await;
    let told = world.backend.seen("/disconnect");
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|seen| seen.header("x-livegate-request-id") == told[0].header("x-livegate-request-id")));
    assert_eq!(world.metric("livegate_disconnect_retries_total"), 2.0);
    assert_eq!(world.metric("livegate_disconnects_lost_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_waits_for_a_backend_that_is_away() {
    let sleeper = Backend::asleep();
    let world =
        World::serving(&file("").replace("BACKEND/disconnect", &format!("http://{}/gone", sleeper.address))).await;
    world.connect().await.close(4001).await;
    world.until("a failed attempt", |world| world.metric("livegate_disconnect_retries_total") >= 1.0).await;
    sleeper.wake();
    let told = sleeper.has_seen("/gone", 1).await;
    assert_eq!(disconnect_code(&told[0]), "4001");
    world.server.drain().await;
    assert_eq!(sleeper.seen("/gone").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_that_nobody_takes_is_counted_as_lost() {
    let world = World::start("disconnect_retry = '0s'").await;
    world.backend.on("/disconnect", |_| async { Reply::status(500) });
    world.connect().await.close(1000).await;
    world.until("the loss", |world| world.metric("livegate_disconnects_lost_total") == 1.0).await;
    assert_eq!(world.backend.seen("/disconnect").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_whose_route_a_reload_removed_is_counted_as_lost() {
    let world = World::start("").await;
    world.backend.on("/disconnect", |_| async { Reply::status(500) });
    world.connect().await.close(1000).await;
    world.until("a failed attempt", |world| world.metric("livegate_disconnect_retries_total") >= 1.0).await;
    let route = "routes.\"$disconnect\".integration = \"BACKEND/disconnect\"\n";
    assert!(file("").contains(route));
    world.reload_with(&file("").replace(route, ""));
    world.until("the loss", |world| world.metric("livegate_disconnects_lost_total") == 1.0).await;
    world.server.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_error_of_the_backend_ends_a_disconnect() {
    let world = World::start("").await;
    world.backend.on("/disconnect", |_| async { Reply::status(404) });
    world.connect().await.close(1000).await;
    world.server.drain().await;
    assert_eq!(world.backend.seen("/disconnect").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_handshake_has_no_disconnect() {
    let world = World::start("").await;
    for status in [401, 404, 500] {
        world.backend.on("/connect", move |_| async move { Reply::status(status) });
        assert_eq!(world.knock("/s").await.err(), Some(status));
    }
    world.backend.on("/connect", |_| async { Reply::status(302) });
    assert_eq!(world.knock("/s").await.err(), Some(502));
    assert_eq!(world.knock("/nowhere").await.err(), Some(403));
    world.server.drain().await;
    assert_eq!(world.backend.seen("/connect").len(), 4);
    assert_eq!(world.backend.seen("/disconnect").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_before_it_is_accepted_is_told_of_as_lost() {
    let world = World::start("").await;
    let mut held = world.backend.hold("/connect");
    let mut raw = world.bare().await;
    raw.write(&raw.handshake("/s")).await;
    let connect = held.next().await;
    let id = connect.request.connection().to_owned();
    drop(raw);
    connect.answer(Reply::status(200));
    let told = world.backend.has_seen("/disconnect", 1).await;
    assert_eq!((told[0].connection(), &*disconnect_code(&told[0])), (&*id, "1006"));
    world.server.drain().await;
    assert_eq!(world.backend.seen("/disconnect").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_before_it_is_refused_is_not_told_of() {
    let world = World::start("").await;
    let mut held = world.backend.hold("/connect");
    let mut raw = world.bare().await;
    raw.write(&raw.handshake("/s")).await;
    let connect = held.next().await;
    drop(raw);
    connect.answer(Reply::status(403));
    world.server.drain().await;
    assert_eq!(world.backend.seen("/disconnect").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_answers_what_is_in_flight() {
    let world = World::start("").await;
    let mut held = world.backend.hold("/held");
    let mut clients = join_all((0..20).map(|_| world.connect())).await;
    let mut waiting = Vec::new();
    for client in &mut clients {
        client.send(r#"{"action":"held"}"#).await;
        waiting.push(held.next().await);
    }
    let draining = draining(&world);
    world.until("the drain", |world| world.server.engine().is_draining()).await;
    waiting.into_iter().for_each(Held::echo);
    for client in &mut clients {
        assert_eq!(client.text().await, r#"{"action":"held"}"#);
        assert_eq!(client.closed().await, 1001);
    }
    within("the drain's end", draining).await.unwrap();
    assert_eq!(world.backend.seen("/disconnect").len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_answers_all_that_was_read_however_few_at_a_time() {
    for bound in [1, 2] {
        let world = World::start(&format!("max_in_flight = {bound}")).await;
        let mut held = world.backend.hold("/held");
        let mut raw = world.raw().await;
        let mocks = (0..30).flat_map(|at| text(&format!(r#"{{"action":"mock","text":"{at}"}}"#)));
        raw.write(&text(r#"{"action":"held"}"#).into_iter().chain(mocks).collect::<Vec<_>>()).await;
        let first = held.next().await;
        let draining = draining(&world);
        world.until("the drain", |world| world.server.engine().is_draining()).await;
        first.echo();
        let mut answered = 0;
        while let (TEXT, _) = raw.next().await {
            answered += 1;
        }
        // All came in the segment of the first.
        assert_eq!(answered, 31, "with {bound} in flight");
        drop(raw);
        within("the drain's end", draining).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_though_a_backend_never_answers() {
    let world = World::serving(&file("").replace("\"4s\"", "\"1s\"")).await;
    let mut held = world.backend.hold("/held");
    let mut client = world.connect().await;
    client.send(r#"{"action":"held"}"#).await;
    let _unanswered = held.next().await;
    let draining = draining(&world);
    assert_eq!(client.closed().await, 1001);
    within("the drain's end", draining).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_reloaded_all_the_time_loses_no_message() {
    let world = Arc::new(World::start("").await);
    let over = Arc::new(AtomicBool::new(false));
    let reloading = tokio::spawn({
        let (world, over) = (world.clone(), over.clone());
        async move {
            let mut metronome = world.connect().await;
            let mut count = 0;
            while !over.load(SeqCst) {
                world.reload(["max_frame = '30KiB'", "max_in_flight = 8", "max_message = '100KiB'", ""][count % 4]);
                // One tick of the clock is one message there and back.
                assert_eq!(metronome.ask("tick").await, "tick");
                count += 1;
            }
            count
        }
    });
    let talks = (0..20).map(|name| {
        let world = &world;
        async move {
            let mut client = world.connect().await;
            let (id, pusher) = (client.id().await, world.pusher());
            for at in 0..100 {
                let text = format!("{name}-{at}-{}", "x".repeat(at % 7 * 700));
                assert_eq!(client.ask(text.clone()).await, text);
                assert_eq!(pusher.push(&id, text.clone()).await.0, 200);
                assert_eq!(client.text().await, text);
            }
            assert_eq!(client.close(4000).await, 4000);
        }
    });
    join_all(talks).await;
    over.store(true, SeqCst);
    assert!(within("the last reload", reloading).await.unwrap() > 10);
    world.backend.has_seen("/disconnect", 21).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_under_reload_are_all_answered() {
    let world = World::start("ordering = 'connection'").await;
    let (mut mouth, mut ears) = world.connect().await.split();
    let speaking = async {
        for at in 0..2000 {
            mouth.send(format!("{at}-{}", "x".repeat(at % 5 * 800))).await;
        }
    };
    let listening = async {
        for at in 0..2000 {
            if at % 5 == 0 {
                world.reload(["ordering = 'connection'\nmax_frame = '30KiB'", "ordering = 'connection'"][at / 5 % 2]);
            }
            assert_eq!(ears.text().await, format!("{at}-{}", "x".repeat(at % 5 * 800)));
        }
    };
    tokio::join!(speaking, listening);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_stage_says_goodbye_and_its_disconnects_go_where_they_went() {
    let world = World::start(WITH_IMPATIENT.replace("100ms", "10m").as_str()).await;
    let (mut staying, mut leaving) = (world.connect().await, world.connect_to("/impatient").await);
    let id = leaving.id().await;
    world.reload("");
    assert_eq!(leaving.closed().await, 1001);
    assert_eq!(world.backend.has_seen("/disconnect", 1).await[0].connection(), id);
    assert_eq!(staying.ask("still here").await, "still here");
    assert_eq!(world.knock("/impatient").await.err(), Some(403));
}

fn draining(world: &World) -> tokio::task::JoinHandle<()> {
    let server = world.server.clone();
    tokio::spawn(async move { server.drain().await })
}

fn disconnect_code(seen: &Seen) -> String {
    seen.header("x-livegate-disconnect-code").to_owned()
}

fn assert_code(found: u16, expected: u16) -> u16 {
    assert_eq!(found, expected);
    found
}
