//! The order of a connection's messages, and how many of them are answered at a time.

use crate::world::*;
use rand::RngExt as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered_messages_are_answered_one_after_the_other() {
    let world = World::start("ordering = 'connection'").await;
    let mut held = world.backend.hold("/held");
    let (mut client, mut other) = (world.connect().await, world.connect().await);
    for at in 0..20 {
        client.send(message(at)).await;
    }
    for at in 0..20 {
        let first = held.next().await;
        assert_eq!(first.request.text(), message(at));
        other.ask("elsewhere").await;
        assert!(held.is_empty(), "the next one waits for this");
        first.echo();
        assert_eq!(client.text().await, message(at));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered_connections_do_not_wait_for_each_other() {
    let world = World::start("ordering = 'connection'").await;
    let mut held = world.backend.hold("/held");
    let (mut slow, mut swift) = (world.connect().await, world.connect().await);
    slow.send(message(0)).await;
    let waiting = held.next().await;
    assert_eq!(swift.ask("hello").await, "hello");
    waiting.echo();
    assert_eq!(slow.text().await, message(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_order_the_second_answer_may_come_first() {
    let world = World::start("ordering = 'none'").await;
    let mut held = world.backend.hold("/held");
    let mut client = world.connect().await;
    client.send(message(0)).await;
    let first = held.next().await;
    client.send(message(1)).await;
    held.next().await.echo();
    assert_eq!(client.text().await, message(1));
    first.echo();
    assert_eq!(client.text().await, message(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_released_in_any_order_reach_the_client_in_that_order() {
    let world = World::start("ordering = 'none'").await;
    let mut random = random();
    let mut held = world.backend.hold("/held");
    let mut client = world.connect().await;
    let mut waiting = Vec::new();
    for at in 0..30 {
        client.send(message(at)).await;
        waiting.push(held.next().await);
    }
    while !waiting.is_empty() {
        let next = waiting.swap_remove(random.random_range(0..waiting.len()));
        let expected = next.request.text().to_owned();
        next.echo();
        assert_eq!(client.text().await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_are_answered_at_a_time_than_allowed() {
    let world = World::start("max_in_flight = 4").await;
    let mut held = world.backend.hold("/held");
    let (mut client, mut other) = (world.connect().await, world.connect().await);
    let (id, pusher) = (client.id().await, world.pusher());
    for at in 0..12 {
        client.send(message(at)).await;
    }
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(held.next().await);
    }
    for seen in 4..12 {
        other.ask("elsewhere").await;
        assert_eq!(world.backend.seen("/held").len(), seen);
        assert_eq!(pusher.push(&id, "a push").await.0, 200);
        assert_eq!(client.text().await, "a push");
        waiting.remove(0).echo();
        waiting.push(held.next().await);
        client.text().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_order_counts_against_the_bound() {
    let world = World::start("max_in_flight = 3\nordering = 'connection'").await;
    let mut held = world.backend.hold("/held");
    let mut client = world.connect().await;
    for at in 0..50 {
        client.send(message(at)).await;
    }
    for at in 0..50 {
        held.next().await.echo();
        assert_eq!(client.text().await, message(at));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_while_a_backend_takes_its_time() {
    let world = World::start("").await;
    let mut held = world.backend.hold("/held");
    let mut raw = world.raw().await;
    raw.write(&text(&message(0))).await;
    let waiting = held.next().await;
    raw.write(&ping("still there?")).await;
    assert_eq!(raw.next().await, (PONG, b"still there?".to_vec()));
    waiting.echo();
    assert_eq!(raw.text().await, message(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_said_before_it_left_comes_before_its_disconnect() {
    let world = World::start("ordering = 'connection'").await;
    for ending in [Ending::Close, Ending::Drop, Ending::Reset] {
        let mut held = world.backend.hold("/held");
        let told = world.backend.seen("/disconnect").len();
        let mut client = world.connect().await;
        for at in 0..10 {
            client.send(message(at)).await;
        }
        let first = held.next().await;
        world.until("ten messages read", |world| world.in_flight() == 10).await;
        ending.leave(client).await;
        first.echo();
        for at in 1..10 {
            let next = held.next().await;
            assert_eq!(next.request.text(), message(at), "{ending:?}");
            assert_eq!(world.backend.seen("/disconnect").len(), told, "{ending:?}");
            next.echo();
        }
        world.backend.has_seen("/disconnect", told + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_is_noticed_while_a_backend_takes_its_time() {
    let world = World::start("").await;
    let mut held = world.backend.hold("/held");
    let mut client = world.connect().await;
    client.send(message(0)).await;
    let waiting = held.next().await;
    assert_eq!(client.close(4000).await, 4000);
    world.backend.has_seen("/disconnect", 1).await;
    waiting.echo();
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Close,
    Drop,
    Reset,
}

impl Ending {
    async fn leave(self, client: Client) {
        match self {
            Ending::Close => assert_eq!(client.close(1000).await, 1000),
            Ending::Drop => drop(client),
            Ending::Reset => client.reset(),
        }
    }
}

fn message(at: usize) -> String {
    format!(r#"{{"action":"held","at":{at}}}"#)
}
