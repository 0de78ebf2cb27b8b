"""Those who hand mail in: smtplib, swaks, smtp-source and HTTP."""

import json
import smtplib
import ssl
import time

from lib import OPS_KEY, PASSWORD, SEND_KEY, SENDER, Case, Raw, command, letter, tool, wait_for


def trusting():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class SubmitTest(Case):
    def setUp(self):
        super().setUp()
        self.mx = self.sink()
        self.posthaste = self.daemon(self.mx.port).start()

    def arrived(self, subject):
        """Waits for the message with this subject; exactly one must come."""
        found = lambda: [m for m in self.mx.messages if f"Subject: {subject}".encode() in m.octets]
        wait_for(f"{subject!r} at the sink\n{self.posthaste.tail()}", found)
        time.sleep(0.1)
        self.assertEqual(len(found()), 1)
        return found()[0]

    def test_smtplib_relay_without_auth(self):
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.sendmail(SENDER, ["a@one.example", "b@two.example", "c@one.example"], letter("relayed"))
        wait_for("three recipients", lambda: len(self.mx.addresses()) == 3)
        self.assertEqual(sorted(self.mx.addresses()), ["a@one.example", "b@two.example", "c@one.example"])

    def test_smtplib_starttls(self):
        for mechanism in ("PLAIN", "LOGIN"):
            with self.subTest(mechanism), smtplib.SMTP("127.0.0.1", self.posthaste.starttls, timeout=10) as client:
                client.starttls(context=trusting())
                client.ehlo()
                self.assertIn(mechanism, client.esmtp_features["auth"])
                client.user, client.password = "app", PASSWORD
                answer = getattr(client, f"auth_{mechanism.lower()}")
                self.assertEqual(client.auth(mechanism, answer)[0], 235)
                client.sendmail(SENDER, ["u@dest.example"], letter(f"starttls {mechanism}"))
                octets = self.arrived(f"starttls {mechanism}").octets
                # RFC 3848: submitted with TLS and AUTH.
                self.assertIn(b"ESMTPSA", octets.split(b"\r\n\r\n")[0])

    def test_smtplib_implicit_tls(self):
        with smtplib.SMTP_SSL("127.0.0.1", self.posthaste.implicit, timeout=10, context=trusting()) as client:
            client.login("app", PASSWORD)
            client.sendmail(SENDER, ["u@dest.example"], letter("implicit"))
        self.arrived("implicit")

    def test_wrong_password_is_535_and_the_next_login_works(self):
        with smtplib.SMTP_SSL("127.0.0.1", self.posthaste.implicit, timeout=10, context=trusting()) as client:
            for user, password in (("app", "wrong"), ("nobody", PASSWORD), ("app", PASSWORD + " ")):
                with self.assertRaises(smtplib.SMTPAuthenticationError) as caught:
                    client.login(user, password)
                self.assertEqual(caught.exception.smtp_code, 535)
            client.login("app", PASSWORD)
        log = self.posthaste.tail(100_000)
        self.assertNotIn(PASSWORD, log)
        self.assertIn("127.0.0.1", log, "failed logins are logged with the client's address, for fail2ban")

    def test_no_auth_no_relay_on_submission(self):
        with smtplib.SMTP("127.0.0.1", self.posthaste.starttls, timeout=10) as client:
            client.starttls(context=trusting())
            client.ehlo()
            code, text = client.mail(SENDER)
            if code < 400:
                code, text = client.rcpt("u@dest.example")
            self.assertEqual((code, text[:5]), (530, b"5.7.0"))

    def test_swaks(self):
        for more in ([], ["--pipeline"]):
            with self.subTest(more):
                subject = f"swaks {len(more)}"
                done = command(tool("swaks"), "--server", "127.0.0.1", "--port", self.posthaste.starttls, "--tls",
                               "--auth", "PLAIN", "--auth-user", "app", "--auth-password", PASSWORD, "--from", SENDER,
                               "--to", "u@dest.example", "--header", f"Subject: {subject}", "--timeout", "10", *more)
                self.assertIn("250 ", done.stdout)
                self.arrived(subject)

    def test_smtp_source(self):
        command(tool("smtp-source"), "-s", "10", "-m", "500", "-l", "4096", "-N", "-d", "-f", SENDER,
                "-t", "user@dest.example", f"127.0.0.1:{self.posthaste.relay}")
        wait_for("500 recipients", lambda: len(self.mx.addresses()) >= 500, 30)
        time.sleep(0.3)
        self.assertEqual(len(self.mx.addresses()), 500)
        self.assertEqual(len(set(self.mx.addresses())), 500)

    def test_http_json(self):
        body = {"from": f"The App <{SENDER}>", "to": ["u@dest.example"], "subject": "Grüße, by HTTP",
                "text": "Hi.\n.\nA dot alone, ünd more.\n", "html": "<p>Hi.</p>", "tags": ["t1"],
                "metadata": {"order": 7},
                "attachments": [{"filename": "a.txt", "content_type": "text/plain", "content": "aGVsbG8="}]}
        status, _, answer = self.posthaste.request("POST", "/v1/messages", body, key=SEND_KEY)
        self.assertEqual(status, 202, answer)
        octets = self.mx.wait(1)[0].octets
        import email
        import email.policy

        message = email.message_from_bytes(octets, policy=email.policy.default)
        self.assertEqual(message["Subject"], "Grüße, by HTTP")
        self.assertIn(".\nA dot alone, ünd", message.get_body(("plain",)).get_content().replace("\r\n", "\n"))
        self.assertEqual([a.get_content().strip() for a in message.iter_attachments()], ["hello"])
        delivered = self.posthaste.wait_events("delivered", lambda e: e["event"] == "delivered")[0]
        self.assertEqual(delivered["message_id"], answer["id"])
        self.assertEqual(delivered["metadata"], {"order": 7})

    def test_http_idempotency(self):
        body = {"from": SENDER, "to": ["u@dest.example"], "subject": "once", "text": "once"}
        again = [self.posthaste.request("POST", "/v1/messages", body, SEND_KEY, {"Idempotency-Key": "k1"})
                 for _ in range(3)]
        self.assertEqual({a[0] for a in again}, {202}, again)
        self.assertEqual(len({a[2]["id"] for a in again}), 1)
        other = self.posthaste.request("POST", "/v1/messages", {**body, "subject": "twice"}, SEND_KEY,
                                       {"Idempotency-Key": "k1"})
        self.assertEqual(other[0], 422, other)
        self.arrived("once")

    def test_http_keys_and_roles(self):
        body = {"from": SENDER, "to": ["u@dest.example"], "subject": "x", "text": "x"}
        self.assertEqual(self.posthaste.request("POST", "/v1/messages", body, key=None)[0], 401)
        self.assertEqual(self.posthaste.request("POST", "/v1/messages", body, key="wrong")[0], 401)
        foreign = {**body, "from": "a@other.example"}
        self.assertIn(self.posthaste.request("POST", "/v1/messages", foreign, key=SEND_KEY)[0], (403, 422))
        self.assertIn(self.posthaste.request("GET", "/v1/queues", key=OPS_KEY)[0], (200,))
        self.assertEqual(self.posthaste.request("GET", "/healthz", key=None)[0], 200)
        status, _, metrics = self.posthaste.request("GET", "/metrics", key=None)
        self.assertEqual(status, 200)
        self.assertIn(b"posthaste_delivered_total", metrics)
        self.assertNotIn(b"dest.example", metrics)

    def test_headers_are_added_and_taken_away(self):
        text = (f"From: <{SENDER}>\r\nTo: <u@dest.example>\r\nBcc: <secret@dest.example>\r\nSubject: bare\r\n"
                "X-Posthaste-Tag: t1\r\nX-Posthaste-Campaign: spring\r\nX-Posthaste-Class: marketing\r\n"
                "X-Posthaste-Metadata: {\"n\": 1}\r\n\r\nx\r\n").encode()
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.sendmail(SENDER, ["u@dest.example"], text)
        header = self.arrived("bare").octets.split(b"\r\n\r\n")[0]
        for name in (b"Received:", b"Date:", b"Message-ID:"):
            self.assertIn(name.lower(), header.lower())
        for name in (b"Bcc:", b"X-Posthaste"):
            self.assertNotIn(name.lower(), header.lower())
        event = self.posthaste.wait_events("accepted", lambda e: e["event"] == "accepted")[0]
        self.assertEqual((event.get("campaign"), event.get("tags"), event.get("class")), ("spring", ["t1"], "marketing"))

    def test_the_250_carries_the_message_id(self):
        with Raw(self.posthaste.relay) as raw:
            raw.data()
            reply = raw.say(f"From: {SENDER}\r\nSubject: id\r\n\r\nx\r\n.").decode()
        event = self.posthaste.wait_events("accepted", lambda e: e["event"] == "accepted")[0]
        self.assertIn(event["message_id"], reply)

    def test_smtputf8(self):
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.ehlo()
            client.mail(SENDER, ["SMTPUTF8", "BODY=8BITMIME"])
            client.send("RCPT TO:<usér@dest.example>\r\n".encode())
            code, text = client.getreply()
            self.assertEqual(code, 250, text)
            self.assertEqual(client.data(letter("utf8"))[0], 250)
        self.assertIn("usér@dest.example".encode(), "".join(self.arrived("utf8").rcpts).encode("utf-8", "surrogateescape"))

    def test_a_message_with_json_events(self):
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.sendmail(SENDER, ["u@dest.example"], letter("events"))
        rows = self.posthaste.wait_events("delivered", lambda e: e["event"] == "delivered")
        self.assertEqual(rows[0]["recipient"], "u@dest.example")
        self.assertEqual(rows[0]["smtp"]["code"], 250)
        ids = [e["id"] for e in self.posthaste.events()]
        self.assertEqual(ids, sorted(set(ids)), json.dumps(ids))
        self.assertEqual(self.posthaste.events(after=ids[-1]), [])
