"""kill -9, SIGTERM, and what is on disk before the 250."""

import collections
import contextlib
import os
import random
import re
import signal
import smtplib
import subprocess
import threading
import time

from lib import SENDER, Case, letter, tool, wait_for

SEED = int(os.environ.get("STRANGERS_SEED", "1"))
KILLS = int(os.environ.get("STRANGERS_KILLS", "6"))
UNSETTLED = 256  # [delivery] max_unsettled
IN_FLIGHT = 100  # 20 connections of the route, each with one message and up to four ahead


class Submitters:
    """Workers that submit messages of their own until told to stop, and note each that got its 250."""

    def __init__(self, port, count=4, pause=0.0):
        self.port, self.pause = port, pause
        self.stop = threading.Event()
        self.acknowledged, self.lock = [], threading.Lock()
        self.threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(count)]
        for thread in self.threads:
            thread.start()

    def _work(self, worker):
        number = 0
        while not self.stop.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self.port, timeout=10) as client:
                    while not self.stop.is_set():
                        number += 1
                        # A message whose 250 was not seen is never sent again under its own name.
                        address = f"w{worker}.{number}@d{number % 7}.example"
                        client.sendmail(SENDER, [address], letter(f"{worker}.{number}", "x" * 500 + "\r\n", address))
                        with self.lock:
                            self.acknowledged.append(address)
                        time.sleep(self.pause)
            except (OSError, smtplib.SMTPException):
                time.sleep(0.02)

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(15)
        return list(self.acknowledged)


class CrashTest(Case):
    limit = 180

    def all_arrive(self, mx, acknowledged, timeout=60):
        missing = lambda: set(acknowledged) - set(mx.addresses())
        try:
            wait_for("every message that got its 250", lambda: not missing(), timeout, 0.1)
        except AssertionError as e:
            raise AssertionError(f"{e}: {len(missing())} of {len(acknowledged)} lost, as {sorted(missing())[:5]}") from None

    def test_kill_9_loses_nothing_and_bounds_duplicates(self):
        rng = random.Random(SEED)
        mx = self.sink()
        posthaste = self.daemon(mx.port).start()
        workers = Submitters(posthaste.relay)
        self.addCleanup(workers.end)
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.2, 1.5))
            posthaste.kill()
            posthaste.start()
        time.sleep(0.5)
        acknowledged = workers.end()
        self.assertGreater(len(acknowledged), 100)
        self.all_arrive(mx, acknowledged)
        time.sleep(2)
        counts = collections.Counter(mx.addresses())
        duplicates = sum(n - 1 for n in counts.values())
        self.assertLessEqual(duplicates, KILLS * (UNSETTLED + IN_FLIGHT))
        print(f"        {len(acknowledged)} acknowledged, {KILLS} kills, {duplicates} duplicates", flush=True)
        self.assertEqual(posthaste.stop(), 0)

    def test_kill_9_while_mail_waits_for_retry(self):
        def script(phase, session, argument):
            return b"451 4.3.0 not yet\r\n" if phase == "rcpt" and not self.open_now else None

        self.open_now = False
        mx = self.sink(script)
        posthaste = self.daemon(mx.port).start()
        workers = Submitters(posthaste.relay)
        time.sleep(2)
        acknowledged = workers.end()
        for _ in range(3):
            posthaste.kill()
            posthaste.start()
            time.sleep(0.5)
        self.open_now = True
        self.all_arrive(mx, acknowledged)
        # Nothing was ever taken before, so nothing can come twice but what was in flight: here no kill follows.
        time.sleep(1)
        self.assertEqual(len(mx.addresses()), len(set(mx.addresses())))
        # The attempts before the crashes are remembered.
        retried = [e for e in posthaste.events() if e["event"] == "delivered" and e.get("attempt", 1) > 1]
        self.assertTrue(retried, "a delivery after a deferral counts its attempts")

    def test_idempotency_key_survives_kill_9(self):
        mx = self.sink()
        posthaste = self.daemon(mx.port).start()
        body = {"from": SENDER, "to": ["u@dest.example"], "subject": "once", "text": "x"}
        first = posthaste.request("POST", "/v1/messages", body, headers={"Idempotency-Key": "k"})
        self.assertEqual(first[0], 202, first)
        mx.wait(1)
        time.sleep(0.5)
        posthaste.kill()
        posthaste.start()
        again = posthaste.request("POST", "/v1/messages", body, headers={"Idempotency-Key": "k"})
        self.assertEqual((again[0], again[2]["id"]), (202, first[2]["id"]))
        time.sleep(1)
        self.assertEqual(len(mx.messages), 1)

    def test_sigterm_finishes_what_is_in_flight(self):
        def script(phase, session, argument):
            if phase == "final" and slow:
                time.sleep(1)

        slow = [True]
        mx = self.sink(script)
        posthaste = self.daemon(mx.port).start()
        workers = Submitters(posthaste.relay)
        time.sleep(1.5)
        began = time.monotonic()
        posthaste.terminate()
        code = posthaste.process.wait(32)
        took = time.monotonic() - began
        acknowledged = workers.end()
        self.assertEqual(code, 0, posthaste.tail())
        self.assertLess(took, 20, "one second was enough for what was in flight")
        self.assertIn("QUIT", mx.dialog)
        before = len(mx.addresses())
        self.assertLess(before, len(acknowledged), "some mail waits for the restart")
        slow.clear()
        posthaste.start()
        self.all_arrive(mx, acknowledged)
        time.sleep(1)
        self.assertEqual(len(mx.addresses()), len(set(mx.addresses())), "a clean end makes no duplicate")

    def test_sigterm_when_idle_is_quick(self):
        posthaste = self.daemon(self.sink().port).start()
        began = time.monotonic()
        self.assertEqual(posthaste.stop(), 0)
        self.assertLess(time.monotonic() - began, 3)

    def test_sighup_keeps_the_old_config_when_the_file_is_bad(self):
        mx = self.sink()
        posthaste = self.daemon(mx.port).start()
        with open(posthaste.config) as file:
            good = file.read()
        with open(posthaste.config, "w") as file:
            file.write("nonsense = 1\n" + good)
        posthaste.process.send_signal(signal.SIGHUP)
        wait_for("a word of it in the log", lambda: "nonsense" in posthaste.tail(20_000))
        with smtplib.SMTP("127.0.0.1", posthaste.relay, timeout=10) as client:
            client.sendmail(SENDER, ["u@dest.example"], letter("still"))
        mx.wait(1)


class SyncTest(Case):
    """strace sees the journal's sync between the write of a message and its 250."""

    def test_sync_before_250(self):
        strace = tool("strace")
        probe = subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, timeout=20)
        if probe.returncode != 0:
            self.skipTest(f"strace can't trace here: {probe.stderr.decode()[:200]}")
        mx = self.sink()
        trace = self.path("trace")
        calls = "write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,sendto,sendmsg"
        posthaste = self.daemon(mx.port, prefix=[strace, "-f", "-y", "-s", "200000", "-e", f"trace={calls}", "-o", trace])
        posthaste.start(timeout=60)
        with smtplib.SMTP("127.0.0.1", posthaste.relay, timeout=30) as client:
            client.sendmail(SENDER, ["u@dest.example"], letter("synced", "the-marker-of-this-test\r\n"))
        mx.wait(1, 40)
        # The traced process, not strace, gets the signal.
        daemon = int(subprocess.run(["pgrep", "-P", str(posthaste.process.pid)], capture_output=True, text=True,
                                    timeout=10).stdout.split()[0])
        os.kill(daemon, signal.SIGTERM)
        posthaste.process.wait(40)
        data = os.path.realpath(posthaste.data_dir)
        written = synced = answered = None
        pending = {}  # thread → the file whose sync has begun and not ended
        with open(trace, errors="replace") as file:
            for n, line in enumerate(file):
                thread = line.split(None, 1)[0]
                call = re.search(r"\b(\w+)\((\d+)<([^>]*)>", line)
                if written is None:
                    if call and "the-marker-of-this-test" in line and call.group(3).startswith(data):
                        written = n
                    continue
                if synced is None:
                    if call and call.group(1) in ("fsync", "fdatasync") and call.group(3).startswith(data):
                        if "unfinished" in line:
                            pending[thread] = call.group(3)
                        elif line.rstrip().endswith("= 0"):
                            synced = n
                    elif thread in pending and re.search(r"<\.\.\. f(data)?sync resumed>", line) and "= 0" in line:
                        synced = n
                # The client's 250 is the first that is sent on a socket after the message was written.
                if call and not call.group(3).startswith("/") and re.search(r'"250 2\.\d', line) and "QUIT" not in line:
                    answered = n
                    break
        self.assertIsNotNone(written, "the message is never written below data_dir")
        self.assertIsNotNone(answered, "no 250 after the write")
        self.assertIsNotNone(synced, "no sync between the write of the message and its 250")
        self.assertLess(written, synced)
        self.assertLess(synced, answered)

    def test_no_250_when_the_journal_cannot_be_synced(self):
        """strace lets every fdatasync fail: then there must be no 250, and the daemon ends with an error."""
        strace = tool("strace")
        probe = subprocess.run([strace, "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO", "true"],
                               capture_output=True, timeout=20)
        if probe.returncode != 0:
            self.skipTest(f"strace can't inject faults here: {probe.stderr.decode()[:200]}")
        mx = self.sink()
        posthaste = self.daemon(mx.port).start()
        attached = subprocess.Popen([strace, "-f", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e",
                                     "inject=fdatasync,fsync:error=EIO", "-p", str(posthaste.process.pid)],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(attached.wait, 10)
        self.addCleanup(attached.kill)
        time.sleep(1.5)
        if attached.poll() is not None:
            self.skipTest(f"strace can't attach here: {attached.stderr.read().decode()[:200]}")
        with self.assertRaises((smtplib.SMTPException, OSError)):
            with smtplib.SMTP("127.0.0.1", posthaste.relay, timeout=20) as client:
                client.sendmail(SENDER, ["u@dest.example"], letter("unsynced"))
        self.assertNotEqual(posthaste.process.wait(45), 0)


class HangTest(Case):
    limit = 150

    def test_a_commit_that_hangs_ends_the_daemon(self):
        """A disk that does not answer: strace holds every sync for two minutes. After 30 s the daemon must end, with an error, so that its
        supervisor or another node can do better; and there is no 250."""
        strace = tool("strace")
        probe = subprocess.run([strace, "-o", "/dev/null", "-e", "inject=fdatasync:delay_enter=1000", "true"],
                               capture_output=True, timeout=20)
        if probe.returncode != 0:
            self.skipTest(f"strace can't inject delays here: {probe.stderr.decode()[:200]}")
        mx = self.sink()
        posthaste = self.daemon(mx.port).start()
        attached = subprocess.Popen([strace, "-f", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e",
                                     "inject=fdatasync,fsync:delay_enter=120000000", "-p", str(posthaste.process.pid)],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(attached.wait, 10)
        self.addCleanup(attached.kill)
        time.sleep(1.5)
        if attached.poll() is not None:
            self.skipTest(f"strace can't attach here: {attached.stderr.read().decode()[:200]}")
        began = time.monotonic()
        with self.assertRaises((smtplib.SMTPException, OSError)):
            with smtplib.SMTP("127.0.0.1", posthaste.relay, timeout=60) as client:
                client.sendmail(SENDER, ["u@dest.example"], letter("hanging"))

        def ended():
            # strace keeps the thread that it delays; all others are gone when the process has ended.
            states = []
            for task in os.listdir(f"/proc/{posthaste.process.pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{posthaste.process.pid}/task/{task}/stat") as stat:
                    states.append(stat.read().rsplit(")", 1)[1].split()[0])
            return sum(state not in "ZX" for state in states) <= 1

        wait_for("the end of the daemon", ended, 75 - (time.monotonic() - began), 0.2)
        self.assertGreater(time.monotonic() - began, 25, "a slow disk is no dead disk")
        attached.kill()
        self.assertNotEqual(posthaste.process.wait(20), 0)
        self.assertIn("a commit has been hanging for 30 seconds", posthaste.tail(20_000))


class RestartTest(Case):
    limit = 120

    def test_a_dead_destination_slows_no_other(self):
        def script(phase, session, argument):
            return b"451 4.3.0 dead\r\n" if phase == "rcpt" and "dead.example" in argument else None

        mx = self.sink(script)
        posthaste = self.daemon(mx.port, retry=("1m",)).start()
        command = [tool("smtp-source"), "-s", "10", "-m", "3000", "-l", "200", "-N", "-d", "-f", SENDER,
                   "-t", "u@dead.example", f"127.0.0.1:{posthaste.relay}"]
        subprocess.run(command, timeout=60, check=True, capture_output=True)
        began = time.monotonic()
        with smtplib.SMTP("127.0.0.1", posthaste.relay, timeout=10) as client:
            client.sendmail(SENDER, ["u@alive.example"], letter("alive"))
        wait_for("the other destination", lambda: "u@alive.example" in mx.addresses(), 10)
        self.assertLess(time.monotonic() - began, 3)
