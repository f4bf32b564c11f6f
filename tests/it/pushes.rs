//! Pushes through `@connections`: their order, their bounds, and connections that come and go meanwhile.

use crate::world::*;
use futures_util::future::join_all;

/// Twice this does not fit the outbox of `SLOW`.
const BIG: usize = 48 * 1024;

const SLOW: &str = "outbox = { bytes = '64KiB', messages = 100 }\nslow_consumer_timeout = '400ms'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_gets_429_and_then_1008() {
    let world = World::start(SLOW).await;
    let mut client = Client::with_little_room(world.address()).await;
    let (id, pusher) = (client.id().await, world.pusher());
    fill(&pusher, &id).await;
    assert_eq!(pusher.push(&id, vec![b'x'; BIG]).await, (429, "LimitExceededException".into()));
    // On a busy machine the kernel takes some more meanwhile, and then so does the outbox.
    while pusher.push(&id, vec![b'x'; BIG]).await.0 != 410 {}
    assert_eq!(pusher.push(&id, "x").await, (410, "GoneException".into()));
    assert_eq!(client.closed().await, 1008);
    let told = world.backend.has_seen("/disconnect", 1).await;
    assert_eq!(told[0].header("x-livegate-disconnect-code"), "1008");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_delays_nobody_else() {
    let world = World::start("outbox = { bytes = '64KiB', messages = 100 }").await;
    let mut slow = Client::with_little_room(world.address()).await;
    let (slow_id, pusher) = (slow.id().await, world.pusher());
    fill(&pusher, &slow_id).await;
    let mut swift = world.connect().await;
    let swift_id = swift.id().await;
    for at in 0..100 {
        assert_eq!(pusher.push(&slow_id, vec![b'x'; BIG]).await.0, 429);
        assert_eq!(pusher.push(&swift_id, format!("push {at}")).await.0, 200);
        assert_eq!(swift.text().await, format!("push {at}"));
        assert_eq!(swift.ask("still here").await, "still here");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_again_is_no_longer_slow() {
    let world = World::start("outbox = { bytes = '64KiB', messages = 100 }").await;
    let mut client = Client::with_little_room(world.address()).await;
    let (id, pusher) = (client.id().await, world.pusher());
    let accepted = fill(&pusher, &id).await;
    for _ in 0..accepted {
        assert_eq!(client.text().await.len(), BIG);
    }
    assert_eq!(pusher.push(&id, "again").await.0, 200);
    assert_eq!(client.text().await, "again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_pushes_fill_an_outbox_too() {
    let world = World::start("outbox = { bytes = '16MiB', messages = 10 }").await;
    let mut client = Client::with_little_room(world.address()).await;
    let (id, pusher) = (client.id().await, world.pusher());
    fill(&pusher, &id).await;
    assert_eq!(pusher.push(&id, "tiny").await, (429, "LimitExceededException".into()));
    assert_eq!(client.text().await.len(), BIG);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_one_after_the_other_keep_their_order() {
    let world = World::start("").await;
    let talks = (0..20).map(|_| async {
        let mut client = world.connect().await;
        let (id, pusher) = (client.id().await, world.pusher());
        for at in 0..100 {
            assert_eq!(pusher.push(&id, format!("{at}")).await.0, 200);
        }
        for at in 0..100 {
            assert_eq!(client.text().await, format!("{at}"));
        }
    });
    join_all(talks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_races_a_close_is_taken_or_gone() {
    let world = World::start("").await;
    for at in 0..150 {
        let mut client = world.connect().await;
        let (id, pusher) = (client.id().await, world.pusher());
        let pushing = async {
            for count in 0.. {
                match pusher.push(&id, "a push").await {
                    (200, _) if count < 10_000 => {}
                    (410, _) => break,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(pusher.push(&id, "too late").await.0, 410);
        };
        let leaving = async {
            match at % 3 {
                0 => assert_eq!(client.close(1000).await, 1000),
                1 => client.reset(),
                _ => assert_eq!(world.pusher().delete(&id).await.0, 204),
            }
        };
        tokio::join!(pushing, leaving);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pushed_before_a_delete_arrives_before_the_close() {
    let world = World::start("").await;
    let mut client = world.connect().await;
    let (id, pusher) = (client.id().await, world.pusher());
    for at in 0..50 {
        assert_eq!(pusher.push(&id, format!("{at}{}", "x".repeat(5000))).await.0, 200);
    }
    assert_eq!(pusher.delete(&id).await.0, 204);
    for at in 0..50 {
        assert!(client.text().await.starts_with(&format!("{at}x")));
    }
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_gone_until_its_connect_has_ended() {
    let world = World::start("").await;
    let mut held = world.backend.hold("/connect");
    let opening = async {
        let connect = held.next().await;
        let (id, pusher) = (connect.request.connection().to_owned(), world.pusher());
        assert_eq!(pusher.push(&id, "early").await, (410, "GoneException".into()));
        assert_eq!(pusher.delete(&id).await.0, 410);
        connect.answer(Reply::status(200));
        id
    };
    let (id, mut client) = tokio::join!(opening, world.connect());
    assert_eq!(world.pusher().push(&id, "now").await.0, 200);
    assert_eq!(client.text().await, "now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_may_push_in_the_middle_of_a_message() {
    let world = World::start("").await;
    let pusher = world.pusher();
    world.backend.on("/tell", move |seen| {
        let pusher = pusher.clone();
        async move {
            let (status, _) = pusher.push(seen.connection(), seen.body.clone()).await;
            Reply::status(status)
        }
    });
    let mut client = world.connect().await;
    for at in 0..50 {
        let message = format!(r#"{{"action":"tell","at":{at}}}"#);
        assert_eq!(client.ask(message.clone()).await, message);
    }
}

/// Pushes until nothing is taken any more, and says how much was. A single 429 may be of a moment in which the socket's
/// task had no turn; when the kernel's buffers are full, they stay.
async fn fill(pusher: &Pusher, id: &str) -> usize {
    let (mut accepted, mut refused) = (0, 0);
    while refused < 50 {
        match pusher.push(id, vec![b'x'; BIG]).await.0 {
            200 => (accepted, refused) = (accepted + 1, 0),
            429 => refused += 1,
            other => panic!("{other} in place of 200 or 429"),
        }
    }
    accepted
}
