//! Backends: the pools that the file describes, and the single servers that URLs name.

use std::sync::Arc;

use http::Uri;
use http::uri::Authority;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::Building;
use crate::api::file::{self, File};
use crate::model::problem::Place;
use crate::model::settings::{Text, nearest};
use crate::outbound::backends::pool::Address;
use crate::outbound::backends::{Backend, Check, Tls, Way};

/// A pool of the file.
pub(super) struct Named {
    place: Place,
    written: file::Backend,
    /// As `http://NAME` and as `https://NAME`, once a route needs it.
    plain: Option<Arc<Backend>>,
    secure: Option<Arc<Backend>>,
    /// A route means it, be it in vain.
    is_named: bool,
}

impl Building<'_> {
    pub(super) fn pools(&mut self, file: &File) {
        for entry in &file.backends {
            let (place, written) = (entry.place.clone(), entry.value.clone());
            self.pools.insert(entry.name.clone(), Named { place, written, plain: None, secure: None, is_named: false });
        }
    }

    /// What a URL's host and port stand for; the same for every route that names them.
    pub(super) fn backend(&mut self, place: &Place, uri: &Uri) -> Option<Arc<Backend>> {
        let authority = uri.authority()?;
        let is_secure = uri.scheme_str() == Some("https");
        if let Some(named) = self.pools.get_mut(authority.host()) {
            named.is_named = true;
            if authority.port().is_some() {
                let found = format!("`{}` is a pool of servers, each of which has its own port", authority.host());
                self.problems.problem_with_help(place, found, "leave out the port");
                return None;
            }
            return self.pool(authority.host(), is_secure);
        }
        self.suspect(place, authority);
        let name = format!("{}://{authority}", uri.scheme_str().unwrap_or_default());
        if let Some(known) = self.backends.get(&name) {
            return Some(known.clone());
        }
        let tls = match is_secure {
            true => Some(self.tls(place, None, false)?),
            false => None,
        };
        let backend = Arc::new(Backend::single(authority, tls, &self.kept.servers));
        self.backends.insert(name, backend.clone());
        Some(backend)
    }

    /// A host without a dot that is nearly a pool's name was probably meant to be it.
    fn suspect(&mut self, place: &Place, authority: &Authority) {
        let host = authority.host();
        if host.contains(['.', ':']) || authority.port().is_some() || host == "localhost" {
            return;
        }
        if let Some(meant) = nearest(host, self.pools.keys().map(String::as_str)).map(str::to_owned) {
            let found = format!("`{host}` is no pool of this file, so it is looked up as a host");
            self.problems.warning_with_help(place, found, format!("did you mean `{meant}`?"));
        }
    }

    fn pool(&mut self, name: &str, is_secure: bool) -> Option<Arc<Backend>> {
        let named = self.pools.get(name)?;
        let is_secure = is_secure || named.written.tls.is_some();
        let known = if is_secure { &named.secure } else { &named.plain };
        if let Some(known) = known {
            return Some(known.clone());
        }
        let (place, written) = (named.place.clone(), named.written.clone());
        let tls = match is_secure {
            true => Some(self.tls(&place, Some((name, &written)), written.http2)?),
            false => None,
        };
        let way = Way {
            tls,
            http2: written.http2,
            connect_timeout: written.connect_timeout.0,
            idle_timeout: written.idle_timeout.0,
        };
        let check = match &written.health {
            Some(health) if health.path.unresolved => None,
            Some(health) => Some(Check {
                path: health.path.value.parse().ok()?,
                host: name.to_owned(),
                interval: health.interval.0,
                timeout: health.timeout.0,
            }),
            None => None,
        };
        let spoken = format!("{name} {is_secure} {} {:?}", written.http2, written.tls.as_ref().map(described));
        let servers = written.servers.iter();
        let servers = servers.map(|server| self.kept.servers.get(server.value.clone(), &spoken)).collect();
        let backend = Arc::new(Backend::new(name.to_owned(), servers, written.rules(), way, check));
        let named = self.pools.get_mut(name)?;
        *(if is_secure { &mut named.secure } else { &mut named.plain }) = Some(backend.clone());
        Some(backend)
    }

    fn tls(&mut self, place: &Place, pool: Option<(&str, &file::Backend)>, http2: bool) -> Option<Tls> {
        let written = pool.and_then(|(_, pool)| pool.tls.as_ref());
        let authorities = match written.and_then(|tls| tls.ca.as_ref()) {
            Some(ca) => Some(self.authorities(ca)?),
            None => None,
        };
        let identity = match written.and_then(|tls| tls.certificate.as_ref().zip(tls.key.as_ref())) {
            Some((certificate, key)) => Some((self.certificates(certificate)?, self.key(key)?)),
            None => None,
        };
        let has_sockets =
            pool.is_some_and(|(_, pool)| pool.servers.iter().any(|server| matches!(server.value, Address::Unix(_))));
        let name = match written.and_then(|tls| tls.server_name.as_ref()).filter(|name| !name.unresolved) {
            Some(name) => Some(name.value.clone()),
            None => pool.filter(|_| has_sockets).map(|(name, _)| name.to_owned()),
        };
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let built = Tls::new(authorities, identity, name, http2);
        built
            .map_err(|error| {
                let found = format!("TLS towards this backend cannot be set up: {error}");
                self.problems.problem_with_help(place, found, "look at `certificate`, `key` and `ca`");
            })
            .ok()
    }

    fn authorities(&mut self, file: &Text) -> Option<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for authority in self.certificates(file)? {
            if let Err(error) = roots.add(authority) {
                let found = format!("a certificate in `{}` cannot vouch for servers: {error}", file.value);
                self.problems.problem_with_help(&file.place, found, "write a PEM file with X.509 certificates");
                return None;
            }
        }
        Some(roots)
    }

    fn certificates(&mut self, file: &Text) -> Option<Vec<CertificateDer<'static>>> {
        let text = self.files.read(file, &mut self.problems)?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match read {
            Ok(certificates) if !certificates.is_empty() => Some(certificates),
            _ => {
                let help = "write a PEM file; a certificate in it begins with `-----BEGIN CERTIFICATE-----`";
                let found = format!("`{}` has no certificate that can be read", file.value);
                self.problems.problem_with_help(&file.place, found, help);
                None
            }
        }
    }

    fn key(&mut self, file: &Text) -> Option<PrivateKeyDer<'static>> {
        let text = self.files.read_secret(file, &mut self.problems)?;
        let read = PrivateKeyDer::from_pem_slice(&text).ok();
        if read.is_none() {
            let help = "write a PEM file; a key in it begins with `-----BEGIN PRIVATE KEY-----`, and is not encrypted";
            let found = format!("`{}` has no private key that can be read", file.value);
            self.problems.problem_with_help(&file.place, found, help);
        }
        read
    }

    /// Pools that no route names.
    pub(super) fn check_pools(&mut self) {
        let mut unnamed = Vec::new();
        for (name, named) in &self.pools {
            if !named.is_named {
                unnamed.push((name.clone(), named.place.clone()));
            }
        }
        for (name, place) in unnamed {
            let found = format!("no route names the pool `{name}`");
            self.problems.warning_with_help(&place, found, format!("write `http://{name}/…` as a route's integration"));
        }
    }

    pub(super) fn all_backends(&mut self) -> Vec<Arc<Backend>> {
        let pools = std::mem::take(&mut self.pools).into_values();
        let single = std::mem::take(&mut self.backends).into_values();
        single.chain(pools.flat_map(|named| [named.plain, named.secure].into_iter().flatten())).collect()
    }
}

/// What of the table makes the connections that are open unfit for another one.
fn described(tls: &file::BackendTls) -> [Option<&str>; 4] {
    [&tls.ca, &tls.certificate, &tls.key, &tls.server_name].map(|text| text.as_ref().map(|text| text.value.as_str()))
}
