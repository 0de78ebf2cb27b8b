"""Delivery status notifications, read by Python's email package."""

import email
import email.policy
import smtplib
import time

from lib import SENDER, Case, letter, wait_for


def script(phase, session, argument):
    if phase == "rcpt" and "reject" in argument:
        return b"550 5.1.1 no such user here\r\n"
    if phase == "rcpt" and "later" in argument:
        return b"451 4.3.0 later\r\n"


class DsnTest(Case):
    def begin(self, offers=None, **options):
        self.mx = self.sink(script, **({"offers": offers} if offers else {}))
        self.posthaste = self.daemon(self.mx.port, **options).start()

    def submit(self, to, mail_options=(), rcpt_options=(), sender=SENDER):
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.sendmail(sender, to, letter("original", "the body\r\n", to[0]), mail_options, rcpt_options)

    def reports(self, count=1, timeout=20):
        mine = lambda: [m for m in self.mx.messages if m.addresses == [SENDER]]
        wait_for(f"{count} reports\n{self.posthaste.tail()}", lambda: len(mine()) >= count, timeout)
        return mine()

    def parse(self, received):
        """(whole, fields of the message, fields of each recipient, original)."""
        self.assertTrue(received.mail.startswith("<>"), "RFC 3461 §6: a report has the null sender")
        whole = email.message_from_bytes(received.octets, policy=email.policy.default)
        self.assertEqual(whole.defects, [])
        self.assertEqual(whole.get_content_type(), "multipart/report")
        self.assertEqual(whole.get_param("report-type"), "delivery-status")
        self.assertIn(whole["Auto-Submitted"], ("auto-replied", "auto-generated"))
        self.assertIn(SENDER, whole["To"])
        self.assertTrue(whole["Message-ID"] and whole["Date"])
        parts = whole.get_payload()
        self.assertEqual(parts[0].get_content_maintype(), "text")
        self.assertEqual(parts[1].get_content_type(), "message/delivery-status")
        groups = parts[1].get_payload()
        self.assertTrue(groups[0]["Reporting-MTA"].startswith("dns;"))
        return whole, groups[0], groups[1:], parts[2] if len(parts) > 2 else None

    def test_failure(self):
        self.begin()
        self.submit(["reject@dest.example"], ["RET=FULL", "ENVID=order+3D7"],
                    ["NOTIFY=FAILURE", "ORCPT=rfc822;first+2Blast@dest.example"])
        _, message, recipients, original = self.parse(self.reports()[0])
        self.assertEqual(message["Original-Envelope-Id"], "order=7")
        self.assertEqual(len(recipients), 1)
        fields = recipients[0]
        self.assertEqual(fields["Action"], "failed")
        self.assertEqual(fields["Status"], "5.1.1")
        self.assertEqual(fields["Final-Recipient"].replace(" ", ""), "rfc822;reject@dest.example")
        self.assertEqual(fields["Original-Recipient"].replace(" ", ""), "rfc822;first+last@dest.example")
        self.assertIn("no such user here", fields["Diagnostic-Code"])
        self.assertIn("the body", original.as_string())
        self.assertEqual(original.get_content_type(), "message/rfc822")

    def test_headers_only(self):
        self.begin()
        self.submit(["reject@dest.example"], ["RET=HDRS"])
        received = self.reports()[0]
        _, _, _, original = self.parse(received)
        self.assertEqual(original.get_content_type(), "text/rfc822-headers")
        self.assertIn(b"Subject: original", received.octets)
        self.assertNotIn(b"the body", received.octets)

    def test_never(self):
        self.begin()
        self.submit(["reject@dest.example"], [], ["NOTIFY=NEVER"])
        self.submit(["reject2@dest.example"], [], ["NOTIFY=SUCCESS"])
        bounced = lambda e: e["event"] == "bounced"
        self.posthaste.wait_events("both bounced", bounced, 2)
        time.sleep(1)
        self.assertEqual(self.mx.messages, [])

    def test_no_report_for_a_null_sender(self):
        self.begin()
        with smtplib.SMTP("127.0.0.1", self.posthaste.relay, timeout=10) as client:
            client.ehlo()
            code, text = client.mail("")
            if code == 250:
                self.assertEqual(client.rcpt("reject@dest.example")[0], 250)
                client.data(letter("null"))
                self.posthaste.wait_events("bounced", lambda e: e["event"] == "bounced")
                time.sleep(1)
        self.assertEqual([m for m in self.mx.messages], [], (code, text))

    def test_success_is_passed_on_where_the_remote_knows_dsn(self):
        self.begin()
        self.submit(["u@dest.example"], ["RET=HDRS", "ENVID=e1"], ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;u@dest.example"])
        received = self.mx.wait(1)[0]
        self.assertIn("RET=HDRS", received.mail)
        self.assertIn("ENVID=e1", received.mail)
        self.assertIn("NOTIFY=SUCCESS,FAILURE", received.rcpts[0])
        self.assertIn("ORCPT=rfc822;u@dest.example", received.rcpts[0])
        time.sleep(1)
        self.assertEqual(len(self.mx.messages), 1, "the remote will report")

    def test_relayed_where_the_remote_does_not_know_dsn(self):
        self.begin(offers=("PIPELINING", "8BITMIME"))
        self.submit(["u@dest.example"], [], ["NOTIFY=SUCCESS"])
        _, _, recipients, _ = self.parse(self.reports()[0])
        self.assertEqual(recipients[0]["Action"], "relayed")
        self.assertTrue(recipients[0]["Status"].startswith("2."))

    def test_expired(self):
        self.begin(expire_after="3s")
        self.submit(["later@dest.example"])
        _, _, recipients, _ = self.parse(self.reports()[0])
        self.assertEqual(recipients[0]["Action"], "failed")
        self.assertIn("4.3.0", recipients[0]["Diagnostic-Code"] + recipients[0]["Status"])

    def test_delay(self):
        self.begin()
        with open(self.posthaste.config) as file:
            text = file.read()
        self.posthaste.stop()
        with open(self.posthaste.config, "w") as file:
            file.write(text.replace('delay_notice_after = "0s"', 'delay_notice_after = "2s"'))
        self.posthaste.start()
        self.submit(["later@dest.example"], [], ["NOTIFY=DELAY,FAILURE"])
        _, _, recipients, _ = self.parse(self.reports()[0])
        self.assertEqual(recipients[0]["Action"], "delayed")
        time.sleep(3)
        self.assertEqual(len(self.reports()), 1, "a delay is told once")

    def test_a_refused_report_ends_there(self):
        self.begin(route="")
        self.submit(["reject@dest.example"], sender="reject.me@acme.example")
        bounced = self.posthaste.wait_events("both bounced", lambda e: e["event"] in ("bounced", "failed"), 2)
        time.sleep(1)
        self.assertEqual(len(bounced), 2)
        self.assertEqual(self.mx.messages, [])
