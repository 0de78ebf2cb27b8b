"""Smart hosts and what this host lacks: AUTH and certificates at aiosmtpd, an address that is not ours, no descriptors left."""

import logging
import os
import resource
import smtplib
import ssl
import urllib.request
import warnings

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from lib import BINARY, SENDER, Case, command, free_port, letter, tool, wait_for

# It warns of logins in clear, which stay on loopback here, and of handshakes that are meant to fail.
warnings.filterwarnings("ignore", module="aiosmtpd")
logging.getLogger("mail.log").setLevel(logging.CRITICAL)

DOMAIN = "smart.example"
TO = f"u@{DOMAIN}"


class Box:
    """Keeps what it gets."""

    def __init__(self):
        self.got, self.mechanisms = [], []

    async def handle_DATA(self, server, session, envelope):
        self.got.append((session.authenticated, session.ssl is not None, bytes(envelope.content)))
        return "250 2.0.0 kept"

    def authenticate(self, server, session, envelope, mechanism, data):
        self.mechanisms.append(mechanism)
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"relay", b"swordfish")
        return AuthResult(success=good, handled=False)


class RoutesTest(Case):
    def host(self, **options):
        """A receiver of aiosmtpd; with the box that it fills."""
        box, port = Box(), free_port()
        if options.pop("auth", False):
            options.update(authenticator=box.authenticate, auth_required=True, auth_require_tls=False)
        controller = Controller(box, hostname="127.0.0.1", port=port, **options)
        controller.start()
        self.addCleanup(controller.stop)
        return box, port

    def begin(self, route, prefix=(), **options):
        extra = f'\n[routes."{DOMAIN}"]\n{route}\n'
        self.posthaste = self.daemon(free_port(), extra=extra, prefix=prefix, **options).start()
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.sendmail(SENDER, [TO], letter("route", to=TO))

    def event(self, kind):
        select = lambda e: e["event"] == kind and e.get("recipient") == TO
        return self.posthaste.wait_events(f"{kind} for {TO}", select)[0]

    def password(self, text):
        path = self.path("password")
        with open(path, "w") as file:
            file.write(text + "\n")
        os.chmod(path, 0o600)
        return path

    def log_in(self, password, **options):
        box, port = self.host(auth=True, **options)
        self.begin(f'hosts = ["127.0.0.1:{port}"]\ntls = "none"\nusername = "relay"\n'
                   f'password_file = "{self.password(password)}"')
        return box

    def test_auth_plain_is_accepted(self):
        box = self.log_in("swordfish", auth_exclude_mechanism=["LOGIN"])
        self.event("delivered")
        self.assertEqual((box.mechanisms, [auth for auth, _, _ in box.got]), (["PLAIN"], [True]))

    def test_auth_login_is_accepted(self):
        box = self.log_in("swordfish", auth_exclude_mechanism=["PLAIN"])
        self.event("delivered")
        self.assertEqual((box.mechanisms, [auth for auth, _, _ in box.got]), (["LOGIN"], [True]))

    def test_wrong_credentials_wait_and_say_why(self):
        box = self.log_in("barracuda")
        deferred = self.event("deferred")
        self.assertEqual((deferred["smtp"]["code"], deferred["smtp"]["enhanced"][0]), (535, "4"), deferred)
        self.assertIn("5.7.8", deferred["smtp"]["text"])
        self.assertEqual((deferred["severity"], box.got), ("temporary", []))
        with open(self.posthaste.log) as log:
            self.assertNotIn("barracuda", log.read())

    def verified(self, name):
        """A route with tls = "verified" to localhost, whose certificate our own authority signed for `name`."""
        openssl, at = tool("openssl"), self.path
        command(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7", "-subj", "/CN=Strangers CA",
                "-keyout", at("ca-key.pem"), "-out", at("ca.pem"))
        command(openssl, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                "-keyout", at("host-key.pem"), "-out", at("host.csr"))
        with open(at("san"), "w") as file:
            file.write(f"subjectAltName=DNS:{name}\n")
        command(openssl, "x509", "-req", "-in", at("host.csr"), "-CA", at("ca.pem"), "-CAkey", at("ca-key.pem"),
                "-CAcreateserial", "-days", "7", "-extfile", at("san"), "-out", at("host.pem"))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(at("host.pem"), at("host-key.pem"))
        box, port = self.host(tls_context=context, require_starttls=True)
        # The system's authorities are those of OpenSSL's usual variable.
        self.begin(f'hosts = ["localhost:{port}"]\ntls = "verified"', prefix=["env", f"SSL_CERT_FILE={at('ca.pem')}"])
        return box

    def test_verified_tls_takes_a_certificate_of_a_known_authority(self):
        box = self.verified("localhost")
        delivered = self.event("delivered")
        self.assertTrue(delivered["tls"].startswith("TLSv1.3"), delivered)
        self.assertEqual([encrypted for _, encrypted, _ in box.got], [True])

    def test_verified_tls_refuses_another_name(self):
        box = self.verified("mx.other.example")
        deferred = self.event("deferred")
        self.assertIn("not valid for name", deferred["smtp"]["text"])
        self.assertEqual((deferred["reason"], box.got), ("in the TLS handshake", []))

    def test_a_source_address_that_is_not_ours_holds_the_source(self):
        box, port = self.host()
        foreign = '[[sources]]\nname = "away"\naddress = "192.0.2.77"\n'
        self.begin(f'hosts = ["127.0.0.1:{port}"]\ntls = "none"')
        self.event("delivered")
        self.posthaste.end()
        with open(self.posthaste.config) as file:
            text = file.read()
        self.assertNotIn("[[sources]]", text)
        with open(self.posthaste.config, "a") as file:
            file.write(foreign)
        checked = command(BINARY, "check", "--config", self.posthaste.config)
        self.assertIn("this host can't send from 192.0.2.77", checked.stdout)
        self.posthaste.start()
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.sendmail(SENDER, [TO], letter("held", to=TO))
        wait_for("the hold in the log", self.held)
        self.assertEqual([e for e in self.posthaste.events() if e["event"] == "deferred"], [])
        self.assertEqual(len(box.got), 1)

    def test_no_descriptors_cost_nobody_an_attempt(self):
        box, port = self.host()
        self.begin(f'hosts = ["127.0.0.1:{port}"]\ntls = "none"', retry=("1s",))
        self.event("delivered")
        pid = self.posthaste.process.pid
        wait_for("the first connection's end", lambda: b"posthaste_connections 0" in self.metrics())
        open_now = len(os.listdir(f"/proc/{pid}/fd"))
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.ehlo()
            # The client's socket has the last free place.
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now + 1, hard))
            client.sendmail(SENDER, [TO], letter("poor", to=TO))
            wait_for("the hold in the log", self.held)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        select = lambda e: e["event"] == "delivered" and e.get("recipient") == TO
        events = self.posthaste.wait_events("both delivered", select, count=2)
        self.assertEqual([e["attempt"] for e in events], [1, 1])
        self.assertEqual([e for e in self.posthaste.events() if e["event"] == "deferred"], [])

    def held(self):
        with open(self.posthaste.log, "rb") as log:
            return b"source held" in log.read()

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.posthaste.http}/metrics", timeout=5) as answer:
            return answer.read()
