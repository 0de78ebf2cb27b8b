"""What comes back: return paths, bounces, complaints, answers of machines and unsubscribes, brought by Python's smtplib."""

import re
import smtplib
import time

from lib import SENDER, Case, command, free_port, letter, wait_for, BINARY

DOMAIN = "bounce.acme.example"


def dsn(to, recipient, *, action="failed", status="5.1.1", text="550 5.1.1 no such user", original=""):
    return f"""From: Mail Delivery System <MAILER-DAEMON@mx.dest.example>\r
To: <{to}>\r
Subject: Undelivered Mail Returned to Sender\r
MIME-Version: 1.0\r
Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r
\r
--b\r
Content-Type: text/plain\r
\r
<{recipient}>: {text} (in reply to RCPT TO command)\r
--b\r
Content-Type: message/delivery-status\r
\r
Reporting-MTA: dns; mx.dest.example\r
\r
Final-Recipient: rfc822; {recipient}\r
Action: {action}\r
Status: {status}\r
Diagnostic-Code: smtp; {text}\r
\r
--b\r
Content-Type: message/rfc822\r
\r
{original}\r
--b--\r
"""


def arf(to, original):
    return f"""From: feedback@provider.example\r
To: <{to}>\r
Subject: complaint\r
MIME-Version: 1.0\r
Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r
\r
--b\r
Content-Type: text/plain\r
\r
This is an abuse report.\r
--b\r
Content-Type: message/feedback-report\r
\r
Feedback-Type: abuse\r
User-Agent: Loop/1.0\r
Version: 1\r
\r
--b\r
Content-Type: message/rfc822\r
\r
{original}\r
--b--\r
"""


class ReturnsTest(Case):
    def begin(self, script=None, extra=""):
        self.mx = self.sink(script)
        self.port = free_port()
        listener = f'[[smtp.listeners]]\naddress = "127.0.0.1:{self.port}"\nrole = "bounce"\n{extra}'
        self.posthaste = self.daemon(self.mx.port, tenant=f'bounce_domain = "{DOMAIN}"', extra=listener).start()

    def send(self, *to):
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.sendmail(SENDER, list(to), letter("hello", "the body\r\n", to[0]))

    def bring(self, to, mail, sender=""):
        """(code, text) of the refusal, or (250, ...)."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=10) as client:
            client.ehlo("mx.dest.example")
            client.mail(sender)
            code, text = client.rcpt(to)
            if code != 250:
                return code, text
            return client.data(mail.encode())

    def return_path(self, received):
        return received.mail[received.mail.index("<") + 1:received.mail.index(">")]

    def suppressed(self):
        status, _, page = self.posthaste.request("GET", "/v1/suppressions?tenant=acme")
        self.assertEqual(status, 200, page)
        return {row["address"]: row["reason"] for row in page["suppressions"]}

    def metric(self, name):
        _, _, text = self.posthaste.request("GET", "/metrics", key=None)
        found = re.search(re.escape(name) + r" (\d+)", text.decode())
        return int(found[1]) if found else 0

    def test_each_recipient_has_a_return_path_of_its_own_and_a_bounce_tells_which(self):
        self.begin()
        self.send("one@dest.example", "two@dest.example")
        self.mx.wait(2)
        paths = {m.addresses[0]: self.return_path(m) for m in self.mx.messages}
        self.assertEqual(set(paths), {"one@dest.example", "two@dest.example"})
        self.assertEqual(len(set(paths.values())), 2)
        for path in paths.values():
            self.assertRegex(path, r"^b-[a-z2-7]{40,62}@bounce\.acme\.example$")
        # The recipient has his mail sent on: the bounce names another address, the path says whom it is about.
        path = paths["two@dest.example"]
        code, text = self.bring(path.upper().replace(DOMAIN.upper(), DOMAIN), dsn(path, "elsewhere@far.example"))
        self.assertEqual(code, 250, text)
        late = self.posthaste.wait_events("the late bounce", lambda e: e["event"] == "bounced")[0]
        self.assertEqual(late["recipient"], "two@dest.example")
        self.assertEqual((late["late"], late["remote"], late["category"], late["fault"], late["suppress"]),
                         (True, True, "bad-mailbox", "recipient", True))
        self.assertEqual(late["smtp"]["enhanced"], "5.1.1")
        self.assertEqual(self.suppressed(), {"two@dest.example": "hard_bounce"})
        # Again: taken, and counted once.
        self.assertEqual(self.bring(path, dsn(path, "elsewhere@far.example"))[0], 250)
        time.sleep(0.3)
        self.assertEqual(len([e for e in self.posthaste.events() if e["event"] == "bounced"]), 1)
        self.assertEqual(self.metric('posthaste_returned_mails_total{kind="repeated"}'), 1)
        # What is suppressed is not sent to any more.
        self.send("two@dest.example")
        self.posthaste.wait_events("the suppression", lambda e: e["event"] == "suppressed")

    def test_what_is_not_ours_is_refused_in_the_session(self):
        self.begin()
        self.send("one@dest.example")
        path = self.return_path(self.mx.wait(1)[0])
        local = path.split("@")[0]
        forged = local[:-1] + ("a" if local[-1] != "a" else "b")
        for address in (f"{forged}@{DOMAIN}", f"{local[:-4]}@{DOMAIN}", f"nobody@{DOMAIN}", f"b-@{DOMAIN}",
                        f"{local}@acme.example", "someone@dest.example", f"bounce@{DOMAIN}"):
            self.assertEqual(self.bring(address, dsn(path, "one@dest.example"))[0], 550, address)
        self.assertEqual([e for e in self.posthaste.events() if e["event"] == "bounced"], [])
        self.assertEqual(self.suppressed(), {})
        self.assertGreaterEqual(self.metric('posthaste_returned_refused_total{reason="forged"}'), 2)

    def test_a_fault_that_is_not_the_recipients_suppresses_nobody(self):
        self.begin()
        self.send("one@dest.example")
        path = self.return_path(self.mx.wait(1)[0])
        text = "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"
        self.assertEqual(self.bring(path, dsn(path, "one@dest.example", status="5.7.1", text=text))[0], 250)
        late = self.posthaste.wait_events("the late bounce", lambda e: e["event"] == "bounced")[0]
        self.assertEqual((late["fault"], late["suppress"]), ("sender_ip", False))
        self.assertEqual(self.suppressed(), {})

    def test_a_delay_an_answer_of_a_machine_and_nonsense(self):
        self.begin()
        self.send("one@dest.example")
        path = self.return_path(self.mx.wait(1)[0])
        mail = dsn(path, "one@dest.example", action="delayed", status="4.4.1", text="connect timed out")
        self.assertEqual(self.bring(path, mail)[0], 250)
        self.posthaste.wait_events("the delay", lambda e: e["event"] == "deferred" and e.get("late"))
        away = f"From: one@dest.example\r\nTo: {path}\r\nSubject: Out of office\r\nAuto-Submitted: auto-replied\r\n\r\nI am away.\r\n"
        self.assertEqual(self.bring(path, away, "one@dest.example")[0], 250)
        event = self.posthaste.wait_events("the answer", lambda e: e["event"] == "auto_replied")[0]
        self.assertIn("away", event["reason"])
        self.assertEqual(self.bring(path, "\r\n\xff\r\n")[0], 250)
        self.assertEqual(self.bring(path, dsn(path, "x@y.example")[:300])[0], 250)
        self.assertEqual(self.suppressed(), {})
        self.assertGreaterEqual(self.metric('posthaste_returned_mails_total{kind="unread"}'), 1)

    def test_a_complaint_is_found_by_the_return_path_in_what_it_encloses(self):
        self.begin()
        self.send("one@dest.example")
        received = self.mx.wait(1)[0]
        path = self.return_path(received)
        original = f"Return-Path: <{path}>\r\nFrom: {SENDER}\r\nTo: redacted\r\nSubject: hello\r\n\r\nthe body"
        # Without a token of ours it changes nothing.
        self.assertEqual(self.bring(f"fbl@{DOMAIN}", arf(f"fbl@{DOMAIN}", "From: a@b.example\r\nTo: one@dest.example\r\n\r\nx"))[0], 250)
        self.assertEqual(self.suppressed(), {})
        self.assertEqual(self.bring(f"fbl@{DOMAIN}", arf(f"fbl@{DOMAIN}", original))[0], 250)
        event = self.posthaste.wait_events("the complaint", lambda e: e["event"] == "complained")[0]
        self.assertEqual(event["recipient"], "one@dest.example")
        self.assertEqual(self.suppressed(), {"one@dest.example": "complaint"})

    def test_a_refusal_in_the_session_suppresses_who_does_not_exist(self):
        def script(phase, session, argument):
            if phase == "rcpt" and "gone" in argument:
                return b"550 5.1.1 user unknown\r\n"
            if phase == "rcpt" and "blocked" in argument:
                return b"550 5.7.1 your IP is on our block list\r\n"
            if phase == "rcpt" and "full" in argument:
                return b"550 5.2.2 mailbox is full\r\n"

        self.begin(script, extra="[bounces]\nsoft_limit = 2\n")
        self.send("gone@dest.example", "blocked@dest.example", "full@dest.example")
        self.posthaste.wait_events("three bounces", lambda e: e["event"] == "bounced", 3)
        by = {e["recipient"]: e for e in self.posthaste.events() if e["event"] == "bounced"}
        self.assertEqual(by["gone@dest.example"]["category"], "bad-mailbox")
        self.assertEqual(by["blocked@dest.example"]["fault"], "sender_ip")
        self.assertEqual(by["full@dest.example"]["category"], "quota-issues")
        self.assertEqual(self.suppressed(), {"gone@dest.example": "hard_bounce"})
        # The second soft bounce is one too many.
        self.send("full@dest.example")
        wait_for("the soft bounces to count", lambda: "full@dest.example" in self.suppressed())
        self.assertNotIn("blocked@dest.example", self.suppressed())

    def test_the_counts_survive_kill_9(self):
        self.begin()
        self.send("one@dest.example")
        path = self.return_path(self.mx.wait(1)[0])
        self.posthaste.wait_events("the delivery", lambda e: e["event"] == "delivered")
        self.assertEqual(self.bring(path, dsn(path, "one@dest.example"))[0], 250)
        self.posthaste.kill()
        self.posthaste.start()
        self.assertEqual(self.bring(path, dsn(path, "one@dest.example"))[0], 250)
        self.assertEqual(len([e for e in self.posthaste.events() if e["event"] == "bounced"]), 1)
        self.assertEqual(self.suppressed(), {"one@dest.example": "hard_bounce"})

    def test_the_command_reads_files(self):
        path = self.path("bounce.eml")
        with open(path, "w", newline="") as file:
            file.write(dsn("a@acme.example", "one@dest.example"))
        done = command(BINARY, "bounce", "read", "--json", path)
        self.assertIn('"recipient":"one@dest.example"', done.stdout)
        self.assertIn('"class":"bad-mailbox"', done.stdout)
        done = command(BINARY, "bounce", "read", "--json", "-", stdin="nothing\n", check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn('"kind":"other"', done.stdout)
