//! The live tail as it goes out: lines of JSON, for as long as somebody reads them.

use std::convert::Infallible;

use futures_util::stream;
use http::StatusCode;
use http_body_util::StreamBody;
use hyper::body::Frame;

use super::{error, lines};
use crate::engine::Engine;
use crate::model::answer::Answer;
use crate::model::body::Body;
use crate::telemetry::tail::Filter;

pub fn tail(engine: &Engine, query: &str) -> Answer {
    let filter = match Filter::parse(query) {
        Ok(filter) => filter,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong),
    };
    let watcher = match engine.tail.watch(filter) {
        Ok(watcher) => watcher,
        Err(too_many) => return error(StatusCode::SERVICE_UNAVAILABLE, &too_many.to_string()),
    };
    let (closed, watching) = (engine.closed.clone(), engine.watching());
    let events = stream::unfold((watcher, closed, watching), |(mut watcher, closed, watching)| async move {
        let lines = tokio::select! {
            // The last events of a drain are told as well; whoever may not watch any more is told nothing.
            biased;
            () = watching.cancelled() => return None,
            lines = watcher.next() => lines,
            // The gateway has stopped: there is nothing more to see.
            () = closed.cancelled() => return None,
        };
        Some((Ok::<_, Infallible>(Frame::data(lines)), (watcher, closed, watching)))
    });
    lines(Body::flowing(http_body_util::BodyExt::map_err(StreamBody::new(events), |never| match never {})))
}
