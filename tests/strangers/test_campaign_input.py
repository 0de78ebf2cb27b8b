"""What campaigns are given that is not right, and what must not be lost or sent by it: one test an interface, and erasure."""

import gzip
import http.client
import json
import re
import threading
import time

from lib import BINARY, SEND_KEY, command, wait_for
from test_campaigns import JOB, CampaignCase, ndjson, rows


def resident(process, field="VmRSS"):
    """Memory of a process in kB: `VmRSS` now, `VmHWM` at the most."""
    with open(f"/proc/{process.pid}/status") as status:
        return int(re.search(field + r":\s+(\d+)", status.read()).group(1))


class CampaignInputTest(CampaignCase):
    def setUp(self):
        super().setUp()
        self.mx = self.sink()
        self.posthaste = self.campaign_daemon(self.mx.port).start()

    def test_two_gib_without_a_line_end_are_refused_after_a_megabyte_and_cost_no_memory(self):
        self.call(self.posthaste, "POST", "", JOB, expect=201)
        before = resident(self.posthaste.process)
        sent, most, ended = [0], [0], threading.Event()

        def watch():
            while not ended.wait(0.01):
                most[0] = max(most[0], resident(self.posthaste.process))

        def two_gib():
            piece = b"x" * (1 << 16)
            for _ in range(2 << 14):
                sent[0] += len(piece)
                yield piece

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        client = http.client.HTTPConnection("127.0.0.1", self.posthaste.http, timeout=120)
        status, answer = None, b""
        try:
            try:
                client.request("PUT", "/v1/campaigns/spring/recipients", body=two_gib(), encode_chunked=True,
                               headers={"Authorization": f"Bearer {SEND_KEY}", "Content-Type": "text/csv",
                                        "Transfer-Encoding": "chunked"})
                reply = client.getresponse()
                status, answer = reply.status, reply.read()
            except (BrokenPipeError, ConnectionResetError):
                pass  # it closed while we were still sending: refused as well
        finally:
            ended.set()
            watcher.join()
            client.close()
        if status is not None:
            self.assertIn(status, (400, 413, 422), answer)
        self.assertLess(sent[0], 256 << 20, "it was refused long before its end")
        self.assertLess(most[0] - before, 48_000, f"kB more than the {before} before")
        self.assertEqual(self.state(self.posthaste)["counts"]["total"], 0)
        # Said by whoever waits for the answer: what is wrong, and from a client that sends no more than it must.
        status, _, answer = self.call(self.posthaste, "PUT", "/spring/recipients", b"email\n" + b"x" * (3 << 20),
                                      headers={"Content-Type": "text/csv"})
        self.assertIn(status, (400, 413, 422), answer)
        self.assertIn("line", json.dumps(answer))
        # Nothing is broken by it: the right list is taken, and sent.
        self.upload(self.posthaste, rows(3))
        self.start(self.posthaste)
        self.wait_state(self.posthaste, "done")
        self.assertEqual(sorted(self.mx.addresses()), ["c0@d0.example", "c1@d1.example", "c2@d2.example"])

    def test_one_broken_row_among_many_costs_only_itself(self):
        self.call(self.posthaste, "POST", "", JOB, expect=201)
        good = ndjson(rows(5))
        bad = (b'{"email":"a@d.example","vars":[1]}\n' b'{"email":"b@d.example","emial":"x"}\n' b'"text"\n'
               b'\xff\xfe\x00{"email"\n' b'{"email":"x@y.example\\r\\nBcc: z@z.example"}\n'
               + b'{"email":"long@d.example","vars":{"a":"' + b"y" * (70 << 10) + b'"}}\n')
        self.upload(self.posthaste, bad + good)
        upload = self.state(self.posthaste)["upload"]
        self.assertEqual((upload["read"], upload["accepted"], upload["invalid"]), (11, 5, 6), upload)
        status, _, rejects = self.call(self.posthaste, "GET", "/spring/rejects")
        listed = [json.loads(line) for line in rejects.splitlines()]
        self.assertEqual([r["row"] for r in listed], [1, 2, 3, 4, 5, 6])
        self.start(self.posthaste)
        self.wait_state(self.posthaste, "done")
        self.assertEqual(len(self.mx.messages), 5)

    def test_the_same_job_twice_is_one_campaign_and_another_under_its_id_is_refused(self):
        first = self.call(self.posthaste, "POST", "", JOB, expect=201)
        second = self.call(self.posthaste, "POST", "", JOB, expect=200)
        self.assertEqual(first["id"], second["id"])
        self.assertEqual(len(self.call(self.posthaste, "GET", "", expect=200)["campaigns"]), 1)
        status, _, answer = self.call(self.posthaste, "POST", "", {**JOB, "subject": "another", "tags": ["x"]})
        self.assertEqual(status, 409, answer)
        for word in ("spring", "subject", "tags"):
            self.assertIn(word, json.dumps(answer))
        self.assertEqual(self.call(self.posthaste, "GET", "/spring/job", expect=200)["subject"], JOB["subject"])
        self.assertFalse(self.mx.messages)

    def test_the_display_names_are_templates_and_break_out_of_nothing(self):
        import email
        import email.policy

        job = {**JOB, "from": {"name": "{{ agent }}, Äcme", "email": "news@acme.example"},
               "reply_to": [{"name": "{{ agent }}", "email": "help@acme.example"}]}
        self.assertIn("from", json.dumps(self.call(
            self.posthaste, "POST", "", {**job, "from": {"name": "{{ agent", "email": "news@acme.example"}}, expect=422)))
        self.call(self.posthaste, "POST", "", {**job, "on_missing": "error"}, expect=201)
        agents = ["Zoë", "<ceo@bank.example>, x", "a\r\nBcc: all@acme.example", "\"q\\", "=?utf-8?q?=0D=0ABcc:?="]
        items = rows(len(agents))
        for item, agent in zip(items, agents):
            item["vars"]["agent"] = agent
        self.upload(self.posthaste, items + [{"email": "none@d.example", "vars": {"first_name": "x", "town": "y"}}])
        status, _, answer = self.call(self.posthaste, "POST", "/spring/start", {})
        self.assertIn(status, (409, 422))
        self.assertIn("agent is missing in 1 of 6", json.dumps(answer))
        self.start(self.posthaste, force="only one lacks it")
        self.wait_state(self.posthaste, "done")
        self.assertEqual(len(self.mx.messages), len(agents))
        for message in self.mx.messages:
            parsed = email.message_from_bytes(message.octets, policy=email.policy.default)
            self.assertEqual([a.addr_spec for a in parsed["from"].addresses], ["news@acme.example"])
            self.assertEqual([a.addr_spec for a in parsed["reply-to"].addresses], ["help@acme.example"])
            self.assertIsNone(parsed["bcc"])
            if message.addresses[0] == "c0@d0.example":
                self.assertEqual(parsed["from"].addresses[0].display_name, "Zoë, Äcme")

    def test_a_compressed_list_that_broke_off_is_sent_again_and_nobody_is_there_twice(self):
        self.call(self.posthaste, "POST", "", JOB, expect=201)
        packed = gzip.compress(ndjson(rows(20_000)))
        head = {"Content-Type": "application/x-ndjson", "Upload-Offset": "0"}
        status, _, answer = self.call(self.posthaste, "PUT", "/spring/recipients", packed[:len(packed) // 2], headers=head)
        self.assertIn(status, (400, 422), answer)
        there = self.state(self.posthaste)["upload"]
        self.assertEqual(there["offset"], 0, "there is no place to go on from inside compressed data")
        self.assertIn(self.call(self.posthaste, "POST", "/spring/start", {})[0], (409, 422))
        self.call(self.posthaste, "PUT", "/spring/recipients", packed, headers=head, expect=200)
        upload = self.state(self.posthaste)["upload"]
        self.assertEqual((upload["read"], upload["accepted"], upload["duplicate"]), (20_000, 20_000, 0), upload)


class ErasureTest(CampaignCase):
    def test_what_waits_for_an_erased_person_goes_and_what_is_in_an_attempt_ends(self):
        held, reached = threading.Event(), threading.Event()
        self.addCleanup(held.set)
        slow = "c3@d3.example"

        def script(phase, session, argument):
            if phase == "rcpt" and b"later" in (argument if isinstance(argument, bytes) else str(argument).encode()):
                return b"450 4.2.1 later\r\n"
            if phase == "final" and any(slow in str(r) for r in session.rcpts):
                reached.set()
                held.wait(30)
            return None

        mx = self.sink(script)
        daemon = self.campaign_daemon(mx.port, retry=("1h",)).start()
        for to in (["later@d.example"], ["later@d.example", "later-too@d.example"]):
            status, _, answer = daemon.request("POST", "/v1/messages", {
                "from": "app@acme.example", "to": to, "subject": "s", "text": "the secret of later"}, key=SEND_KEY)
            self.assertEqual(status, 202, answer)
        daemon.wait_events("deferrals", lambda e: e["event"] == "deferred", 3)
        self.submit(daemon, rows(10))
        self.start(daemon)
        self.assertTrue(reached.wait(20))
        # What stands behind it on its connection waits as well.
        wait_for("it to be in flight", lambda: self.state(daemon)["in_flight"] >= 1)
        erase = lambda who: daemon.request("DELETE", f"/v1/contacts/any/{who}?erase=true", key=SEND_KEY)
        status, _, answer = erase("later@d.example")
        self.assertEqual((status, answer["messages"]), (200, 2), answer)
        purged = daemon.wait_events("both taken out", lambda e: e["event"] == "purged", 2)
        self.assertTrue(all("recipient" not in e or e["recipient"] is None for e in purged), purged)
        status, _, answer = erase(slow)
        self.assertEqual((status, answer["campaign_rows"]), (200, 1), answer)
        held.set()
        done = self.wait_state(daemon, "done")
        self.assertEqual((done["counts"]["delivered"], done["counts"]["cancelled"]), (10, 0), done)
        gone = lambda who: wait_for(f"no event of {who}", lambda: who not in json.dumps(daemon.events()))
        gone('"later@d.example"')
        gone(slow)
        # The other recipient of the second message still waits for it.
        left = command(BINARY, "queue", "list", "--config", daemon.config, "--json").stdout
        self.assertEqual(sum(q["count"] for q in json.loads(left)), 1, left)
        status, _, listed = daemon.request("GET", "/v1/trace?address=later@d.example")
        self.assertNotIn("later@d.example", json.dumps(listed.get("events", [])) if isinstance(listed, dict) else "")
