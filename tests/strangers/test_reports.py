"""Reports: their counts against what arrived and against the log, also after kill -9, and in every form."""

import collections
import json
import random
import time

from lib import BINARY, SEND_KEY, command
from test_campaigns import CampaignCase, rows

ROWS = 1200
KILLS = 3


def number(address):
    return int(address.split("@")[0].lstrip("c"))


class ReportTest(CampaignCase):
    def report(self, daemon, path, key=SEND_KEY):
        status, _, answer = daemon.request("GET", path, key=key, timeout=30)
        self.assertEqual(status, 200, answer)
        return answer

    def cli(self, daemon, *args):
        return command(BINARY, *args, "--socket", f"{daemon.data_dir}/control.sock").stdout

    def test_a_campaigns_report_is_what_the_log_says_after_kills(self):
        rng = random.Random(3)
        once = set()

        def script(phase, _session, argument):
            if phase != "rcpt":
                return None
            address = argument.split("<")[1].split(">")[0] if "<" in argument else argument
            n = number(address)
            if n % 10 == 3:
                return b"550 5.1.1 <%s>: no such user, ticket 77%d\r\n" % (address.encode(), n)
            if n % 10 == 7 and n not in once:
                once.add(n)
                return b"450 4.2.1 try again in %d seconds\r\n" % (n + 10)
            return None

        mx = self.sink(script)
        daemon = self.campaign_daemon(mx.port).start()
        self.submit(daemon, rows(ROWS), {"rate": f"{ROWS // 4}/s"})
        self.start(daemon)
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.3, 0.9))
            daemon.kill()
            daemon.start()
        done = self.wait_state(daemon, "done")
        began = time.monotonic()
        report = self.report(daemon, "/v1/campaigns/spring/report")
        took = time.monotonic() - began
        again = time.monotonic()
        report = self.report(daemon, "/v1/campaigns/spring/report")
        print(f"        the report took {took * 1000:.0f} ms, then {(time.monotonic() - again) * 1000:.0f} ms", flush=True)
        self.assertEqual(report["as_of"]["behind"], 0)
        total, counts = report["total"], done["counts"]
        self.assertEqual(report["counts"], counts)
        self.assertEqual((counts["delivered"], counts["bounced"]), (ROWS * 9 // 10, ROWS // 10))
        for word in ("delivered", "deferred", "bounced", "failed", "expired", "suppressed", "complained", "late_bounces"):
            self.assertEqual(total[word], counts[word], word)
        log = collections.Counter(e["event"] for e in daemon.events() if e.get("campaign") == "spring")
        for word in ("delivered", "deferred", "bounced"):
            self.assertEqual(total[word], log[word], word)
        for split in ("providers", "sources", "domains"):
            self.assertEqual(sum(row["delivered"] for row in report[split]), total["delivered"], split)
            self.assertEqual(sum(row["bounced"] for row in report[split]), total["bounced"], split)
        self.assertEqual(len(report["domains"]), 7)
        self.assertEqual(sum(p["delivered"] for p in report["series"]["points"]), total["delivered"])
        self.assertEqual(sum(c["bounced"] for c in total["classes"].values()), total["bounced"])
        # Percentiles of what the events say, within 1 %.
        times = sorted(e["took_ms"] for e in daemon.events() if e["event"] == "delivered")
        for word, part in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99)):
            exact = times[-(-len(times) * part // 100) - 1]
            self.assertLessEqual(abs(total["delivery_time"][word] - exact), max(1, exact * 0.01), word)
        # One group for those that are refused, one for those that are deferred.
        groups = {(g["event"], g["count"]) for g in report["replies"]}
        self.assertEqual(groups, {("bounced", total["bounced"]), ("deferred", total["deferred"])}, report["replies"])
        self.assertFalse(any("@" in g["example"] for g in report["replies"]))
        self.forms(daemon)

    def forms(self, daemon):
        text = self.cli(daemon, "campaign", "report", "spring")
        self.assertIn("Campaign spring", text)
        page = self.cli(daemon, "campaign", "report", "spring", "--format", "html", "--compare", "spring")
        self.assertTrue(page.startswith("<!doctype html>") and "<svg" in page and "<script" not in page)
        data = json.loads(self.cli(daemon, "campaign", "report", "spring", "--json"))
        self.assertEqual(data["report"], "campaign")
        csv = self.cli(daemon, "report", "domains", "--campaign", "spring", "--tenant", "acme", "--format", "csv")
        self.assertIn("domain,d0.example,", csv)
        for by in ("summary", "providers", "sources", "domains", "tenants", "replies"):
            self.assertTrue(self.cli(daemon, "report", by, "--since", "2020-01-01").strip(), by)
        self.assertIn("spring", self.cli(daemon, "report", "campaigns", "--tenant", "acme"))
        timeline = self.report(daemon, "/v1/contacts/c7@d0.example/timeline")
        self.assertEqual([e["event"] for e in timeline["events"]][-2:], ["deferred", "delivered"])
        page = self.report(daemon, "/v1/contacts/c7@d0.example/timeline?limit=1")
        rest = self.report(daemon, f"/v1/contacts/c7@d0.example/timeline?after={page['next']}")
        self.assertEqual(page["events"] + rest["events"], timeline["events"])
        self.assertIn("delivered", self.cli(daemon, "report", "recipient", "c7@d0.example"))
        # Whose mail it is stays with him; what makes no sense is told.
        for path, status in (("/v1/reports/tenants", 422), ("/v1/reports/nothing", 404),
                             ("/v1/reports/providers?since=tomorrow", 422), ("/v1/reports/providers?tenant=other", 403),
                             ("/v1/campaigns/none/report", 404)):
            self.assertEqual(daemon.request("GET", path, key=SEND_KEY)[0], status, path)
