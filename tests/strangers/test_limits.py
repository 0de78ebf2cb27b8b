"""Limits of the node, a tenant and a pool, counted by a receiver that knows nothing of them."""

import smtplib
import time

from lib import BINARY, SENDER, command, letter, wait_for
from test_campaigns import JOB, CampaignCase, rows


class LimitsTest(CampaignCase):
    def run_with(self, limits, count, size=0):
        """Sends to ten domains; the times of arrival, from the first on, and the daemon."""
        arrived = []

        def script(phase, session, argument):
            if phase == "final":
                arrived.append(time.monotonic())

        mx = self.sink(script)
        daemon = self.daemon(mx.port, extra=limits).start()
        with smtplib.SMTP("127.0.0.1", daemon.relay, timeout=10) as client:
            for n in range(count):
                to = f"r{n}@d{n % 10}.example"
                client.sendmail(SENDER, [to], letter("hello", "x" * 70 + "\r\n" if not size else ("x" * 70 + "\r\n") * (size // 72), to))
        return arrived, daemon

    def check_rate(self, limits, per_second, limit, word):
        count = per_second * 3
        arrived, daemon = self.run_with(limits, count)
        said = wait_for("the limit to bind", lambda: limit in (o := command(
            BINARY, "queue", "explain", "d1.example", "--config", daemon.config).stdout) and o, 10, 0.05)
        self.assertIn(word, said)
        wait_for("all of them", lambda: len(arrived) >= count, 20)
        # Times of arrival are a little later than those of leaving: a tenth of a second is allowed for that.
        for n in range(len(arrived) - per_second):
            self.assertGreater(arrived[n + per_second] - arrived[n], 0.9, f"more than {per_second} in a second, from {n}")
        self.assertLess(arrived[-1] - arrived[0], 3.6)

    def test_the_node(self):
        self.check_rate('[limits.node]\nmessage_rate = "20/s"\n', 20, "node rate", "limits.node")

    def test_a_tenant(self):
        self.check_rate('[limits.tenants."acme"]\nmessage_rate = "20/s"\n', 20, "tenant rate", "limits.tenants.acme")

    def test_octets(self):
        arrived, _ = self.run_with('[limits.node]\nbytes_per_second = "200KB"\n', 30, size=20_000)
        wait_for("all of them", lambda: len(arrived) >= 30, 20)
        # 30 messages of 20 KB at 200 KB/s take three seconds, but for the first.
        took = arrived[-1] - arrived[0]
        self.assertGreater(took, 2.5)
        self.assertLess(took, 4)

    def test_octets_of_a_campaign_are_those_of_its_messages(self):
        arrived, sizes = [], []

        def script(phase, session, received):
            if phase == "final":
                arrived.append(time.monotonic())
                sizes.append(len(received.octets))

        mx = self.sink(script)
        limits = '[limits.node]\nbytes_per_second = "200KB"\n[shaping.default]\nconnections = 2\n'
        daemon = self.campaign_daemon(mx.port, extra=limits).start()
        line = "<p>" + "x" * 70 + "</p>\n"
        self.submit(daemon, rows(60), {"html": JOB["html"] + line * 250})
        self.start(daemon)
        self.wait_state(daemon, "done")
        # Its rows have some 200 octets, its messages more than 20,000. Two at a time and those ahead may go before the first is paid for.
        self.assertGreater(min(sizes), 20_000)
        took = arrived[-1] - arrived[0]
        self.assertGreater(took, 0.7 * sum(sizes) / 200_000)
        self.assertLess(took, 1.3 * sum(sizes) / 200_000)

    def test_a_limit_of_nothing_and_one_for_nobody_are_told(self):
        daemon = self.daemon(self.sink().port, extra='[limits.tenants."nobody"]\nmessage_rate = "0/s"\n')
        done = command(BINARY, "check", "--config", daemon.config, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("posthaste.toml:", done.stdout + done.stderr)
