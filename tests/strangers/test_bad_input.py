"""Bad input: each gets a clear error that names what and where, and nothing is lost."""

import os
import smtplib
import socket
import subprocess
import time

from lib import BINARY, PASSWORD, SEND_KEY, SENDER, Case, Raw, command, letter, wait_for


class ConfigTest(Case):
    def setUp(self):
        super().setUp()
        self.posthaste = self.daemon(1)

    def edit(self, change):
        with open(self.posthaste.config) as file:
            text = change(file.read())
        with open(self.posthaste.config, "w") as file:
            file.write(text)
        return text

    def refused(self, *wanted):
        """Both `check` and `serve` refuse, quickly, naming what is wanted."""
        for how in ("check", "serve"):
            done = subprocess.run([BINARY, how, "--config", self.posthaste.config], capture_output=True, text=True,
                                  timeout=20, stdin=subprocess.DEVNULL)
            self.assertNotEqual(done.returncode, 0, how)
            for word in wanted:
                self.assertIn(word, done.stdout + done.stderr, how)
            self.assertNotIn("panicked", done.stderr)

    def test_a_good_one_passes(self):
        command(BINARY, "check", "--config", self.posthaste.config)

    def test_unknown_key(self):
        text = self.edit(lambda t: t.replace("[retry]\nschedule", "[retry]\nshedule"))
        line = text.split("shedule")[0].count("\n") + 1
        self.refused("shedule", "schedule", f"posthaste.toml:{line}:")

    def test_unknown_top_level_key(self):
        self.edit(lambda t: "hostnam = \"x\"\n" + t)
        self.refused("hostnam", "hostname", "posthaste.toml:1")

    def test_not_toml(self):
        self.edit(lambda t: t + "\n[broken\n")
        self.refused("posthaste.toml:")

    def test_wrong_type(self):
        self.edit(lambda t: t.replace('expire_after = "1h"', 'expire_after = "soon"'))
        self.refused("soon", "posthaste.toml:")

    def test_dangling_pool(self):
        self.edit(lambda t: t.replace('name = "acme"\n', 'name = "acme"\npool = "nowhere"\n'))
        self.refused("nowhere")

    def test_listeners_clash(self):
        self.edit(lambda t: t.replace(f":{self.posthaste.starttls}", f":{self.posthaste.relay}"))
        self.refused(str(self.posthaste.relay))

    def dkim(self, content, mode=0o600):
        key = self.path("bad.pem")
        with open(key, "w") as file:
            file.write(content)
        os.chmod(key, mode)
        self.edit(lambda t: t + f'\n[[dkim]]\ndomain = "acme.example"\nselector = "s"\nalgorithm = "rsa-sha256"\n'
                                f'key_file = "{key}"\n')

    def test_bad_key_file(self):
        self.dkim("this is no key\n")
        self.refused("bad.pem")

    def test_missing_key_file(self):
        self.dkim("x")
        os.unlink(self.path("bad.pem"))
        self.refused("bad.pem")

    def test_key_file_that_others_can_read(self):
        from lib import _keys

        with open(f"{_keys()[0]}/rsa.pem") as file:
            self.dkim(file.read(), 0o644)
        self.refused("bad.pem")

    def test_key_of_another_algorithm(self):
        from lib import _keys

        with open(f"{_keys()[0]}/ed25519.pem") as file:
            self.dkim(file.read())
        self.refused("bad.pem")

    def test_taken_port(self):
        with socket.create_server(("127.0.0.1", self.posthaste.relay)):
            self.posthaste.start(wait=False)
            self.assertNotEqual(self.posthaste.process.wait(15), 0)
        self.assertIn(f"127.0.0.1:{self.posthaste.relay}", self.posthaste.tail())

    def test_second_daemon_on_the_same_data(self):
        self.posthaste.start()
        second = self.daemon(1, data_dir=self.posthaste.data_dir)
        second.log = self.path("second.log")
        second.start(wait=False)
        self.assertNotEqual(second.process.wait(15), 0)
        self.assertIn("data", second.tail())
        self.posthaste.ready()

    def test_no_config_file(self):
        done = subprocess.run([BINARY, "serve", "--config", self.path("none.toml")], capture_output=True, text=True,
                              timeout=20)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("none.toml", done.stderr)


class InputTest(Case):
    def setUp(self):
        super().setUp()
        self.mx = self.sink()
        self.posthaste = self.daemon(self.mx.port).start()

    def test_refused_sender(self):
        with Raw(self.posthaste.relay) as raw:
            raw.reply()
            raw.say("EHLO strangers.example")
            reply = raw.say("MAIL FROM:<a@other.example>")
            if reply.startswith(b"250"):
                reply = raw.say("RCPT TO:<u@dest.example>")
            self.assertEqual(reply[:1], b"5")
            self.assertIn(b"other.example", reply)
            # The session goes on.
            self.assertTrue(raw.say(f"MAIL FROM:<{SENDER}>").startswith(b"250"))

    def test_oversize(self):
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=60) as client:
            client.ehlo()
            limit = int(client.esmtp_features["size"])
            self.assertEqual(client.mail(SENDER, [f"SIZE={limit + 1}"])[0], 552)
            for huge in ("99999999999999999999999", "-1", "x"):
                self.assertIn(client.mail(SENDER, [f"SIZE={huge}"])[0] // 100, (5,))
            with self.assertRaises(smtplib.SMTPException) as caught:
                client.mail(SENDER)
                client.rcpt("u@dest.example")
                code, text = client.data(letter("big", (b"x" * 76 + b"\r\n") * (limit // 78 + 1)))
                if code != 250:
                    raise smtplib.SMTPDataError(code, text)
            self.assertEqual(caught.exception.smtp_code, 552)
        time.sleep(0.3)
        self.assertEqual(self.mx.messages, [])

    def test_wrong_password_is_clear(self):
        import ssl

        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP_SSL("127.0.0.1", self.posthaste.implicit, timeout=10, context=context) as client:
            with self.assertRaises(smtplib.SMTPAuthenticationError) as caught:
                client.login("app", PASSWORD[:-1])
            self.assertEqual(caught.exception.smtp_code, 535)
            self.assertTrue(caught.exception.smtp_error.startswith(b"5.7.8"))

    def problem(self, answer, status):
        self.assertEqual(answer[0], status, answer)
        self.assertIn("application/problem+json", answer[1]["Content-Type"])
        self.assertTrue(answer[2].get("title") and answer[2].get("detail"), answer[2])
        return answer[2]

    def test_broken_json(self):
        post = lambda body: self.posthaste.request("POST", "/v1/messages", body, SEND_KEY,
                                                   {"Content-Type": "application/json"})
        self.problem(post(b'{"from": "a@acme.example", '), 400)
        good = {"from": SENDER, "to": ["u@dest.example"], "subject": "x", "text": "x"}
        import json

        for bad in ({"too": ["u@dest.example"]}, {"to": ["not an address"]}, {"to": []},
                    {"subject": "a\r\nBcc: evil@dest.example"}, {"headers": {"X-A": "b\r\nX-C: d"}},
                    {"headers": {"X-A\r\nBcc": "b"}}, {"from": "a@acme.example\r\nBcc: x@y.example"},
                    {"to": ["u@dest.example>\r\nRCPT TO:<v@dest.example"]}):
            with self.subTest(bad):
                answer = post(json.dumps({**good, **bad}).encode())
                self.assertIn(answer[0], (400, 422), answer)
                self.problem(answer, answer[0])
        self.assertEqual(post(json.dumps(good).encode())[0], 202)
        self.mx.wait(1)
        self.assertNotIn(b"evil", self.mx.messages[0].octets)

    def test_unknown_path_and_method(self):
        self.problem(self.posthaste.request("GET", "/v1/nothing"), 404)
        self.assertEqual(self.posthaste.request("DELETE", "/v1/messages")[0], 405)


class FullDiskTest(Case):
    limit = 120

    def test_full_disk(self):
        if os.geteuid() != 0:
            self.skipTest("only root can mount a small file system")
        disk = self.path("disk")
        os.mkdir(disk)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", disk], capture_output=True, text=True,
                                 timeout=20)
        if mounted.returncode != 0:
            self.skipTest(f"can't mount here: {mounted.stderr}")
        self.addCleanup(subprocess.run, ["umount", "-l", disk], timeout=20)
        opened = []

        def script(phase, session, argument):
            return b"451 4.3.0 not yet\r\n" if phase == "rcpt" and not opened else None

        mx = self.sink(script)
        posthaste = self.daemon(mx.port, data_dir=f"{disk}/data", retry=("2s",)).start()
        taken, refusal = [], None
        body = b"x" * 76 + b"\r\n"
        for n in range(400):
            address = f"u{n}@dest.example"
            try:
                with smtplib.SMTP("127.0.0.1", posthaste.relay, timeout=20) as client:
                    client.sendmail(SENDER, [address], letter(f"fill {n}.", body * 13_000, address))
                taken.append(address)
            except smtplib.SMTPResponseException as e:
                refusal = (e.smtp_code, e.smtp_error)
                break
            except smtplib.SMTPRecipientsRefused as e:
                refusal = list(e.recipients.values())[0]
                break
        self.assertIsNotNone(refusal, f"{len(taken)} MB went into 256 MiB")
        self.assertEqual((refusal[0], refusal[1][:5]), (452, b"4.3.1"))
        self.assertGreater(len(taken), 20)
        answer = posthaste.request("POST", "/v1/messages", {"from": SENDER, "to": ["h@dest.example"], "subject": "x",
                                                            "text": "x"}, SEND_KEY)
        self.assertIn(answer[0], (507, 503), answer)
        # Delivery goes on from the reserve, and frees what it took.
        opened.append(True)
        wait_for("all that was taken", lambda: set(taken) <= set(mx.addresses()), 60, 0.2)
        self.assertIsNone(posthaste.process.poll())
