"""Webhooks, received by Python's http.server and verified with Python's hmac."""

import base64
import hashlib
import hmac
import http.server
import json
import os
import smtplib
import threading
import time

from lib import BINARY, SENDER, Case, command, free_port, letter, wait_for

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two octets, y").decode()
OLD = "whsec_" + base64.b64encode(b"an older one of as many octets..").decode()


def is_signed(secret, headers, body):
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    want = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 60
    return fresh and want in headers["webhook-signature"].split()


class Receiver:
    """Takes POSTs; `answer(number)` says with which status, from 0."""

    def __init__(self, port=0, answer=lambda number: 200):
        self.requests = []  # (status, headers, body)
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.answer(len(receiver.requests))
                receiver.requests.append((status, dict(self.headers.items()), body))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.answer = answer
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def events(self):
        """What was taken, in order of arrival."""
        return [e for status, _, body in self.requests if status == 200 for e in json.loads(body)]


class WebhookTest(Case):
    def begin(self, port, secrets=(SECRET,), more="", extra=""):
        self.secret = self.path("hook.secret")
        with open(self.secret, "w") as file:
            file.write("".join(s + "\n" for s in secrets))
        os.chmod(self.secret, 0o600)
        hook = f"""
[[webhooks]]
name = "crm"
url = "http://127.0.0.1:{port}/hook"
secret_file = "{self.secret}"
allow_private = true
{more}
"""
        self.mx = self.sink()
        self.posthaste = self.daemon(self.mx.port, extra=hook + extra).start()

    def receiver(self, *args, **options):
        receiver = Receiver(*args, **options)
        self.addCleanup(receiver.close)
        return receiver

    def send(self, *to):
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            for one in to:
                client.sendmail(SENDER, [one], letter("hello", "the body\r\n", one))

    def cli(self, *args, check=True):
        return command(BINARY, "webhook", *args, "--config", self.posthaste.config, check=check)

    def status(self):
        return json.loads(self.cli("status", "crm", "--json", check=False).stdout)["webhooks"][0]

    def test_events_arrive_signed_and_in_order(self):
        hook = self.receiver()
        self.begin(hook.port, secrets=(SECRET, OLD), more='events = ["accepted", "delivered"]')
        self.send(*(f"r{n}@dest.example" for n in range(20)))
        wait_for("40 events", lambda: len(hook.events()) >= 40)
        events = hook.events()
        self.assertEqual([e["id"] for e in events], sorted(e["id"] for e in events))
        self.assertEqual(events, [e for e in self.posthaste.events() if e["event"] in ("accepted", "delivered")])
        for _, headers, body in hook.requests:
            self.assertTrue(is_signed(SECRET, headers, body))
            self.assertTrue(is_signed(OLD, headers, body))
            self.assertFalse(is_signed(SECRET, headers, body + b" "))
        self.assertEqual(len({h["webhook-id"] for _, h, _ in hook.requests}), len(hook.requests))

    def test_kill_9_and_a_receiver_that_was_away_lose_nothing(self):
        port = free_port()
        self.begin(port, more='events = ["delivered"]\nbatch = 7')
        self.send(*(f"a{n}@dest.example" for n in range(15)))
        wait_for("the endpoint to fail", lambda: self.status()["state"] == "failing")
        self.assertEqual(self.cli("status", "crm", check=False).returncode, 1)
        self.posthaste.wait_events("15 deliveries", lambda e: e["event"] == "delivered", 15)
        self.posthaste.kill()
        self.posthaste.start()
        hook = self.receiver(port)
        self.cli("resume", "crm")
        self.send(*(f"b{n}@dest.example" for n in range(15)))
        wait_for("30 events", lambda: len({e["id"] for e in hook.events()}) >= 30)
        self.posthaste.kill()
        self.posthaste.start()
        self.send("c@dest.example")
        wait_for("one more", lambda: len({e["id"] for e in hook.events()}) >= 31)
        delivered = {e["id"] for e in self.posthaste.events() if e["event"] == "delivered"}
        self.assertEqual({e["id"] for e in hook.events()}, delivered)
        # What came twice came under the same id: that of the request whose answer was not yet on disk.
        by_event = {}
        for _, headers, body in hook.requests:
            for event in json.loads(body):
                by_event.setdefault(event["id"], set()).add(headers["webhook-id"])
        self.assertTrue(all(len(ids) == 1 for ids in by_event.values()), by_event)
        self.assertEqual(self.status()["state"], "well")

    def test_a_receiver_that_answers_500_gets_the_same_request_again(self):
        hook = self.receiver(answer=lambda number: 500 if number == 0 else 200)
        self.begin(hook.port, more='events = ["delivered"]')
        self.send("one@dest.example")
        wait_for("the first try", lambda: hook.requests)
        wait_for("the second by itself", lambda: len(hook.requests) > 1, 15)
        (first, h1, b1), (second, h2, b2) = hook.requests[:2]
        self.assertEqual((first, second), (500, 200))
        self.assertEqual((h1["webhook-id"], b1), (h2["webhook-id"], b2))
        self.assertIn("500", self.status()["last_error"])
        # One that never answers in time delays no mail.
        hook.answer = lambda number: time.sleep(3) or 200
        self.send("two@dest.example")
        self.mx.wait(2)

    def test_a_redirect_is_not_followed_and_a_private_address_is_refused(self):
        hook = self.receiver(answer=lambda number: 302)
        self.begin(hook.port)
        done = self.cli("test", "crm", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("redirect", done.stderr)
        self.assertEqual(len(hook.requests), 1)
        with open(self.posthaste.config) as file:
            text = file.read()
        with open(self.posthaste.config, "w") as file:
            file.write(text.replace("allow_private = true", "allow_private = false"))
        # An address that stands in the configuration itself is an error there; through a name it is one at each request.
        done = command(BINARY, "check", "--config", self.posthaste.config, check=False)
        self.assertIn("allow_private", done.stdout + done.stderr)

    def test_a_replay_sends_again_and_test_sends_one(self):
        hook = self.receiver()
        self.begin(hook.port, more='events = ["delivered"]')
        self.send("one@dest.example")
        wait_for("the event", lambda: hook.events())
        self.cli("replay", "crm", "--since", "1h")
        wait_for("it again", lambda: len(hook.events()) >= 2)
        self.assertEqual(hook.events()[0], hook.events()[1])
        self.assertNotEqual(hook.requests[0][1]["webhook-id"], hook.requests[1][1]["webhook-id"])
        self.assertIn("200", self.cli("test", "crm").stdout)
        self.assertEqual(hook.events()[2]["event"], "alert")

    def test_the_forms_of_others(self):
        hooks = {form: self.receiver() for form in ("listmonk", "mailgun", "sendgrid")}
        extra = "".join(
            f"""
[[webhooks]]
name = "{form}"
url = "http://127.0.0.1:{hook.port}/"
secret_file = "{self.path('hook.secret')}"
allow_private = true
format = "{form}"
events = ["bounced"]
"""
            for form, hook in hooks.items()
        )
        self.begin(self.receiver().port, extra=extra)
        self.mx.script = lambda phase, session, argument: b"550 5.1.1 user unknown\r\n" if phase == "rcpt" else None
        self.send("gone@dest.example")
        for hook in hooks.values():
            wait_for("a request", lambda: hook.requests)
        body = {form: json.loads(hook.requests[0][2]) for form, hook in hooks.items()}
        self.assertEqual((body["listmonk"]["email"], body["listmonk"]["type"]), ("gone@dest.example", "hard"))
        self.assertEqual(body["sendgrid"][0]["event"], "bounce")
        self.assertIn("user unknown", body["sendgrid"][0]["reason"])
        signature, data = body["mailgun"]["signature"], body["mailgun"]["event-data"]
        self.assertEqual((data["event"], data["severity"], data["recipient"]), ("failed", "permanent", "gone@dest.example"))
        want = hmac.new(SECRET.encode(), (signature["timestamp"] + signature["token"]).encode(), hashlib.sha256)
        self.assertEqual(signature["signature"], want.hexdigest())
