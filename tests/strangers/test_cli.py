"""The sysadmin's side: every command against a running daemon, as a program of its own."""

import json
import os
import shutil
import smtplib
import socket
import subprocess
import time

from lib import BINARY, SENDER, Case, command, letter, wait_for


class CliTest(Case):
    limit = 90

    def setUp(self):
        super().setUp()
        self.closed = set()  # domains that are deferred for now
        self.mx = self.sink(self.script)
        self.posthaste = self.daemon(self.mx.port, retry=("30s",)).start()

    def script(self, phase, session, argument):
        if phase == "rcpt" and any(domain in argument for domain in self.closed):
            return b"451 4.3.0 closed for now\r\n"

    def cli(self, *args, check=True):
        return command(BINARY, *args, "--config", self.posthaste.config, check=check)

    def json(self, *args):
        return json.loads(self.cli(*args, "--json").stdout)

    def submit(self, *addresses, subject="cli"):
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.sendmail(SENDER, list(addresses), letter(subject, to=addresses[0]))

    def waits(self, address):
        select = lambda e: e["event"] == "deferred" and e.get("recipient") == address
        return self.posthaste.wait_events(f"deferral of {address}", select)[0]

    def test_summary_list_show_explain(self):
        self.closed.add("closed.example")
        self.submit("u@closed.example")
        deferred = self.waits("u@closed.example")
        self.assertIn("closed.example", self.cli("queue", "summary").stdout)
        self.assertIn("closed.example", self.cli("queue", "list").stdout)
        self.assertIn("u@closed.example", self.cli("queue", "show", "closed.example").stdout)
        explained = self.cli("queue", "explain", "closed.example").stdout
        self.assertRegex(explained.lower(), "retry|due")
        raw = subprocess.run([BINARY, "queue", "show", "--raw", deferred["message_id"], "--config", self.posthaste.config],
                             capture_output=True, timeout=20)
        self.assertTrue(raw.stdout.endswith(letter("cli", to="u@closed.example")), raw.stderr)
        self.assertTrue(self.json("queue", "summary"))

    def test_completions(self):
        """Each script is what its shell reads; the shells that are there read it."""
        for shell, read in (("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["--no-execute"])):
            script = self.path(f"completions.{shell}")
            told = command(BINARY, "completions", shell).stdout
            self.assertIn("suspend", told)
            with open(script, "w") as file:
                file.write(told)
            if shutil.which(shell):
                self.assertEqual(command(shell, *read, script).stderr, "")
        asked = f'source {self.path("completions.bash")}; COMP_WORDS=(posthaste queue sus); COMP_CWORD=2; ' \
            '_posthaste posthaste sus queue; echo "${COMPREPLY[@]}"'
        self.assertEqual(command("bash", "--norc", "-c", asked).stdout.split(), ["suspend"])

    def test_retry_now(self):
        self.closed.add("closed.example")
        self.submit("u@closed.example")
        self.waits("u@closed.example")
        self.closed.clear()
        self.cli("queue", "retry", "--domain", "closed.example")
        wait_for("the delivery, long before the 30 s", lambda: "u@closed.example" in self.mx.addresses(), 10)

    def test_suspend_and_resume(self):
        self.cli("queue", "suspend", "held.example", "--reason", "ticket 17", "--for", "1h")
        self.submit("u@held.example")
        self.submit("u@free.example")
        wait_for("the free one", lambda: "u@free.example" in self.mx.addresses())
        time.sleep(0.5)
        self.assertNotIn("u@held.example", self.mx.addresses())
        self.assertIn("ticket 17", self.cli("queue", "explain", "held.example").stdout)
        # A suspension is durable.
        self.posthaste.kill()
        self.posthaste.start()
        time.sleep(1)
        self.assertNotIn("u@held.example", self.mx.addresses())
        self.cli("queue", "resume", "held.example")
        wait_for("the held one", lambda: "u@held.example" in self.mx.addresses(), 10)

    def test_purge(self):
        self.closed.add("closed.example")
        self.submit("u@closed.example", "v@closed.example")
        self.waits("v@closed.example")
        self.cli("queue", "purge", "--domain", "closed.example", "--reason", "sent by mistake")
        purged = self.posthaste.wait_events("purged", lambda e: e["event"] == "purged", 2)
        self.assertEqual({e["recipient"] for e in purged}, {"u@closed.example", "v@closed.example"})
        self.closed.clear()
        self.cli("queue", "retry")
        time.sleep(1)
        self.assertEqual(self.mx.addresses(), [])

    def test_message_trace(self):
        self.submit("u@dest.example", subject="traced")
        delivered = self.posthaste.wait_events("delivered", lambda e: e["event"] == "delivered")[0]
        for key in ("u@dest.example", delivered["message_id"]):
            with self.subTest(key):
                told = self.cli("message", "trace", key).stdout
                self.assertIn("delivered", told)
                self.assertIn("accepted", told)
        self.assertNotEqual(self.cli("message", "trace", "nobody@nowhere.example", check=False).returncode, 0)

    def test_events_tail(self):
        self.submit("u@dest.example")
        self.posthaste.wait_events("delivered", lambda e: e["event"] == "delivered")
        lines = [json.loads(line) for line in self.cli("events", "tail", "--json").stdout.splitlines()]
        self.assertEqual({e["event"] for e in lines} >= {"accepted", "delivered"}, True, lines)

    def test_trace_smtp(self):
        tracing = subprocess.Popen([BINARY, "trace", "smtp", "dest.example", "--once", "--config", self.posthaste.config],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(tracing.kill)
        time.sleep(1)
        self.submit("u@dest.example")
        told = tracing.communicate(timeout=20)[0]
        self.assertIn("RCPT TO:<u@dest.example>", told)
        self.assertIn("250", told)

    def test_send(self):
        done = command(BINARY, "send", "--server", f"127.0.0.1:{self.posthaste.relay}", "-f", SENDER, "u@dest.example",
                       stdin=letter("sent").decode())
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"Subject: sent", self.mx.wait(1)[0].octets)

    def test_backup_and_restore(self):
        self.closed.add("closed.example")
        for n in range(50):
            self.submit(f"u{n}@closed.example")
        self.cli("backup", self.path("copy"))
        self.posthaste.end()
        other = self.daemon(self.mx.port, data_dir=self.path("copy"))
        self.closed.clear()
        other.start()
        command(BINARY, "queue", "retry", "--config", other.config)
        wait_for("all 50 from the copy", lambda: len(set(self.mx.addresses())) == 50, 30)

    def test_drain(self):
        # The receiver takes its time, so that the drain has something to wait for when intake has ended long since.
        self.mx.pause = 0.02
        self.submit("u@dest.example")
        self.cli("drain")
        self.assertEqual(self.posthaste.process.wait(40), 0)
        self.assertIn("u@dest.example", self.mx.addresses(), self.posthaste.tail())
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", self.posthaste.relay), 1).close()

    def test_reload(self):
        with open(self.posthaste.config) as file:
            text = file.read()
        other = self.sink()
        with open(self.posthaste.config, "w") as file:
            file.write(text.replace(f"127.0.0.1:{self.mx.port}", f"127.0.0.1:{other.port}"))
        self.cli("reload")
        self.submit("u@dest.example")
        other.wait(1)
        self.assertEqual(self.mx.messages, [])
        with open(self.posthaste.config, "w") as file:
            file.write("nonsense = 1\n" + text)
        refused = self.cli("reload", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("nonsense", refused.stdout + refused.stderr)

    def test_without_a_daemon_it_says_so(self):
        self.posthaste.stop()
        done = self.cli("queue", "summary", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("control.sock", done.stderr)


class InitTest(Case):
    def test_init_gives_a_config_that_runs(self):
        command(BINARY, "init", self.path("mail"))
        config = self.path("mail", "posthaste.toml")
        command(BINARY, "check", "--config", config)
        for folder, _, files in os.walk(self.path("mail")):
            for name in files:
                if name.endswith((".pem", ".key")) and "cert" not in name:
                    self.assertEqual(os.stat(os.path.join(folder, name)).st_mode & 0o077, 0, name)

    def test_dkim_new_and_dns(self):
        for algorithm in ("rsa-sha256", "ed25519-sha256"):
            with self.subTest(algorithm):
                key = self.path(f"{algorithm}.pem")
                told = command(BINARY, "dkim", "new", "--domain", "acme.example", "--selector", "s1", "--algorithm", algorithm,
                               "--out", key).stdout
                self.assertEqual(os.stat(key).st_mode & 0o077, 0)
                self.assertIn("s1._domainkey.acme.example", told)
                # A string of a TXT record has at most 255 octets.
                self.assertTrue(all(len(part) <= 255 for part in told.split('"')[1::2]))
