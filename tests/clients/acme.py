"""Certificates that the gateway orders for itself, from a CA that checks everything (`[gateway.tls.acme]`)."""

import datetime
import re
import socket
import ssl
import stat

import pytest
from cryptography import x509

from acme_server import AcmeServer, Refused
from backend import PATIENCE
from certificates import Authority
from world import chat, eventually, run

NAME = "chat.example.com"
# Long enough to be served and looked at, short enough to wait for: renewed after 4 s.
SHORT = datetime.timedelta(seconds=6)


@pytest.fixture
def ca(tmp_path):
    server = AcmeServer(tmp_path / "ca")
    yield server
    server.stop()


@pytest.fixture
def start(livegate, ca, tmp_path):
    """A gateway that orders from the CA; each start finds what earlier ones have kept."""
    def start(known=True, **acme):
        gateway = livegate(gateway=orders_from(ca, tmp_path, **acme))
        if known:
            ca.calls_back_at(gateway.port)
        return gateway
    return start


def orders_from(ca, folder, **acme):
    acme = {"domains": [NAME], "agree_to_terms": True, "directory": ca.directory, "directory_ca": str(ca.file), **acme}
    return {"data_dir": str(folder / "data"), "tls": {"acme": acme}}


def shown(gateway, ca, name=NAME, alpn=()):
    """The certificate that a client sees who trusts the CA; None when there is no handshake with it."""
    context = ssl.create_default_context(cafile=ca.file)
    context.set_alpn_protocols(list(alpn))
    try:
        with socket.create_connection(gateway.address, timeout=PATIENCE) as tcp:
            with context.wrap_socket(tcp, server_hostname=name) as tls:
                return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
    except (ssl.SSLError, ConnectionError):
        return None


def served(gateway, ca, **settings):
    return eventually(lambda: shown(gateway, ca, **settings), "a certificate that the client trusts")


def failures(gateway):
    return gateway.metric("livegate_certificate_orders_total", domain=NAME, outcome="failed")


def kept(tmp_path):
    return sorted(path for path in (tmp_path / "data").rglob("*"))


def test_a_certificate_is_ordered_at_the_first_start(start, ca):
    gateway = start()
    certificate = served(gateway, ca)
    assert certificate == ca.issued[0] and len(ca.orders) == 1
    assert gateway.metric("livegate_certificate_orders_total", domain=NAME, outcome="ok") == 1
    expires = gateway.metric("livegate_certificate_expiration_timestamp_seconds", domain=NAME)
    assert expires == certificate.not_valid_after_utc.timestamp()
    eventually(lambda: re.search(rf"a certificate for {NAME} was issued", gateway.logs()))


def test_it_listens_before_there_is_a_certificate(start, ca):
    gateway = start(known=False)
    assert shown(gateway, ca) is None
    assert gateway.admin("/healthz").status == 200
    ca.calls_back_at(gateway.port)
    served(gateway, ca)


def test_the_next_start_serves_what_was_kept(start, ca):
    gateway = start()
    first = served(gateway, ca)
    gateway.terminate()
    again = start()
    assert shown(again, ca) == first
    assert len(ca.orders) == 1 and len(ca.contacts) == 1


def test_nobody_else_reads_what_is_kept(start, ca, tmp_path):
    served(start(), ca)
    eventually(lambda: len(kept(tmp_path)) == 4, "folder, folder, account and certificate")
    for path in kept(tmp_path):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_certificate_that_cannot_be_read_is_ordered_anew(start, ca, tmp_path):
    gateway = start()
    first = served(gateway, ca)
    gateway.terminate()
    [file] = (tmp_path / "data").rglob("*.pem")
    file.write_text(file.read_text()[:300])
    again = start()
    assert served(again, ca) != first
    assert "ordered anew" in again.logs()


def test_a_certificate_is_renewed_before_it_expires(start, ca):
    ca.lifetime = SHORT
    gateway = start()
    first = served(gateway, ca)
    second = eventually(lambda: (now := shown(gateway, ca)) != first and now, "the next certificate")
    assert second.serial_number != first.serial_number
    assert first.not_valid_after_utc > second.not_valid_before_utc
    assert len(ca.contacts) == 1


def test_a_failed_renewal_keeps_the_old_certificate(start, ca):
    ca.lifetime = SHORT
    gateway = start()
    first = served(gateway, ca)
    ca.refuse_orders = 100
    eventually(lambda: failures(gateway) == 1)
    assert shown(gateway, ca) == first
    eventually(lambda: "the CA has a bad day" in gateway.logs() and "next try in 1 min" in gateway.logs())


def test_a_new_name_is_ordered_while_the_old_certificate_serves(start, ca):
    gateway = start()
    first = served(gateway, ca)
    gateway.terminate()
    again = start(known=False, domains=[NAME, "www.example.com"])
    ca.calls_back_at(again.port)
    assert shown(again, ca) is not None
    assert served(again, ca, name="www.example.com") != first


def test_one_certificate_may_have_several_names(start, ca):
    gateway = start(domains=[NAME, "www.example.com"])
    assert served(gateway, ca) == served(gateway, ca, name="www.example.com")
    assert len(ca.issued) == 1


def test_a_bad_nonce_is_no_failure(start, ca):
    ca.refuse_nonces = 1
    gateway = start()
    served(gateway, ca)
    assert failures(gateway) == 0


def test_a_rate_limit_is_left_alone_for_an_hour(start, ca):
    ca.refuse_orders, ca.refuse_with = 1, Refused("rateLimited", "too many certificates already issued", 429)
    gateway = start()
    eventually(lambda: failures(gateway) == 1)
    eventually(lambda: "too many certificates" in gateway.logs() and "next try in 60 min" in gateway.logs())
    assert shown(gateway, ca) is None and gateway.admin("/healthz").status == 200


def test_a_domain_that_leads_elsewhere_is_said_so(start, ca, dead_backend):
    gateway = start(known=False)
    ca.calls_back_at(dead_backend.port)
    eventually(lambda: failures(gateway) == 1)
    eventually(lambda: re.search(rf"did not find `{NAME}` to be ours: .*no answer", gateway.logs()))


def test_a_ca_that_is_away_is_said_so(livegate, ca, tmp_path):
    ca.stop()
    gateway = livegate(gateway=orders_from(ca, tmp_path))
    eventually(lambda: failures(gateway) == 1)
    eventually(lambda: "directory" in gateway.logs() or "account" in gateway.logs())


def test_a_ca_that_nobody_vouches_for_is_not_believed(livegate, ca, tmp_path):
    other = AcmeServer(tmp_path / "other")
    gateway = livegate(gateway=orders_from(ca, tmp_path, directory_ca=str(other.file)))
    other.stop()
    eventually(lambda: failures(gateway) == 1)
    assert "certificate" in gateway.logs() and ca.contacts == {}


def test_an_account_that_the_ca_lost_is_made_anew(start, ca):
    gateway = start()
    first = served(gateway, ca)
    gateway.terminate()
    ca.forget_accounts()
    again = start(domains=[NAME, "www.example.com"])
    assert served(again, ca, name="www.example.com") != first
    assert len(ca.contacts) == 2 and failures(again) == 0


def test_the_ca_learns_a_new_email_address(start, ca):
    gateway = start(email="old@example.com")
    served(gateway, ca)
    assert list(ca.contacts.values()) == [["mailto:old@example.com"]]
    gateway.terminate()
    served(start(email="new@example.com", domains=[NAME, "www.example.com"]), ca, name="www.example.com")
    assert list(ca.contacts.values()) == [["mailto:new@example.com"]]


def test_an_account_may_be_bound_to_an_external_one(start, ca):
    ca.external_accounts = {"customer-7": b"the key of customer 7"}
    gateway = start(eab_key_id="customer-7", eab_hmac_key="dGhlIGtleSBvZiBjdXN0b21lciA3")
    served(gateway, ca)
    assert "dGhlIGtleSBvZiBjdXN0b21lciA3" not in gateway.logs()


def test_a_ca_that_wants_an_external_account_gives_none_without(start, ca):
    ca.external_accounts = {"customer-7": b"the key of customer 7"}
    gateway = start()
    eventually(lambda: failures(gateway) == 1)
    eventually(lambda: "external" in gateway.logs())


def test_the_proof_is_shown_to_nobody_but_a_validation(start, ca):
    gateway = start()
    served(gateway, ca)
    assert shown(gateway, ca, alpn=["acme-tls/1"]) is None
    assert shown(gateway, ca, alpn=["http/1.1"]) == ca.issued[0]


def test_a_reload_orders_for_the_new_name(start, ca, tmp_path):
    gateway = start()
    served(gateway, ca)
    gateway.reload(chat(gateway=orders_from(ca, tmp_path, domains=[NAME, "www.example.com"])))
    served(gateway, ca, name="www.example.com")


def test_http_01_is_answered_over_plain_http(livegate, ca, tmp_path):
    listen = {"listen": ["127.0.0.1:0", "http://127.0.0.1:0"]}
    gateway = livegate(gateway=listen | orders_from(ca, tmp_path, challenge="http-01"))
    plain = next(line for line in gateway.printed[1:] if line.startswith("listening on http:"))
    ca.calls_back_at(int(plain.rsplit(":", 1)[1]))
    served(gateway, ca)


# Beside everything else that TLS does


def table(ca, folder, pair, *, tls=None, **acme):
    """The file's own certificate, and one that is ordered."""
    gateway = orders_from(ca, folder, **acme)
    gateway["tls"] |= {"certificates": [pair.entry], **(tls or {})}
    return gateway


@pytest.fixture
def own(tmp_path):
    """The authority of the certificates that stand in files."""
    return Authority(tmp_path / "own")


def seen(gateway, name=None):
    """The serial number of the certificate that anybody sees, whomever they trust."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(gateway.address, timeout=PATIENCE) as tcp:
        with context.wrap_socket(tcp, server_hostname=name) as tls:
            return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True)).serial_number


def test_certificates_of_files_and_ordered_ones_serve_together(livegate, ca, own, tmp_path):
    pair = own.issue("www.example.com", "localhost")
    gateway = livegate(gateway=table(ca, tmp_path, pair))
    # The file's certificate serves everybody as long as there is no other.
    assert seen(gateway, NAME) == pair.serial
    ca.calls_back_at(gateway.port)
    issued = served(gateway, ca).serial_number
    assert seen(gateway, NAME) == issued
    assert [seen(gateway, name) for name in ("www.example.com", "nobody.test", None)] == [pair.serial] * 3


def test_a_new_file_takes_nothing_from_the_ordered_one(livegate, ca, own, tmp_path):
    pair, new = own.issue("localhost"), own.issue("localhost")
    gateway = livegate(gateway=table(ca, tmp_path, pair))
    ca.calls_back_at(gateway.port)
    issued = served(gateway, ca)
    gateway.reload(chat(gateway=table(ca, tmp_path, new)))
    assert seen(gateway, "localhost") == new.serial
    assert shown(gateway, ca) == issued and len(ca.orders) == 1


def test_what_the_file_no_longer_orders_is_no_longer_served(livegate, ca, own, tmp_path):
    pair = own.issue("localhost")
    gateway = livegate(gateway=table(ca, tmp_path, pair))
    ca.calls_back_at(gateway.port)
    served(gateway, ca)
    gateway.reload(chat(gateway={"tls": {"certificates": [pair.entry]}}))
    assert seen(gateway, NAME) == pair.serial


def test_orders_begin_with_a_reload(livegate, ca, own, tmp_path):
    pair = own.issue("localhost")
    gateway = livegate(gateway={"tls": {"certificates": [pair.entry]}})
    ca.calls_back_at(gateway.port)
    gateway.reload(chat(gateway=table(ca, tmp_path, pair)))
    assert served(gateway, ca) == ca.issued[0]


def test_a_challenge_needs_no_certificate_of_a_client(livegate, ca, own, tmp_path):
    pair, ann = own.issue("localhost"), own.issue(subject={"CN": "ann"})
    gateway = livegate(gateway=table(ca, tmp_path, pair, tls={"client_ca": own.file}))
    ca.calls_back_at(gateway.port)
    eventually(lambda: gateway.metric("livegate_certificate_orders_total", domain=NAME, outcome="ok") == 1)
    context = ssl.create_default_context(cafile=ca.file)
    context.load_cert_chain(ann.cert, ann.key)
    with gateway.connect(ssl=context, server_hostname=NAME) as client:
        assert client.whoami()


def test_sockets_over_an_ordered_certificate_outlive_it(start, ca):
    ca.lifetime = SHORT
    gateway = start()
    first = served(gateway, ca)
    context = ssl.create_default_context(cafile=ca.file)
    with gateway.connect(ssl=context, server_hostname=NAME) as early:
        assert early.whoami()
        eventually(lambda: shown(gateway, ca) not in (None, first), "the next certificate")
        eventually(lambda: datetime.datetime.now(datetime.UTC) > first.not_valid_after_utc, "the first one's end")
        with gateway.connect(ssl=context, server_hostname=NAME) as late:
            assert early.whoami() != late.whoami()


@pytest.mark.parametrize("change, word", [
    ({"agree_to_terms": False}, "terms of service"),
    ({"domains": ["*.example.com"]}, "dns-01"),
    ({"domains": []}, "at least one"),
    ({"domains": ["127.0.0.1"]}, "is no domain"),
    ({"directory": "http://acme.example/directory"}, "https://"),
    ({"directory_ca": "nowhere.pem"}, "nowhere.pem"),
    ({"challenge": "dns-01"}, "tls-alpn-01"),
    ({"eab_key_id": "k"}, "eab_hmac_key"),
])
def test_check_says_what_cannot_be_ordered(ca, tmp_path, change, word):
    (tmp_path / "routes.toml").write_text(chat(gateway=orders_from(ca, tmp_path, **change)))
    checked = run("check", cwd=tmp_path)
    assert checked.returncode == 1 and word in checked.stdout, checked.stdout
