//! Sockets under stress: their codec is made anew after every large frame, and at its seams messages could be lost.

use std::collections::BTreeSet;

use crate::world::*;
use futures_util::future::join_all;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng, RngExt as _};
use tokio_tungstenite::tungstenite::Message;

/// Around every seam: one byte and two, header lengths, the codec's own buffer, what counts as large, and AWS's limit.
const SIZES: [usize; 14] = [1, 2, 125, 126, 511, 512, 513, 2047, 2048, 2049, 4096, 16_384, 32_767, 32_768];

/// A frame after which the codec is made anew.
const LARGE: usize = 2049;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_every_size_come_back_in_order() {
    let world = World::start("ordering = 'connection'").await;
    let mut random = random();
    for _ in 0..4 {
        let mut sizes = SIZES.repeat(12);
        sizes.shuffle(&mut random);
        let sent: Vec<_> = sizes.iter().map(|size| random_text(&mut random, *size)).collect();
        let pings: Vec<bool> = sent.iter().map(|_| random.random_ratio(1, 4)).collect();
        let (mut mouth, mut ears) = world.connect().await.split();
        let speaking = async {
            for (text, with_ping) in sent.iter().zip(pings) {
                if with_ping {
                    mouth.ping("between").await;
                }
                mouth.send(text).await;
            }
        };
        let listening = async {
            for text in &sent {
                assert_same(&ears.text().await, text);
            }
        };
        tokio::join!(speaking, listening);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mock_answers_every_size() {
    let world = World::start("ordering = 'connection'").await;
    let mut random = random();
    let mut client = world.connect().await;
    for size in SIZES.iter().chain(&SIZES).filter(|size| **size < 32_000) {
        let text = random_text(&mut random, *size);
        assert_same(&client.ask(format!(r#"{{"action":"mock","text":"{text}"}}"#)).await, &text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_message_reaches_the_backend_and_its_empty_answer_is_none() {
    let world = World::start("ordering = 'connection'").await;
    let mut client = world.connect().await;
    for text in ["", "one", "", &"x".repeat(LARGE), "", "two"] {
        client.send(text).await;
    }
    let answers = [client.text().await, client.text().await, client.text().await];
    assert_eq!(answers, ["one", &"x".repeat(LARGE), "two"]);
    let sizes: Vec<_> = world.backend.seen("/default").iter().map(|seen| seen.body.len()).collect();
    assert_eq!(sizes, [0, 3, 0, LARGE, 0, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_with_pings_between_them_are_one_message() {
    let world = World::start("ordering = 'connection'").await;
    let mut random = random();
    let mut raw = world.raw().await;
    for size in [4, 400, 2048, 2052, 8192, 131_072] {
        let text = random_text(&mut random, size).replace('é', "ee");
        raw.write(&fragments(&text, 4, |at| ping(&format!("p{at}")))).await;
        let mut pongs = Vec::new();
        let whole = loop {
            match raw.next().await {
                (PONG, payload) => pongs.push(String::from_utf8(payload).unwrap()),
                (opcode, payload) => break (opcode, String::from_utf8(payload).unwrap()),
            }
        };
        assert_eq!(whole.0, TEXT);
        assert_same(&whole.1, &text);
        assert_eq!(pongs, ["p0", "p1", "p2"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_in_one_segment_are_all_answered() {
    let world = World::start("").await;
    let mut raw = world.raw().await;
    for count in [1, 5, 31, 32, 33, 50, 100] {
        let expected: BTreeSet<_> = (0..count).map(|at| format!("m{at}")).chain(["x".repeat(LARGE)]).collect();
        let batch = [text(&"x".repeat(LARGE)), (0..count).flat_map(|at| text(&format!("m{at}"))).collect()].concat();
        raw.write(&batch).await;
        assert_eq!(answers(&mut raw, count + 1).await, expected, "{count} behind a large one");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_in_one_segment_wait_for_room_and_are_all_answered() {
    for bound in [1, 2, 3] {
        let world = World::start(&format!("max_in_flight = {bound}")).await;
        let mut held = world.backend.hold("/default");
        let mut raw = world.raw().await;
        let batch = [text(&"x".repeat(LARGE)), (0..9).flat_map(|at| text(&format!("m{at}"))).collect()].concat();
        raw.write(&batch).await;
        for _ in 0..10 {
            held.next().await.echo();
        }
        assert_eq!(answers(&mut raw, 10).await.len(), 10, "with {bound} in flight");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_may_be_split_at_every_byte() {
    let world = World::start("ordering = 'connection'").await;
    let mut other = world.connect().await;
    let mut raw = world.raw().await;
    let (small, large) = ("small".to_owned(), "L".repeat(LARGE));
    let fragmented = [frame(TEXT, false, b"frag"), ping("mid"), frame(CONTINUE, true, b"ments")].concat();
    let stream = [text(&small), text(&large), text(&small), fragmented].concat();
    for cut in 1..stream.len() {
        raw.write(&stream[..cut]).await;
        // A whole round trip for somebody else: meanwhile the first part is read alone.
        other.ask("elsewhere").await;
        raw.write(&stream[cut..]).await;
        for expected in [&small, &large, &small, &"fragments".to_owned()] {
            assert_same(&raw.text().await, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_may_come_byte_by_byte() {
    let world = World::start("ordering = 'connection'").await;
    let mut raw = world.raw().await;
    let large = "L".repeat(LARGE);
    for byte in [text("before"), text(&large), ping("p"), text("after")].concat() {
        raw.write(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!([raw.text().await, raw.text().await, raw.text().await], ["before", &large, "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_right_behind_a_large_frame_is_answered() {
    let world = World::start("").await;
    let mut raw = world.raw().await;
    for at in 0..200 {
        let payload = format!("ping {at}");
        raw.write(&[text(&"x".repeat(LARGE)), ping(&payload)].concat()).await;
        let mut both = [raw.next().await, raw.next().await];
        both.sort();
        assert_eq!(both[0].1.len(), LARGE);
        assert_eq!(both[1], (PONG, payload.into_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_right_behind_a_large_frame_keeps_its_code() {
    for (bound, size) in [(32, LARGE), (1, LARGE), (1, 600), (32, 32_768), (1, 32_768)] {
        let world = World::start(&format!("max_in_flight = {bound}")).await;
        let mut raw = world.raw().await;
        raw.write(&[text(&"x".repeat(size)), close(4321, "enough")].concat()).await;
        assert_eq!(raw.closed().await, (4321, "enough".into()), "{size} bytes, {bound} in flight");
        let told = world.backend.has_seen("/disconnect", 1).await;
        assert_eq!(told[0].header("x-livegate-disconnect-code"), "4321");
        assert_eq!(told[0].header("x-livegate-disconnect-reason"), "enough");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_in_the_segment_of_the_handshake_are_heard() {
    let world = World::start("ordering = 'connection'").await;
    for size in SIZES {
        let mut raw = world.bare().await;
        let large = "x".repeat(size);
        raw.write(&[raw.handshake("/s"), text("early"), text(&large), ping("p"), text("late")].concat()).await;
        raw.accepted().await;
        assert_eq!([raw.text().await, raw.text().await, raw.text().await], ["early", &large, "late"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_and_large_messages_do_not_disturb_each_other() {
    let world = World::start("ordering = 'connection'").await;
    let mut random = random();
    let mut client = world.connect().await;
    let (id, pusher) = (client.id().await, world.pusher());
    let sent: Vec<_> = (0..100).map(|_| sized(&mut random, "m")).collect();
    let pushed: Vec<_> = (0..100).map(|_| sized(&mut random, "p")).collect();
    let (mut mouth, mut ears) = client.split();
    let speaking = async {
        for text in &sent {
            mouth.send(text).await;
        }
    };
    let pushing = async {
        for text in &pushed {
            // The client reads all the time, so a full outbox soon has room again.
            while pusher.push(&id, text.clone()).await.0 == 429 {}
        }
    };
    let listening = async {
        let (mut answers, mut pushes) = (sent.iter(), pushed.iter());
        for _ in 0..200 {
            let text = ears.text().await;
            let expected = if text.starts_with('p') { pushes.next() } else { answers.next() };
            assert_same(&text, expected.unwrap());
        }
    };
    tokio::join!(speaking, pushing, listening);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_mixed_up_among_many_connections() {
    let world = World::start("").await;
    let mut random = random();
    let mut clients = Vec::new();
    for name in 0..200 {
        let messages: BTreeSet<_> =
            (0..50).map(|at| sized_up_to(&mut random, &format!("{name}-{at}:"), 3000)).collect();
        clients.push((world.connect().await, messages));
    }
    let talks = clients.into_iter().map(|(client, messages)| async move {
        let (mut mouth, mut ears) = client.split();
        let speaking = async {
            for text in &messages {
                mouth.send(text).await;
            }
        };
        let listening = async {
            let mut answers = BTreeSet::new();
            for _ in 0..messages.len() {
                answers.insert(ears.text().await);
            }
            answers
        };
        let ((), answers) = tokio::join!(speaking, listening);
        assert!(answers == messages, "these are missing: {:?}", messages.difference(&answers));
    });
    join_all(talks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_the_sizes_of_a_live_socket() {
    let world = World::start("max_message = '3000B'\nmax_frame = '2500B'").await;
    let (mut client, mut other) = (world.connect().await, world.connect().await);
    assert_eq!(client.ask("x".repeat(2500)).await.len(), 2500);
    world.reload("max_message = '6000B'\nmax_frame = '6000B'");
    other.ask("elsewhere").await;
    assert_eq!(client.ask("x".repeat(5000)).await.len(), 5000);
    world.reload("max_message = '1000B'\nmax_frame = '1000B'");
    other.ask("elsewhere").await;
    client.send("x".repeat(1001)).await;
    assert_eq!(client.closed().await, 1009);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_are_bounded_to_the_byte() {
    let world = World::start("").await;
    let mut raw = world.raw().await;
    raw.write(&text(&"x".repeat(32_768))).await;
    assert_eq!(raw.text().await.len(), 32_768);
    raw.write(&fragments(&"x".repeat(131_072), 4, |_| Vec::new())).await;
    assert_eq!(raw.text().await.len(), 131_072);
    raw.write(&text(&"x".repeat(32_769))).await;
    assert_eq!(raw.closed().await.0, 1009);
    let mut raw = world.raw().await;
    let pieces = [fragments(&"x".repeat(131_072), 4, |_| Vec::new()), Vec::new()].concat();
    raw.write(&unfinished(pieces)).await;
    raw.write(&frame(CONTINUE, true, b"x")).await;
    assert_eq!(raw.closed().await.0, 1009);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binary_message_closes_with_1003_even_behind_a_large_one() {
    let world = World::start("").await;
    let mut raw = world.raw().await;
    raw.write(&[text(&"x".repeat(LARGE)), frame(BINARY, true, b"\x00")].concat()).await;
    assert_eq!(raw.closed().await.0, 1003);
    let told = world.backend.has_seen("/disconnect", 1).await;
    assert_eq!(told[0].header("x-livegate-disconnect-code"), "1003");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_only_listens_hears_large_pushes_whole() {
    let world = World::start("binary = true").await;
    let mut client = world.connect().await;
    let (id, pusher) = (client.id().await, world.pusher());
    let (_mouth, mut ears) = client.split();
    for size in SIZES.into_iter().chain([131_072]) {
        assert_eq!(pusher.push(&id, vec![0xff; size]).await.0, 200);
        assert_eq!(ears.message().await, Some(Message::binary(vec![0xff; size])));
    }
}

/// One message in as many frames, with something behind each but the last.
fn fragments(text: &str, count: usize, between: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let pieces: Vec<_> = text.as_bytes().chunks(text.len().div_ceil(count)).collect();
    let mut bytes = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let is_last = at + 1 == pieces.len();
        bytes.extend(frame(if at == 0 { TEXT } else { CONTINUE }, is_last, piece));
        bytes.extend(if is_last { Vec::new() } else { between(at) });
    }
    bytes
}

/// The same frames, the last of which says that there is more.
fn unfinished(mut frames: Vec<u8>) -> Vec<u8> {
    let last = frames.len() - frame(CONTINUE, true, &[b'x'; 32_768]).len();
    frames[last] &= 0x7f;
    frames
}

async fn answers(raw: &mut Raw, count: usize) -> BTreeSet<String> {
    let mut answers = BTreeSet::new();
    for _ in 0..count {
        answers.insert(raw.text().await);
    }
    answers
}

fn sized(random: &mut impl Rng, name: &str) -> String {
    let size = *SIZES.choose(random).unwrap();
    format!("{name}{}", "x".repeat(size - 1))
}

fn sized_up_to(random: &mut impl Rng, name: &str, most: usize) -> String {
    format!("{name}{}", "x".repeat(random.random_range(0..most)))
}

/// Long texts that differ are not worth printing.
fn assert_same(found: &str, expected: &str) {
    let at = found.bytes().zip(expected.bytes()).position(|(a, b)| a != b);
    assert!(found == expected, "{} bytes in place of {}, differing at {at:?}", found.len(), expected.len());
}
