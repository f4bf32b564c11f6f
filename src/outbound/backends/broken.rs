//! How an exchange with a backend came to a bad end.

use std::io;

use super::framing::Malformed;
use crate::model::body::BodyError;

#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the request's body broke off: {0}")]
    Request(BodyError),
    #[error("the connection ended")]
    Ended,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("what came is no answer: {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Http2(hyper::Error),
}

impl Broken {
    /// It is the doing of whoever sends the request's body.
    pub fn is_of_request(&self) -> bool {
        match self {
            Broken::Request(_) => true,
            Broken::Http2(error) => error.is_user(),
            _ => false,
        }
    }
}
