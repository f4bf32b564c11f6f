//! One who calls `@connections`, over kept-alive connections as SDKs do.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::within;

#[derive(Clone)]
pub struct Pusher {
    http: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

impl Pusher {
    pub fn new(address: SocketAddr) -> Self {
        Self { http: Client::builder(TokioExecutor::new()).build_http(), address }
    }

    /// Pushes to a connection of the stage `s`: the status, and the name of the error if it is one.
    pub async fn push(&self, id: &str, body: impl Into<Bytes>) -> (u16, String) {
        self.call(Method::POST, &format!("/s/@connections/{}", id.replace('=', "%3D")), body.into()).await
    }

    pub async fn delete(&self, id: &str) -> (u16, String) {
        self.call(Method::DELETE, &format!("/s/@connections/{}", id.replace('=', "%3D")), Bytes::new()).await
    }

    /// Any round trip; a gateway that drains may refuse it.
    pub async fn probe(&self) {
        let _ = self.http.request(self.request(Method::GET, "/s/@connections/AAAAAAAAAAAAAAA=", Bytes::new())).await;
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> (u16, String) {
        let request = self.http.request(self.request(method, path, body));
        let answer = within("an answer of @connections", request).await.expect("an answer");
        let status = answer.status().as_u16();
        let error =
            answer.headers().get("x-amzn-errortype").map_or("", |name| name.to_str().expect("ASCII")).to_owned();
        within("the answer's end", answer.into_body().collect()).await.expect("a whole answer");
        (status, error)
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let uri = format!("http://{}{path}", self.address);
        Request::builder().method(method).uri(uri).body(Full::new(body)).expect("a request")
    }
}
