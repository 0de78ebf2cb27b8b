"""Byte for byte: what arrives at aiosmtpd and at Postfix's smtp-sink is what was sent, behind the header that was put before it."""

import glob
import smtplib
import socket
import subprocess
import time

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from lib import ODD_BODIES, SEND_KEY, SENDER, Case, Raw, free_port, letter, tool, wait_for, with_line_end


class Keep:
    """A handler of aiosmtpd that keeps the octets."""

    def __init__(self):
        self.octets = []

    async def handle_DATA(self, server, session, envelope):
        self.octets.append(envelope.original_content)
        return "250 OK"


def aiosmtpd(case):
    SMTP.line_length_limit = 10_000_000
    keep = Keep()
    controller = Controller(keep, hostname="127.0.0.1", port=free_port(), data_size_limit=50_000_000,
                            enable_SMTPUTF8=True, decode_data=False)
    controller.start()
    case.addCleanup(controller.stop)
    return controller.port, keep


def smtp_sink(case, *options):
    port = free_port()
    process = subprocess.Popen([tool("smtp-sink"), "-u", "root", *options, f"127.0.0.1:{port}", "100"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end():
        process.kill()
        process.wait(10)

    case.addCleanup(end)

    def listening():
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    wait_for("smtp-sink", listening)
    return port


def submit(port, messages, chunking=False):
    """Each message on its own: by DATA through smtplib, or by BDAT, which keeps a missing final line end."""
    if not chunking:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            for octets in messages:
                client.sendmail(SENDER, ["u@dest.example"], octets, ["BODY=8BITMIME"])
        return
    with Raw(port, 20) as raw:
        raw.reply()
        assert b"CHUNKING" in raw.say("EHLO strangers.example")
        for octets in messages:
            # Two chunks, cut in the middle.
            half = len(octets) // 2
            raw.send(f"MAIL FROM:<{SENDER}> BODY=8BITMIME\r\nRCPT TO:<u@dest.example>\r\nBDAT {half}\r\n".encode())
            raw.send(octets[:half] + f"BDAT {len(octets) - half} LAST\r\n".encode() + octets[half:])
            replies = [raw.reply() for _ in range(4)]
            assert all(r.startswith(b"250") for r in replies), replies


class BytesTest(Case):
    limit = 120

    def check(self, received, sent_by_name):
        """Each received message ends with exactly one of those sent, and all of them came."""
        self.assertEqual(len(received), len(sent_by_name))
        for name, sent in sent_by_name.items():
            with self.subTest(name):
                subject = sent.split(b"Subject: ")[1].split(b"\r\n")[0]
                mine = [m for m in received if b"Subject: " + subject + b"\r\n" in m]
                self.assertEqual(len(mine), 1)
                added = mine[0].removesuffix(sent)
                self.assertNotEqual(added, mine[0], f"…{mine[0][-120:]!r} is not …{sent[-120:]!r}")
                # What was put before it are whole header lines.
                self.assertTrue(added.endswith(b"\r\n"))
                self.assertNotIn(b"\r\n\r\n", added)
                self.assertIn(b"Received:", added)

    def letters(self, chunking):
        made = {}
        for n, (name, body) in enumerate(ODD_BODIES.items()):
            octets = letter(f"odd {n}.", body)
            made[name] = octets if chunking else with_line_end(octets)
        return made

    def test_aiosmtpd_by_data(self):
        port, keep = aiosmtpd(self)
        posthaste = self.daemon(port).start()
        sent = self.letters(False)
        submit(posthaste.relay, sent.values())
        wait_for(f"all at aiosmtpd {posthaste.tail()}", lambda: len(keep.octets) >= len(sent), 60)
        self.check(keep.octets, sent)

    def test_aiosmtpd_by_bdat(self):
        port, keep = aiosmtpd(self)
        posthaste = self.daemon(port).start()
        sent = self.letters(True)
        submit(posthaste.relay, sent.values(), chunking=True)
        wait_for(f"all at aiosmtpd {posthaste.tail()}", lambda: len(keep.octets) >= len(sent), 60)
        # A receiver without CHUNKING gets it by DATA, and that ends with a line end.
        self.check(keep.octets, {name: with_line_end(octets) for name, octets in sent.items()})

    def test_chunking_keeps_a_missing_final_line_end(self):
        mx = self.sink(offers=("PIPELINING", "CHUNKING", "8BITMIME"))
        posthaste = self.daemon(mx.port).start()
        sent = self.letters(True)
        submit(posthaste.relay, sent.values(), chunking=True)
        received = mx.wait(len(sent), 60)
        self.assertTrue(all(m.chunked for m in received), "the sink offers CHUNKING and PIPELINING")
        whole = [m.octets for m in received]
        # With or without the final line end: either is the message; nothing else may differ.
        fixed = {}
        for name, octets in sent.items():
            kept = any(m.endswith(octets) for m in whole)
            fixed[name] = octets if kept else with_line_end(octets)
        self.check(whole, fixed)

    def test_raw_http(self):
        port, keep = aiosmtpd(self)
        posthaste = self.daemon(port).start()
        sent = self.letters(True)
        for octets in sent.values():
            status, _, answer = posthaste.request(
                "POST", f"/v1/messages?from={SENDER}&to=u@dest.example", octets, SEND_KEY,
                {"Content-Type": "message/rfc822"})
            self.assertEqual(status, 202, answer)
        wait_for(f"all at aiosmtpd {posthaste.tail()}", lambda: len(keep.octets) >= len(sent), 60)
        self.check(keep.octets, {name: with_line_end(octets) for name, octets in sent.items()})

    def test_raw_http_with_bare_line_feeds(self):
        port, keep = aiosmtpd(self)
        posthaste = self.daemon(port).start()
        octets = letter("unix", b"one\n.\ntwo\n").replace(b"\r\n", b"\n")
        status, _, answer = posthaste.request("POST", f"/v1/messages?from={SENDER}&to=u@dest.example", octets, SEND_KEY,
                                              {"Content-Type": "message/rfc822"})
        # Refused, or made lines of SMTP: never a line feed alone on the wire.
        self.assertIn(status, (202, 422), answer)
        if status == 202:
            wait_for("it", lambda: keep.octets)
            self.assertTrue(keep.octets[0].endswith(b"\r\n\r\none\r\n.\r\ntwo\r\n"), keep.octets[0])

    def test_postfix_smtp_sink(self):
        port = smtp_sink(self, "-d", self.path("m."))
        posthaste = self.daemon(port).start()
        sent = self.letters(False)
        submit(posthaste.relay, sent.values())

        def dumped():
            texts = []
            for file in glob.glob(self.path("m.*")):
                with open(file, "rb") as opened:
                    texts.append(opened.read())
            return texts

        wait_for(f"all at smtp-sink {posthaste.tail()}", lambda: len(dumped()) >= len(sent), 60)
        time.sleep(0.5)
        received = dumped()
        # smtp-sink writes LF, and a header of its own before the message.
        for name, octets in sent.items():
            with self.subTest(name):
                wanted = octets.replace(b"\r\n", b"\n")
                self.assertEqual(sum(m.endswith(wanted) or m.endswith(wanted + b"\n") for m in received), 1)

    def test_without_8bitmime_the_remote_never_gets_8_bit(self):
        mx = self.sink(offers=("PIPELINING",))
        posthaste = self.daemon(mx.port).start()
        submit(posthaste.relay, [letter("eight", "Grüße\r\n"), letter("seven", "Hi\r\n")])
        wait_for("the 7-bit one", lambda: any(b"seven" in m.octets for m in mx.messages))
        wait_for("an end of both", lambda: len([e for e in posthaste.events()
                                                if e["event"] in ("delivered", "failed", "bounced")]) >= 2)
        for message in mx.messages:
            # RFC 6152 §3: re-encoded or given up with 5.6.3, never sent as it is.
            self.assertTrue(message.octets.isascii(), message.octets[-80:])
