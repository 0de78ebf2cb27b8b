"""Campaigns: what arrives at strangers, what a pause, a kill and a repeat do, and what bad input is told."""

import collections
import email
import email.header
import email.policy
import gzip
import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.request

from lib import OPS_KEY, SEND_KEY, BINARY, Case, command, dkim_records, free_port, wait_for

SEED = int(os.environ.get("STRANGERS_SEED", "1"))
ROWS = int(os.environ.get("STRANGERS_ROWS", "6000"))
KILLS = int(os.environ.get("STRANGERS_KILLS", "4"))
UNSETTLED = 256  # [delivery] max_unsettled
IN_FLIGHT = 100  # 20 connections of the route, each with one message and up to four ahead

JOB = {
    "id": "spring",
    "from": "Äcme News <news@acme.example>",
    "reply_to": ["help@acme.example"],
    "subject": "{{ first_name }}: neue Blüten für {{ town }}",
    "text": "Liebe(r) {{ first_name }},\n\nin {{ town }} blüht es.\n.\n.. Punkte am Anfang\n\n{{ unsubscribe_url }}\n",
    "html": "<html><body><p>Liebe(r) {{ first_name }},</p><p>in {{ town }} blüht es.</p>"
            "<p><a href=\"{{ unsubscribe_url }}\">Abmelden</a></p></body></html>",
    "list": "news",
    "tags": ["spring"],
    "metadata": {"run": 7},
}


def rows(count, domains=7):
    return [{"email": f"c{n}@d{n % domains}.example", "name": f"Kundin {n}",
             "vars": {"first_name": f"Zoë {n}", "town": ["Lyon", "Zürich", "Kraków"][n % 3], "age": 18 + n % 50}}
            for n in range(count)]


def ndjson(items):
    return b"".join(json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in items)


class CampaignCase(Case):
    limit = 240

    def campaign_daemon(self, sink_port, **options):
        self.public = free_port()
        extra = options.pop("extra", "") + f"""
[public]
address = "127.0.0.1:{self.public}"
url = "https://links.acme.example"
"""
        return self.daemon(sink_port, extra=extra, **options)

    def call(self, daemon, method, path, body=None, key=SEND_KEY, headers=None, expect=None):
        status, head, answer = daemon.request(method, f"/v1/campaigns{path}", body, key=key, headers=headers, timeout=60)
        if expect:
            self.assertIn(status, expect if isinstance(expect, tuple) else (expect,), (path, answer))
        return answer if expect else (status, head, answer)

    def upload(self, daemon, items, id="spring", expect=(200, 202), **headers):
        head = {"Content-Type": "application/x-ndjson", **{k.replace("_", "-"): v for k, v in headers.items()}}
        data = items if isinstance(items, bytes) else ndjson(items)
        return self.call(daemon, "PUT", f"/{id}/recipients", data, headers=head, expect=expect)

    def state(self, daemon, id="spring"):
        return self.call(daemon, "GET", f"/{id}", expect=200)

    def wait_state(self, daemon, *states, id="spring", timeout=90):
        return wait_for(f"campaign {id} to be {states}",
                        lambda: (c := self.state(daemon, id))["state"] in states and c, timeout, 0.1)

    def submit(self, daemon, items, job=None):
        made = self.call(daemon, "POST", "", {**JOB, **(job or {})}, expect=(200, 201))
        self.upload(daemon, items, made["id"])
        return made["id"]

    def start(self, daemon, id="spring", **body):
        return self.call(daemon, "POST", f"/{id}/start", body, expect=202)


class CampaignContentTest(CampaignCase):
    def test_messages_are_right_for_strangers(self):
        mx = self.sink()
        daemon = self.campaign_daemon(mx.port, dkim=True).start()
        self.submit(daemon, rows(30))
        self.start(daemon)
        messages = mx.wait(30)
        done = self.wait_state(daemon, "done")
        self.assertEqual(done["counts"]["delivered"], 30, done)
        ids = set()
        for message in messages:
            parsed = email.message_from_bytes(message.octets, policy=email.policy.default)
            self.assertFalse(parsed.defects)
            address = message.addresses[0]
            number = int(address[1:address.index("@")])
            town = ["Lyon", "Zürich", "Kraków"][number % 3]
            self.assertEqual(parsed["subject"], f"Zoë {number}: neue Blüten für {town}")
            self.assertEqual(parsed["from"].addresses[0].display_name, "Äcme News")
            self.assertEqual(parsed["to"].addresses[0].addr_spec, address)
            self.assertEqual(parsed.get_content_type(), "multipart/alternative")
            text = parsed.get_body(("plain",)).get_content()
            self.assertIn(f"Liebe(r) Zoë {number},", text)
            self.assertIn("\n.\n.. Punkte", text.replace("\r\n", "\n"))
            html = parsed.get_body(("html",)).get_content()
            self.assertIn(f"in {town} blüht es", html)
            self.assertRegex(parsed["list-unsubscribe"], r"<https://links\.acme\.example/")
            self.assertEqual(parsed["list-unsubscribe-post"], "List-Unsubscribe=One-Click")
            self.assertNotIn(address, parsed["list-unsubscribe"])
            ids.add(parsed["message-id"])
            for line in message.octets.split(b"\r\n"):
                self.assertLessEqual(len(line), 998)
                self.assertNotIn(b"\n", line)
        self.assertEqual(len(ids), 30)

    def test_signatures_verify_and_cover_the_unsubscribe(self):
        import dkim

        mx = self.sink()
        daemon = self.campaign_daemon(mx.port, dkim=True).start()
        self.submit(daemon, rows(5))
        self.start(daemon)
        records = dkim_records()
        lookup = lambda name, timeout=5: records.get(name.decode().rstrip("."), "").encode() or None
        for message in mx.wait(5):
            fields = re.findall(rb"(?ims)^DKIM-Signature:.*?\r\n(?![ \t])", message.octets)
            self.assertEqual(len(fields), 2)
            for n, field in enumerate(fields):
                verifier = dkim.DKIM(message.octets)
                self.assertTrue(verifier.verify(idx=n, dnsfunc=lookup), field)
                signed = re.sub(rb"\s", b"", field).lower()
                self.assertIn(b"list-unsubscribe:", signed.replace(b";", b":"))
                self.assertIn(b"list-unsubscribe-post", signed)

    def test_a_retry_has_the_same_content(self):
        seen = collections.defaultdict(list)

        def script(phase, session, argument):
            if phase == "final":
                return b"451 4.3.0 later\r\n" if len(seen["tries"]) < 5 and not seen["tries"].append(1) else None

        mx = self.sink(script)
        daemon = self.campaign_daemon(mx.port).start()
        self.submit(daemon, rows(5))
        self.start(daemon)
        self.wait_state(daemon, "done")
        self.assertEqual(len(set(mx.addresses())), 5)
        deferred = [e for e in daemon.events() if e["event"] == "deferred"]
        self.assertEqual(len(deferred), 5)
        for message in mx.messages:
            self.assertIn(b"Message-ID: <", message.octets)

    def test_no_variable_breaks_out_of_a_header(self):
        mx = self.sink()
        daemon = self.campaign_daemon(mx.port).start()
        evil = "x\r\nBcc: victim@example.org\r\n\r\nbody"
        self.submit(daemon, [{"email": "a@d.example", "name": evil, "vars": {"first_name": evil, "town": "<b>&"}}])
        self.start(daemon)
        message = mx.wait(1)[0]
        parsed = email.message_from_bytes(message.octets, policy=email.policy.default)
        self.assertIsNone(parsed["bcc"])
        self.assertNotIn("\n", parsed["subject"])
        self.assertIn("&lt;b&gt;&amp;", parsed.get_body(("html",)).get_content())
        self.assertIn("<b>&", parsed.get_body(("plain",)).get_content())

    def test_one_click_unsubscribes_and_the_next_campaign_leaves_them_out(self):
        mx = self.sink()
        daemon = self.campaign_daemon(mx.port).start()
        self.submit(daemon, rows(3))
        self.start(daemon)
        message = next(m for m in mx.wait(3) if m.addresses == ["c1@d1.example"])
        parsed = email.message_from_bytes(message.octets, policy=email.policy.default)
        url = re.search(r"<https://links\.acme\.example(/[^>]+)>", str(parsed["list-unsubscribe"]).replace(" ", "")).group(1)
        local = f"http://127.0.0.1:{self.public}{url}"
        with urllib.request.urlopen(local, timeout=10) as page:
            self.assertEqual(page.status, 200)
        self.assertFalse([e for e in daemon.events() if e["event"] == "unsubscribed"], "a GET only shows a page")
        post = urllib.request.Request(local, data=b"List-Unsubscribe=One-Click", method="POST")
        with urllib.request.urlopen(post, timeout=10) as answer:
            self.assertEqual(answer.status, 200)
        event = daemon.wait_events("the event", lambda e: e["event"] == "unsubscribed")[0]
        self.assertEqual((event["recipient"], event["campaign"]), ("c1@d1.example", "spring"))
        with self.assertRaises(urllib.error.HTTPError) as wrong:
            broken = urllib.request.Request(local[:-4] + "AAAA", data=b"List-Unsubscribe=One-Click", method="POST")
            urllib.request.urlopen(broken, timeout=10)
        self.assertEqual(wrong.exception.code, 404)
        self.wait_state(daemon, "done")
        self.submit(daemon, rows(3), {"id": "summer"})
        self.start(daemon, "summer")
        done = self.wait_state(daemon, "done", id="summer")
        self.assertEqual(mx.addresses().count("c1@d1.example"), 1)
        self.assertEqual(mx.addresses().count("c0@d0.example"), 2)
        self.assertEqual(done["counts"]["delivered"], 2)
        # What is asked for by a person is not held back by an unsubscribe.
        status, _, _ = daemon.request("POST", "/v1/messages", {
            "from": "app@acme.example", "to": ["c1@d1.example"], "subject": "receipt", "text": "x"}, key=SEND_KEY)
        self.assertEqual(status, 202)
        wait_for("the receipt", lambda: mx.addresses().count("c1@d1.example") == 2)


    def test_an_audience_is_sent_to_and_a_person_is_erased(self):
        mx = self.sink()
        daemon = self.campaign_daemon(mx.port).start()
        listed = b"email,first_name,town,age\n" + b"".join(b"p%d@d.example,N%d,Lyon,%d\n" % (n, n, 15 + n) for n in range(6))
        status, _, answer = daemon.request("PUT", "/v1/contacts/customers?types=age%3Dnumber", listed, key=SEND_KEY,
                                           headers={"Content-Type": "text/csv"})
        self.assertEqual(status, 200, answer)
        self.call(daemon, "POST", "", {**JOB, "id": "aud", "audience": "customers", "segment": "age >= 18"}, expect=201)
        self.start(daemon, "aud")
        self.wait_state(daemon, "done", id="aud")
        self.assertEqual(sorted(mx.addresses()), ["p3@d.example", "p4@d.example", "p5@d.example"])
        gone = lambda: "p4@d.example" not in json.dumps(daemon.events())
        self.assertFalse(gone())
        status, _, answer = daemon.request("DELETE", "/v1/contacts/customers/p4@d.example?erase=true", key=SEND_KEY)
        self.assertEqual((status, answer["campaign_rows"]), (200, 1), answer)
        wait_for("the events to lose the address", gone)
        status, _, _ = daemon.request("GET", "/v1/contacts/customers/p4@d.example", key=SEND_KEY)
        self.assertEqual(status, 404)
        status, _, _ = self.call(daemon, "POST", "/aud/preview", {"address": "p4@d.example"})
        self.assertIn(status, (404, 422))
        self.assertEqual(self.state(daemon, "aud")["counts"]["delivered"], 3)


class CampaignControlTest(CampaignCase):
    def test_pause_holds_at_once_and_resume_repeats_none(self):
        mx = self.sink()
        daemon = self.campaign_daemon(mx.port).start()
        self.submit(daemon, rows(ROWS))
        self.start(daemon)
        wait_for("some to arrive", lambda: len(mx.messages) > ROWS // 10)
        paused = self.call(daemon, "POST", "/spring/pause", {"reason": "wrong price"}, expect=202)
        time.sleep(0.7)
        at_pause = len(mx.messages)
        self.assertLess(at_pause, ROWS, "the pause came too late to show anything")
        time.sleep(1)
        self.assertEqual(len(mx.messages), at_pause)
        self.assertIn("in_flight", paused)
        self.assertEqual(self.state(daemon)["state"], "paused")
        self.call(daemon, "POST", "/spring/resume", {}, expect=202)
        done = self.wait_state(daemon, "done")
        self.assertEqual(done["counts"]["delivered"], ROWS)
        counts = collections.Counter(mx.addresses())
        self.assertEqual((len(counts), max(counts.values())), (ROWS, 1))

    def test_kill_9_amid_a_campaign_loses_nobody_and_bounds_duplicates(self):
        rng = random.Random(SEED)
        mx = self.sink()
        daemon = self.campaign_daemon(mx.port).start()
        # So fast that every kill comes amid it, on whatever machine.
        self.submit(daemon, rows(ROWS), {"rate": f"{ROWS // (2 * KILLS)}/s"})
        self.start(daemon)
        for n in range(KILLS):
            time.sleep(rng.uniform(0.1, 0.6))
            if n % 2 == 1:
                self.call(daemon, "POST", "/spring/pause", {})
            daemon.kill()
            daemon.start()
            if n % 2 == 1:
                time.sleep(0.7)
                before = len(mx.messages)
                time.sleep(0.5)
                self.assertEqual(len(mx.messages), before, "a pause holds over a restart")
                self.call(daemon, "POST", "/spring/resume", {}, expect=202)
        done = self.wait_state(daemon, "done")
        counts = collections.Counter(mx.addresses())
        duplicates = sum(n - 1 for n in counts.values())
        print(f"        {ROWS} recipients, {KILLS} kills, {duplicates} duplicates", flush=True)
        self.assertEqual(len(counts), ROWS)
        self.assertEqual(done["counts"]["delivered"], ROWS)
        self.assertLessEqual(duplicates, KILLS * (UNSETTLED + IN_FLIGHT))

    def test_the_same_job_and_list_again_sends_nothing(self):
        mx = self.sink()
        daemon = self.campaign_daemon(mx.port).start()
        self.submit(daemon, rows(20))
        self.start(daemon)
        self.wait_state(daemon, "done")
        status, _, again = self.call(daemon, "POST", "", JOB)
        self.assertEqual((status, again["id"], again["state"]), (200, "spring", "done"))
        status, _, answer = self.call(daemon, "PUT", "/spring/recipients", ndjson(rows(20)),
                                      headers={"Content-Type": "application/x-ndjson"})
        self.assertIn(status, (200, 202, 409), answer)
        self.call(daemon, "POST", "/spring/start", {})
        other = {**JOB, "subject": "another"}
        status, _, answer = self.call(daemon, "POST", "", other)
        self.assertEqual(status, 409, answer)
        self.assertIn("spring", json.dumps(answer))
        time.sleep(1.5)
        self.assertEqual(len(mx.messages), 20)

    def test_cancel_ends_it(self):
        mx = self.sink()
        daemon = self.campaign_daemon(mx.port).start()
        self.submit(daemon, rows(ROWS), {"rate": "200/s"})
        self.start(daemon)
        wait_for("some to arrive", lambda: len(mx.messages) > 50)
        self.call(daemon, "POST", "/spring/cancel", {"reason": "no"}, expect=202)
        time.sleep(1)
        at_cancel = len(mx.messages)
        time.sleep(1)
        self.assertEqual(len(mx.messages), at_cancel)
        ended = self.wait_state(daemon, "cancelled")
        counts = ended["counts"]
        self.assertEqual(counts["delivered"] + counts["cancelled"], ROWS, counts)
        self.assertEqual(counts["delivered"], at_cancel)

    def test_rate_is_kept(self):
        mx = self.sink()
        daemon = self.campaign_daemon(mx.port).start()
        self.submit(daemon, rows(400), {"rate": "100/s"})
        began = time.monotonic()
        self.start(daemon)
        mx.wait(400)
        self.assertGreater(time.monotonic() - began, 2.9)

    def test_it_halts_by_its_own_condition(self):
        mx = self.sink(lambda phase, session, argument: b"550 5.1.1 no such user\r\n" if phase == "rcpt" else None)
        daemon = self.campaign_daemon(mx.port).start()
        self.submit(daemon, rows(2000), {"rate": "300/s", "stop_if": {"hard_bounce_rate": 0.1, "minimum": 100}})
        self.start(daemon)
        halted = self.wait_state(daemon, "halted")
        self.assertGreaterEqual(halted["counts"]["bounced"], 100)
        self.assertLess(halted["counts"]["bounced"], 2000)
        daemon.wait_events("the event", lambda e: e["event"] == "campaign_halted")

    def test_the_command_line_goes_the_whole_way(self):
        mx = self.sink()
        daemon = self.campaign_daemon(mx.port).start()
        job, html, listed = self.path("job.toml"), self.path("mail.html"), self.path("list.csv.gz")
        with open(html, "w") as file:
            file.write("<p>Hi {{ first_name }}</p><p><a href=\"{{ unsubscribe_url }}\">out</a></p>")
        with open(job, "w") as file:
            file.write('id = "cli"\nfrom = "news@acme.example"\nsubject = "Hi {{ first_name }}"\n'
                       'html_file = "mail.html"\ntest_recipients = ["boss@acme.example"]\n')
        with gzip.open(listed, "wt") as file:
            file.write("E-Mail;first_name\n" + "".join(f"u{n}@d.example;N{n}\n" for n in range(40)) + "broken;x\nu1@d.example;twice\n")
        run = lambda *args: command(BINARY, "campaign", *args, "--config", daemon.config)
        run("submit", job, "--recipients", listed)
        self.assertIn("1 invalid", run("status", "cli").stdout)
        self.assertIn("broken", run("rejects", "cli", "--csv").stdout)
        self.assertIn("Hi N3", run("preview", "cli", "--as", "u3@d.example").stdout)
        run("test", "cli")
        test = mx.wait(1)[0]
        self.assertIn(b"[TEST]", test.octets)
        run("start", "cli", "--watch")
        self.assertEqual(len([a for a in mx.addresses() if a.startswith("u")]), 40)
        self.assertIn("done", run("list").stdout)
        again = run("submit", job, "--recipients", listed, "--start")
        self.assertIn("nothing is uploaded or sent again", again.stdout)


class CampaignBadInputTest(CampaignCase):
    def setUp(self):
        super().setUp()
        self.mx = self.sink()
        self.posthaste = self.campaign_daemon(self.mx.port).start()

    def problem(self, method, path, body, status, *words, **headers):
        found, _, answer = self.call(self.posthaste, method, path, body, headers=headers or None)
        text = json.dumps(answer, ensure_ascii=False) if not isinstance(answer, bytes) else answer.decode()
        self.assertIn(found, status if isinstance(status, tuple) else (status,), text)
        for word in words:
            self.assertIn(word, text)

    def test_a_job_with_an_unknown_field(self):
        self.problem("POST", "", {**JOB, "subjct": "x"}, (400, 422), "subjct", "subject")
        self.problem("POST", "", {**JOB, "from": "nobody"}, (400, 422), "from")
        self.problem("POST", "", {**JOB, "html": "<p>{{ first_name </p>"}, (400, 422), "html", "line")
        self.problem("POST", "", {**JOB, "segment": "age >"}, (400, 422), "segment")
        self.problem("POST", "", b"{", (400, 422), **{"Content-Type": "application/json"})

    def test_broken_rows_are_counted_and_told(self):
        self.call(self.posthaste, "POST", "", JOB, expect=201)
        items = ndjson(rows(3)) + b"{not json}\n" + b'{"email":"no at sign"}\n' + ndjson(rows(1))
        self.upload(self.posthaste, items)
        upload = self.state(self.posthaste)
        text = json.dumps(upload)
        self.assertIn('"invalid": 2', text)
        self.assertIn('"duplicate": 1', text)
        status, _, rejects = self.call(self.posthaste, "GET", "/spring/rejects")
        self.assertEqual(status, 200)
        text = rejects.decode() if isinstance(rejects, bytes) else json.dumps(rejects)
        self.assertIn("no at sign", text)
        self.assertIn("4", text)

    def test_an_endless_template_ends(self):
        job = {**JOB, "text": "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}", "html": None}
        status, _, answer = self.call(self.posthaste, "POST", "", job)
        if status == 201:
            self.upload(self.posthaste, rows(3))
            status, _, answer = self.call(self.posthaste, "POST", "/spring/start", {"force": "see what happens"})
            if status == 202:
                done = self.wait_state(self.posthaste, "done", "halted")
                self.assertEqual(done["counts"]["rendering_failed"], 3, done)
        self.assertFalse(self.mx.messages)

    def test_a_list_without_line_ends_is_refused_early(self):
        self.call(self.posthaste, "POST", "", JOB, expect=201)
        sent = threading.Event()

        def endless():
            piece = b"x" * 65536
            for _ in range(4096):  # 256 MiB at the most
                if sent.is_set():
                    return
                yield piece

        import http.client

        client = http.client.HTTPConnection("127.0.0.1", self.posthaste.http, timeout=60)
        try:
            client.request("PUT", "/v1/campaigns/spring/recipients", body=endless(), encode_chunked=True,
                           headers={"Authorization": f"Bearer {SEND_KEY}", "Content-Type": "text/csv",
                                    "Transfer-Encoding": "chunked"})
            answer = client.getresponse()
            self.assertIn(answer.status, (400, 413, 422))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it closed while we were still sending: refused as well
        finally:
            sent.set()
            client.close()
        with open(f"/proc/{self.posthaste.process.pid}/status") as status:
            resident = int(re.search(r"VmHWM:\s+(\d+)", status.read()).group(1))
        self.assertLess(resident, 300_000, "kB")
        self.assertEqual(self.posthaste.request("GET", "/readyz")[0], 200)

    def test_a_segment_of_the_wrong_type_says_so(self):
        self.call(self.posthaste, "POST", "", {**JOB, "id": "segment", "segment": "town > 7"}, expect=201)
        self.upload(self.posthaste, rows(5), "segment")
        status, _, rejects = self.call(self.posthaste, "GET", "/segment/rejects")
        self.assertIn("town", rejects.decode() if isinstance(rejects, bytes) else json.dumps(rejects))
        self.call(self.posthaste, "POST", "", JOB, expect=201)
        self.upload(self.posthaste, rows(5))
        status, _, answer = self.call(self.posthaste, "POST", "/spring/preview", {"segment": "town > 7"})
        self.assertIn("town", json.dumps(answer))
        self.call(self.posthaste, "POST", "/segment/start", {})
        time.sleep(1)
        self.assertFalse(self.mx.messages)

    def test_missing_variables_are_found_before_the_start(self):
        self.call(self.posthaste, "POST", "", {**JOB, "on_missing": "error"}, expect=201)
        some = rows(4)
        del some[2]["vars"]["first_name"]
        self.upload(self.posthaste, some)
        status, _, answer = self.call(self.posthaste, "POST", "/spring/start", {})
        self.assertIn(status, (409, 422), answer)
        self.assertIn("first_name", json.dumps(answer))
        self.assertFalse(self.mx.messages)
