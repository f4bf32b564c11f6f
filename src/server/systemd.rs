//! What systemd hands over at the start, and what it wants to hear: listening sockets, and how far we are.
//!
//! Without systemd all of this does nothing.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use sd_notify::NotifyState;

use super::listener::Bound;
use crate::model::address::Address;

/// The listening sockets that were passed and not taken yet.
#[derive(Debug, Default)]
pub struct PassedSockets {
    tcp: Vec<(SocketAddr, TcpListener)>,
    /// A socket without a path (an abstract name) is never asked for.
    unix: Vec<(Option<PathBuf>, UnixListener)>,
}

impl PassedSockets {
    /// Takes them over from the environment. To be called once, before there are threads: the variables are removed,
    /// so that no child takes the sockets for its own.
    pub fn take_over() -> Self {
        let mut passed = listenfd::ListenFd::from_env();
        let mut sockets = Self::default();
        for index in 0..passed.len() {
            if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
                sockets.add_tcp(listener);
            } else if let Ok(Some(listener)) = passed.take_unix_listener(index) {
                sockets.add_unix(listener);
            } else {
                tracing::warn!(index, "a passed file is no stream socket, and stays unused");
            }
        }
        sockets
    }

    fn add_tcp(&mut self, listener: TcpListener) {
        match listener.local_addr().and_then(|address| listener.set_nonblocking(true).map(|()| address)) {
            Ok(address) => self.tcp.push((address, listener)),
            Err(error) => tracing::warn!(%error, "a passed socket cannot be used"),
        }
    }

    fn add_unix(&mut self, listener: UnixListener) {
        match listener.local_addr().and_then(|address| listener.set_nonblocking(true).map(|()| address)) {
            Ok(address) => self.unix.push((address.as_pathname().map(Path::to_owned), listener)),
            Err(error) => tracing::warn!(%error, "a passed socket cannot be used"),
        }
    }

    /// The socket for an address of the file.
    pub(super) fn take(&mut self, asked: &Address) -> Option<Bound> {
        match asked {
            Address::Tcp(address) => self.take_tcp(*address).map(Bound::Tcp),
            // Its file is systemd's to remove.
            Address::Unix(path) => self.take_unix(path).map(|socket| Bound::Unix(socket, None)),
        }
    }

    /// The socket for an address of the file, ready for tokio. One that listens everywhere serves `0.0.0.0` and `[::]`
    /// alike: systemd's `ListenStream=8080` is `[::]:8080` for both.
    pub fn take_tcp(&mut self, asked: SocketAddr) -> Option<TcpListener> {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let is_same = |passed: &SocketAddr| canonical(*passed) == canonical(asked);
        let is_everywhere = |passed: &SocketAddr| {
            passed.is_ipv6()
                && passed.ip().is_unspecified()
                && asked.ip().is_unspecified()
                && passed.port() == asked.port()
        };
        let exact = self.tcp.iter().position(|(passed, _)| is_same(passed));
        let at = exact.or_else(|| self.tcp.iter().position(|(passed, _)| is_everywhere(passed)))?;
        Some(self.tcp.swap_remove(at).1)
    }

    /// The socket for `unix:PATH`, ready for tokio.
    pub fn take_unix(&mut self, asked: &Path) -> Option<UnixListener> {
        let is_asked = |passed: &Path| {
            let whole = |path: &Path| path.canonicalize().ok();
            passed == asked || whole(passed).is_some_and(|passed| Some(passed) == whole(asked))
        };
        let at = self.unix.iter().position(|(passed, _)| passed.as_deref().is_some_and(is_asked))?;
        Some(self.unix.swap_remove(at).1)
    }

    /// What nobody asked for, for a warning: clients of these would wait for ever.
    pub fn left_over(&self) -> Vec<String> {
        let tcp = self.tcp.iter().map(|(address, _)| address.to_string());
        let named =
            |path: &Option<PathBuf>| path.as_ref().map_or("unix:?".into(), |path| format!("unix:{}", path.display()));
        tcp.chain(self.unix.iter().map(|(path, _)| named(path))).collect()
    }
}

/// Every listener accepts; also after a reload.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Another file is being read. `notify_ready` must follow, whatever came of it.
pub fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "systemd was not told of the reload"),
    }
}

/// The gateway drains.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told how far the gateway is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str) -> TcpListener {
        TcpListener::bind(address).unwrap()
    }

    fn passed(listener: TcpListener) -> (PassedSockets, SocketAddr) {
        let address = listener.local_addr().unwrap();
        let mut sockets = PassedSockets::default();
        sockets.add_tcp(listener);
        (sockets, address)
    }

    #[test]
    fn a_passed_socket_serves_its_address_once() {
        let (mut sockets, address) = passed(listener("127.0.0.1:0"));
        assert!(sockets.take_tcp(SocketAddr::new(address.ip(), 1)).is_none());
        assert!(sockets.take_tcp(SocketAddr::new("0.0.0.0".parse().unwrap(), address.port())).is_none());
        assert_eq!(sockets.left_over(), [address.to_string()]);
        let taken = sockets.take_tcp(address).map(|listener| listener.local_addr().unwrap());
        assert_eq!(taken, Some(address));
        assert!(sockets.take_tcp(address).is_none());
        assert!(sockets.left_over().is_empty());
    }

    #[test]
    fn a_socket_that_listens_everywhere_serves_both_families() {
        // A machine without IPv6 has nothing to test here.
        let Ok(everywhere) = TcpListener::bind("[::]:0") else { return };
        let (mut sockets, address) = passed(everywhere);
        assert!(sockets.take_tcp(SocketAddr::new("0.0.0.0".parse().unwrap(), address.port())).is_some());
    }

    #[test]
    fn a_unix_socket_serves_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.sock");
        let mut sockets = PassedSockets::default();
        sockets.add_unix(UnixListener::bind(&path).unwrap());
        assert!(sockets.take_unix(&folder.path().join("other.sock")).is_none());
        assert_eq!(sockets.left_over(), [format!("unix:{}", path.display())]);
        assert!(sockets.take_unix(&folder.path().join("./gateway.sock")).is_some());
    }

    #[test]
    fn without_systemd_there_is_nothing() {
        assert!(PassedSockets::default().left_over().is_empty());
    }
}
