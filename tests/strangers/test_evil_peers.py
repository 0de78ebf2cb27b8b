"""Receivers that defer, refuse, break off, trickle or never end: each ends in the right state and event."""

import smtplib
import socket
import time

from lib import DROP, SENDER, Case, letter, wait_for

PHASES = ("connect", "ehlo", "mail", "rcpt", "data", "midbody", "final")


def first_only(at, answer):
    """A script: `answer` at one phase of the first connection; later ones obey."""
    return lambda phase, session, argument: answer if phase == at and session.number == 1 else None


class EvilPeersTest(Case):
    limit = 90

    def begin(self, script=None, **options):
        keep = {k: options.pop(k) for k in ("offers", "pause") if k in options}
        self.mx = self.sink(script=script, **keep)
        self.posthaste = self.daemon(self.mx.port, **options).start()

    def again(self):
        """Ends this daemon, and makes room for the next."""
        self.posthaste.end()
        self.mx.close()
        self.setUp()

    def submit(self, *addresses, subject="evil", body="Hi.\r\n"):
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.sendmail(SENDER, list(addresses), letter(subject, body, addresses[0]))

    def event(self, kind, address="u@dest.example", timeout=30):
        select = lambda e: e["event"] == kind and e.get("recipient") == address
        return self.posthaste.wait_events(f"{kind} for {address}", select, timeout=timeout)[0]

    def terminal(self, address="u@dest.example"):
        ends = ("delivered", "bounced", "failed", "expired", "suppressed", "purged")
        return [e["event"] for e in self.posthaste.events() if e["event"] in ends and e.get("recipient") == address]

    def test_drop_at_each_phase(self):
        for at in PHASES:
            with self.subTest(at):
                self.begin(first_only(at, DROP))
                self.submit("u@dest.example", body="x" * 5000 + "\r\n")
                deferred = self.event("deferred")
                self.assertTrue(deferred.get("reason") or deferred.get("smtp"), deferred)
                self.assertIn("retry_at", deferred)
                self.event("delivered")
                self.assertEqual(self.terminal(), ["delivered"])
                # Only a reply that was lost after the final dot may be a duplicate, with the same Message-ID.
                self.assertEqual(len(self.mx.messages), 2 if at == "final" else 1)
                ids = {line for m in self.mx.messages for line in m.octets.split(b"\r\n") if b"essage-ID:" in line}
                self.assertEqual(len(ids), 1)
                self.again()

    def test_421_at_each_phase(self):
        for at in PHASES:
            with self.subTest(at):
                self.begin(first_only(at, b"421 4.3.2 going down\r\n"))
                self.submit("u@dest.example", body="x" * 5000 + "\r\n")
                self.event("deferred")
                self.event("delivered")
                self.assertEqual((self.terminal(), len(self.mx.messages)), (["delivered"], 1))
                self.again()

    def test_refused_for_good_at_each_phase(self):
        for at in ("mail", "rcpt", "data", "final"):
            with self.subTest(at):
                # Not unknown users alone: whatever is 5xx ends the recipient.
                self.begin(lambda phase, s, a: b"550 5.1.1 no such user\r\n" if phase == at and SENDER not in str(a)
                           or phase == at == "mail" else None)
                self.submit("u@dest.example")
                bounced = self.event("bounced")
                self.assertEqual(bounced["smtp"]["code"], 550)
                self.assertEqual(bounced["smtp"]["enhanced"], "5.1.1")
                self.assertEqual((bounced["severity"], bounced["remote"]), ("permanent", True))
                self.assertEqual(self.terminal(), ["bounced"])
                self.again()

    def test_deferred_until_it_expires(self):
        self.begin(lambda phase, s, a: b"450 4.2.0 greylisted\r\n" if phase == "rcpt" and "u@dest" in a else None,
                   expire_after="4s")
        self.submit("u@dest.example")
        deferred = self.event("deferred")
        self.assertEqual((deferred["smtp"]["code"], deferred["severity"]), (450, "temporary"))
        self.event("expired")
        self.assertEqual(self.terminal(), ["expired"])

    def test_greylisted_then_taken(self):
        seen = set()

        def script(phase, session, argument):
            if phase == "rcpt" and argument not in seen:
                seen.add(argument)
                return b"450 4.2.0 greylisted\r\n"

        self.begin(script)
        self.submit("u@dest.example", "v@dest.example")
        self.event("delivered")
        self.assertEqual(self.event("delivered", "v@dest.example")["attempt"], 2)

    def test_some_recipients_refused(self):
        seen = []

        def script(phase, session, argument):
            if phase == "rcpt" and "bad@" in argument:
                return b"550 5.1.1 unknown\r\n"
            if phase == "rcpt" and "later@" in argument:
                seen.append(argument)
                return b"452 4.2.2 full\r\n" if len(seen) == 1 else None

        self.begin(script)
        self.submit("good@dest.example", "bad@dest.example", "later@dest.example")
        self.event("delivered", "good@dest.example")
        self.event("bounced", "bad@dest.example")
        self.event("deferred", "later@dest.example")
        self.event("delivered", "later@dest.example")
        self.assertEqual(self.mx.addresses().count("good@dest.example"), 1)

    def test_all_recipients_refused_and_354_all_the_same(self):
        # RFC 2920 §3.1: the client then ends the message with a lone dot and must stay in step.
        def script(phase, session, argument):
            return b"550 5.1.1 unknown\r\n" if phase == "rcpt" and "bad" in argument else None

        self.begin(script)
        self.submit("bad1@dest.example")
        self.submit("good@dest.example")
        self.event("bounced", "bad1@dest.example")
        self.event("delivered", "good@dest.example")

    def test_byte_by_byte(self):
        self.begin(pause=0.005)
        self.submit("u@dest.example")
        self.event("delivered")

    def test_endless_replies(self):
        def lines(connection):
            connection.settimeout(20)
            for _ in range(2000):
                connection.sendall(b"250-more and more and more\r\n" * 500)

        def one_line(connection):
            connection.settimeout(20)
            for _ in range(2000):
                connection.sendall(b"250-" + b"A" * 16384)

        for name, endless in (("lines", lines), ("one line", one_line)):
            for at in ("connect", "ehlo", "final"):
                with self.subTest(name, at=at):
                    self.begin(first_only(at, endless))
                    self.submit("u@dest.example")
                    self.event("deferred", timeout=20)
                    self.event("delivered", timeout=20)
                    with open(f"/proc/{self.posthaste.process.pid}/status") as file:
                        rss = int([line for line in file if line.startswith("VmRSS")][0].split()[1])
                    self.assertLess(rss, 300_000, "kB: the reply is bounded")
                    self.again()

    def test_replies_that_are_none(self):
        for reply in (b"hello there\r\n", b"250-ok\r\n550 no\r\n", b"\x00\x00\x00\r\n", b"999 what\r\n", b"25\r\n", b"\r\n"):
            with self.subTest(reply):
                self.begin(first_only("mail", reply))
                self.submit("u@dest.example")
                wait_for("an end", lambda: self.terminal() in (["delivered"], ["bounced"]), 25, 0.2)
                self.again()

    def test_escapes_reach_neither_event_nor_log(self):
        self.begin(lambda phase, s, a: b"550 5.7.1 \x1b[31mred\x1b[0m \x07 \xff\x80 no\r\n" if phase == "rcpt" else None)
        self.submit("u@dest.example")
        text = self.event("bounced")["smtp"]["text"]
        self.assertTrue(text.isprintable(), repr(text))
        self.assertNotIn("\x1b[31mred", self.posthaste.tail(100_000))

    def test_early_reply_during_data(self):
        self.begin(first_only("midbody", b"552 5.3.4 too much\r\n"))
        self.submit("u@dest.example", body=("x" * 70 + "\r\n") * 20_000)
        wait_for("an end", lambda: self.terminal(), 30, 0.2)

    def test_silence_and_zero_window_hold_nothing_else(self):
        def script(phase, session, argument):
            if phase == "rcpt" and "silent" in argument:
                time.sleep(40)
            if phase == "midbody" and "stuck" in str(session.rcpts):
                time.sleep(40)

        self.begin(script)
        self.submit("silent@silent.example")
        self.submit("stuck@stuck.example", body=("x" * 70 + "\r\n") * 100_000)
        began = time.monotonic()
        self.submit("u@dest.example")
        self.event("delivered", timeout=10)
        self.assertLess(time.monotonic() - began, 5)

    def test_next_host_when_the_first_refuses_connections(self):
        closed = socket.socket()
        closed.bind(("127.0.0.1", 0))  # bound, not listening
        self.addCleanup(closed.close)
        port = closed.getsockname()[1]
        self.mx = self.sink()
        route = f'[routes."two.example"]\nhosts = ["127.0.0.1:{port}", "127.0.0.1:{self.mx.port}"]\ntls = "none"\n'
        self.posthaste = self.daemon(self.mx.port, route=route).start()
        self.submit("u@two.example")
        self.event("delivered", "u@two.example", timeout=15)

    def test_no_host_listens(self):
        closed = socket.socket()
        closed.bind(("127.0.0.1", 0))
        self.addCleanup(closed.close)
        self.posthaste = self.daemon(closed.getsockname()[1], expire_after="4s").start()
        self.submit("u@dest.example")
        self.assertEqual(self.event("deferred")["severity"], "temporary")
        self.event("expired")

    def test_a_connection_is_used_again(self):
        self.begin()
        for n in range(30):
            self.submit(f"u{n}@d{n % 5}.example")
        wait_for("30 messages", lambda: len(self.mx.messages) == 30)
        self.assertLess(self.mx.sessions, 25, "domains of a route share its connections")

    def test_dns_outage_bounces_nothing(self):
        self.mx = self.sink()
        dead = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        dead.bind(("127.0.0.1", 0))
        self.addCleanup(dead.close)
        self.posthaste = self.daemon(self.mx.port, extra=f"""
[dns]
resolvers = ["127.0.0.1:{dead.getsockname()[1]}"]
timeout = "1s"
""")
        with open(self.posthaste.config) as file:
            text = file.read().replace('[routes."*"]', '[routes."routed.example"]')
        with open(self.posthaste.config, "w") as file:
            file.write(text)
        self.posthaste.start()
        self.submit("u@dest.example")
        self.submit("u@routed.example")
        self.event("delivered", "u@routed.example")
        self.event("deferred", timeout=40)
        self.assertEqual(self.terminal(), [])
