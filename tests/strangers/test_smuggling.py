"""What must be refused at the door: smuggling, STARTTLS injection, relay tricks, exhaustion."""

import smtplib
import socket
import ssl
import time

from lib import SENDER, Case, Raw, letter, wait_for

# Each was taken for the end of a message by some server.
FALSE_ENDS = [
    b"\n.\n", b"\n.\r", b"\r.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r",
    b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n",
]


class SmugglingTest(Case):
    def setUp(self):
        super().setUp()
        self.mx = self.sink()
        self.posthaste = self.daemon(self.mx.port).start()

    def test_false_ends_of_data(self):
        for end in FALSE_ENDS:
            with self.subTest(end), Raw(self.posthaste.relay) as raw:
                raw.data()
                inner = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<victim@dest.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"
                raw.send(letter("outer", b"text" + end + inner.encode() + b"\r\n.\r\n"))
                reply = raw.reply()
                self.assertTrue(reply.startswith(b"550") and b"5.6.0" in reply, reply)
                # The session is closed, so that what follows is not taken for commands.
                self.assertIn(raw.reply()[:3], (b"", b"421"))
        time.sleep(0.5)
        self.assertEqual(self.mx.messages, [])

    def test_a_false_end_in_pieces(self):
        with Raw(self.posthaste.relay) as raw:
            raw.data()
            raw.send(letter("outer", b"text"))
            for byte in b"\r\n.\r\r\nQUIT\r\n.\r\n":
                try:
                    raw.send(bytes([byte]))
                except OSError:
                    break
                time.sleep(0.01)
            self.assertTrue(raw.reply().startswith(b"550"))
        time.sleep(0.3)
        self.assertEqual(self.mx.messages, [])

    def test_bdat_and_http_cannot_smuggle_out(self):
        inner = f"\r\n.\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<victim@dest.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"
        octets = letter("outer", inner + "\r\n.\r\nQUIT\r\n")
        with Raw(self.posthaste.relay) as raw:
            raw.reply()
            raw.say("EHLO strangers.example")
            raw.say(f"MAIL FROM:<{SENDER}>")
            raw.say("RCPT TO:<u@dest.example>")
            raw.send(f"BDAT {len(octets)} LAST\r\n".encode() + octets)
            self.assertTrue(raw.reply().startswith(b"250"))
        taken = self.mx.wait(1)
        time.sleep(0.3)
        self.assertEqual(len(self.mx.messages), 1)
        # It is one message, and its dots came through.
        self.assertTrue(taken[0].octets.endswith(octets))
        for bad in (b"text\n.\nMAIL FROM:<a@b>\r\n", b"text\r\n\0", b"te\rxt\r\n"):
            with self.subTest(bad), Raw(self.posthaste.relay) as raw:
                octets = letter("bare", bad)
                raw.reply()
                raw.say("EHLO strangers.example")
                raw.say(f"MAIL FROM:<{SENDER}>")
                raw.say("RCPT TO:<u@dest.example>")
                raw.send(f"BDAT {len(octets)} LAST\r\n".encode() + octets)
                self.assertTrue(raw.reply().startswith(b"550"))

    def test_starttls_drops_what_was_sent_with_it(self):
        with Raw(self.posthaste.starttls) as raw:
            raw.reply()
            raw.say("EHLO strangers.example")
            raw.send(b"STARTTLS\r\nNOOP\r\n")
            self.assertTrue(raw.reply().startswith(b"220"))
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            raw.socket.settimeout(5)
            tls = context.wrap_socket(raw.socket)
            tls.sendall(b"EHLO strangers.example\r\n")
            reply = tls.recv(4096)
            # Were the NOOP answered, its one-line 250 would come first.
            self.assertTrue(reply.startswith(b"250-"), reply)
            self.assertNotIn(b"STARTTLS", reply)
            tls.sendall(b"STARTTLS\r\n")
            self.assertEqual(tls.recv(4096)[:1], b"5")
            tls.close()

    def test_old_tls_is_refused(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises((ssl.SSLError, OSError)):
            with socket.create_connection(("127.0.0.1", self.posthaste.implicit), 5) as plain:
                context.wrap_socket(plain).recv(100)

    def test_relay_tricks_and_injection_in_the_envelope(self):
        tricks = [
            "<u%v@dest.example>", '<"u@v"@dest.example>', "<v!u@dest.example>", "<u@v@dest.example>",
            "<u@[127.0.0.1]>", "<u@dest.example.>", "<u@dest..example>", "<>", "<u@>", "<@dest.example>", "u@dest.example\0",
            "<u@dest.example> NOTIFY=SOMETIMES", "<u@dest.example> ORCPT=rfc822;a+0", "<a b@dest.example>",
            "<u@dest\u2028.example>",
        ]
        with Raw(self.posthaste.relay) as raw:
            raw.reply()
            raw.say("EHLO strangers.example")
            for n, trick in enumerate(tricks):
                with self.subTest(trick):
                    if n % 8 == 0:
                        raw.say("RSET")
                        raw.say(f"MAIL FROM:<{SENDER}>")
                    reply = raw.say(f"RCPT TO:{trick}")
                    if not reply or reply.startswith(b"421"):
                        # Too many errors: a new session goes on.
                        raw.__init__(self.posthaste.relay)
                        raw.reply()
                        raw.say("EHLO strangers.example")
                        raw.say(f"MAIL FROM:<{SENDER}>")
                    else:
                        self.assertEqual(reply[:1], b"5", reply)

    def test_a_bare_line_feed_ends_no_command(self):
        with Raw(self.posthaste.relay) as raw:
            raw.reply()
            raw.say("EHLO strangers.example")
            raw.send(f"MAIL FROM:<{SENDER}>\nRCPT TO:<victim@dest.example>\r\n".encode())
            self.assertIn(raw.reply()[:1], (b"5", b""))

    def test_too_many_errors_end_the_session(self):
        with Raw(self.posthaste.relay) as raw:
            raw.reply()
            last = b""
            for _ in range(200):
                try:
                    reply = raw.say("NONSENSE")
                except OSError:
                    break
                if not reply:
                    break
                last = reply
            else:
                self.fail("200 errors were borne")
            self.assertTrue(last.startswith(b"421"), last)

    def test_a_long_line_costs_no_memory_and_ends_the_session(self):
        with Raw(self.posthaste.relay) as raw:
            raw.reply()
            with self.assertRaises((AssertionError, OSError)):
                for _ in range(1000):
                    raw.send(b"A" * 65536)
                raw.send(b"\r\n")
                # A server that ate 64 MB of a line has no bound.
                self.assertFalse(raw.reply().startswith(b"2"))
                raise AssertionError("refused at the end")
        with open(f"/proc/{self.posthaste.process.pid}/status") as file:
            rss_kb = int([line for line in file if line.startswith("VmRSS")][0].split()[1])
        self.assertLess(rss_kb, 300_000)

    def test_many_recipients_are_bounded(self):
        with Raw(self.posthaste.relay, 30) as raw:
            raw.reply()
            raw.say("EHLO strangers.example")
            raw.say(f"MAIL FROM:<{SENDER}>")
            codes = set()
            for start in range(0, 3000, 100):
                raw.send(b"".join(f"RCPT TO:<u{n}@dest.example>\r\n".encode() for n in range(start, start + 100)))
                for _ in range(100):
                    reply = raw.reply()
                    codes.add(reply[:3])
                    if not reply or reply.startswith(b"421"):
                        break
                else:
                    continue
                break
            self.assertIn(b"452", codes)

    def test_good_mail_still_passes(self):
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.sendmail(SENDER, ["u@dest.example"], letter("good"))
        wait_for("it", lambda: self.mx.messages)
