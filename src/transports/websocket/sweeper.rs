//! Deadlines of all connections, kept by one task instead of a timer for each.

use std::sync::Arc;
use std::time::Duration;

use crate::api::gateway::Gateway;
use crate::api::stage::Stage;
use crate::connections::{Connection, Heartbeat, When};
use crate::engine::Engine;
use crate::model::clock::{Tick, Timestamp};
use crate::model::close::Close;

/// Runs for as long as the gateway does.
pub async fn run(engine: Arc<Engine>) {
    let mut before = Tick::now();
    loop {
        tokio::time::sleep(pause(&engine.gateway())).await;
        let now = Tick::now();
        let elapsed = now.since(before);
        before = now;
        let gateway = engine.gateway();
        let mut last: Option<Arc<Stage>> = None;
        engine.connections.visit(|connection| {
            // Neighbours are mostly of the same stage.
            let stage = match last.take().filter(|stage| stage.key == connection.client.stage) {
                Some(stage) => Some(stage),
                None => gateway.stage_of(&connection.client.stage),
            };
            if let Some(stage) = stage {
                if gateway.retired.contains_key(&stage.key) {
                    // Its handshake was under way when a reload removed the stage.
                    connection.outbox.close(Close::GOING_AWAY, When::AfterReplies);
                }
                if engine.is_draining() || connection.outbox.closing().is_some() {
                    // It is told to go already, after what it waits for; it is not read, so it cannot pong.
                    connection.pause_deadlines(elapsed);
                    close_slow_consumer(connection, &stage, now);
                } else {
                    enforce(connection, &stage, now, elapsed);
                }
                last = Some(stage);
            }
        });
    }
}

/// Often enough for the shortest deadline to be kept within a tenth of it.
fn pause(gateway: &Gateway) -> Duration {
    let deadlines = gateway.stages.values().flat_map(|stage| {
        let limits = &stage.limits;
        [
            limits.idle_timeout,
            limits.max_duration,
            limits.slow_consumer_timeout,
            limits.ping_interval,
            limits.ping_interval.and(Some(limits.pong_timeout)),
            // A token's end is told in whole seconds, so a tenth of two is soon enough.
            stage.connect.authorizer.is_some().then_some(Duration::from_secs(2)),
        ]
    });
    let shortest = deadlines.flatten().min().unwrap_or(Duration::MAX);
    (shortest / 10).clamp(Duration::from_millis(20), Duration::from_secs(1))
}

fn enforce(connection: &Connection, stage: &Stage, now: Tick, elapsed: Duration) {
    let limits = &stage.limits;
    if connection.in_flight() >= limits.max_in_flight {
        // The socket is not read, so the client cannot show that it is there.
        connection.pause_deadlines(elapsed);
    }
    close_slow_consumer(connection, stage, now);
    close_expired(connection);
    let outbox = &connection.outbox;
    if is_over(limits.idle_timeout, connection.idle_for(now)) || is_over(limits.max_duration, connection.age(now)) {
        outbox.close(Close::GOING_AWAY, When::AfterPushes);
    }
    let Some(interval) = limits.ping_interval else { return };
    match connection.heartbeat() {
        Heartbeat::AwaitingPongSince(ping) if now.since(ping) >= limits.pong_timeout => {
            outbox.close(Close::GOING_AWAY, When::Now);
        }
        Heartbeat::QuietSince(pong) if now.since(pong) >= interval => {
            connection.ping_sent(now);
            outbox.ping();
        }
        _ => {}
    }
}

fn close_slow_consumer(connection: &Connection, stage: &Stage, now: Tick) {
    let is_over = |time| is_over(stage.limits.slow_consumer_timeout, time);
    let is_told = connection.outbox.closing().is_some_and(|(close, _)| close == Close::SLOW_CONSUMER);
    if !is_told && connection.outbox.full_for(now).is_some_and(is_over) {
        stage.metrics.outbox_stalls.increment(1);
        tracing::info!(connection_id = %connection.client.id, "closing a slow consumer: its outbox stayed full");
        connection.outbox.close(Close::SLOW_CONSUMER, When::Now);
    }
}

/// A connection does not outlive the token that opened it, or the last fresh one.
fn close_expired(connection: &Connection) {
    let expiry = connection.client.identity.read().as_ref().and_then(|identity| identity.expiry);
    if let Some(expiry) = expiry.filter(|expiry| expiry.at <= Timestamp::now()) {
        let close = Close { code: expiry.close_code, ..Close::TOKEN_EXPIRED };
        connection.outbox.close(close, When::AfterPushes);
    }
}

fn is_over(limit: Option<Duration>, time: Duration) -> bool {
    limit.is_some_and(|limit| time >= limit)
}
