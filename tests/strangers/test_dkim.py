"""Signatures, verified by dkimpy and by opendkim, both offline."""

import os
import re
import subprocess

import dkim

from lib import ODD_BODIES, Case, dkim_records, letter, tool, wait_for, with_line_end
from test_bytes import submit

ALGORITHMS = {"rsa-sha256", "ed25519-sha256"}


def dkimpy_failures(octets, records):
    """What dkimpy says against it; nothing when both signatures hold."""
    seen = set()
    bad = []
    lookup = lambda name, timeout=5: records.get(name.decode().rstrip("."), "").encode()
    count = len(re.findall(rb"(?im)^dkim-signature:", octets.split(b"\r\n\r\n")[0]))
    for index in range(count):
        verifier = dkim.DKIM(octets)
        try:
            good = verifier.verify(idx=index, dnsfunc=lookup)
        except dkim.DKIMException as e:
            bad.append(f"signature {index}: {e!r}")
            continue
        algorithm = verifier.signature_fields[b"a"].decode()
        (seen.add if good else bad.append)(algorithm)
    return bad + [f"no good {a}" for a in ALGORITHMS - seen]


def opendkim_failures(case, octets, records):
    """What opendkim says against it; nothing when both signatures hold."""
    with open(case.path("keys"), "w") as file:
        file.writelines(f"{name} {value}\n" for name, value in records.items())
    with open(case.path("opendkim.conf"), "w") as file:
        file.write(f"Mode v\nBackground no\nTestPublicKeys {case.path('keys')}\n")
    # In its test mode opendkim reads lines with LF, and takes CRLF for CR LF.
    with open(case.path("message"), "wb") as file:
        file.write(octets.replace(b"\r\n", b"\n"))
    done = subprocess.run([tool("opendkim"), "-x", case.path("opendkim.conf"), "-vv", "-t", case.path("message")],
                          capture_output=True, timeout=30, cwd=case.folder)
    output = (done.stdout + done.stderr).decode(errors="replace")
    passed = set()
    for result in re.split(r"dkim=", output)[1:]:
        algorithm = re.search(r"header\.a=(\S+)", result)
        if result.startswith("pass") and algorithm:
            passed.add(algorithm.group(1))
    return [f"no good {a}: {output[-600:]}" for a in ALGORITHMS - passed]


class DkimTest(Case):
    limit = 120

    def test_odd_bodies_verify_with_both(self):
        os.environ.setdefault("LC_ALL", "C")
        mx = self.sink()
        posthaste = self.daemon(mx.port, dkim=True).start()
        sent = {name: with_line_end(letter(f"signed {n}.", body)) for n, (name, body) in enumerate(ODD_BODIES.items())}
        submit(posthaste.relay, sent.values())
        received = mx.wait(len(sent), 60)
        records = dkim_records()
        for name, octets in sent.items():
            subject = octets.split(b"Subject: ")[1].split(b"\r\n")[0]
            mine = [m.octets for m in received if b"Subject: " + subject in m.octets][0]
            with self.subTest(name, by="dkimpy"):
                self.assertEqual(dkimpy_failures(mine, records), [])
            with self.subTest(name, by="opendkim"):
                self.assertEqual(opendkim_failures(self, mine, records), [])

    def test_by_chunks_without_final_line_end(self):
        mx = self.sink(offers=("PIPELINING", "CHUNKING", "8BITMIME"))
        posthaste = self.daemon(mx.port, dkim=True).start()
        submit(posthaste.relay, [letter("cut", b"no end"), letter("none", b"")], chunking=True)
        for message in mx.wait(2):
            self.assertEqual(dkimpy_failures(message.octets, dkim_records()), [], message.octets)

    def test_http_message_verifies_and_is_oversigned(self):
        from lib import SEND_KEY, SENDER

        mx = self.sink()
        posthaste = self.daemon(mx.port, dkim=True).start()
        body = {"from": SENDER, "to": ["u@dest.example"], "subject": "Über " + "long " * 40,
                "text": "Grüße\n \n", "html": "<p>x</p>"}
        self.assertEqual(posthaste.request("POST", "/v1/messages", body, key=SEND_KEY)[0], 202)
        octets = mx.wait(1)[0].octets
        self.assertEqual(dkimpy_failures(octets, dkim_records()), [])
        self.assertEqual(opendkim_failures(self, octets, dkim_records()), [])
        # A second From or Subject added on the way must break it: those are signed once more than they are there.
        for extra in (b"From: <evil@acme.example>\r\n", b"Subject: evil\r\n"):
            head, _, rest = octets.partition(b"\r\nFrom:")
            forged = head + b"\r\n" + extra + b"From:" + rest
            self.assertNotEqual(dkimpy_failures(forged, dkim_records()), [], extra)

    def test_verifiers_can_fail(self):
        mx = self.sink()
        posthaste = self.daemon(mx.port, dkim=True).start()
        submit(posthaste.relay, [letter("intact", b"text\r\n")])
        octets = mx.wait(1)[0].octets.replace(b"\r\ntext\r\n", b"\r\ntexx\r\n")
        self.assertEqual(len(dkimpy_failures(octets, dkim_records())) >= 2, True)
        self.assertEqual(len(opendkim_failures(self, octets, dkim_records())), 2)

    def test_every_retry_carries_a_good_signature(self):
        def script(phase, session, argument):
            return b"451 4.3.0 later\r\n" if phase == "final" and session.number == 1 else None

        mx = self.sink(script)
        posthaste = self.daemon(mx.port, dkim=True).start()
        submit(posthaste.relay, [letter("again", b"text\r\n")])
        wait_for("the retry", lambda: mx.messages, 20)
        self.assertEqual(dkimpy_failures(mx.messages[0].octets, dkim_records()), [])
