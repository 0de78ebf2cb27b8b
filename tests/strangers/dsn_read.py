"""Reads a delivery status notification from standard input with Python's email package and prints as JSON what is in it."""

import email
import email.policy
import json
import sys

message = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
parts = list(message.iter_parts())
status = []
for part in parts:
    if part.get_content_type() == "message/delivery-status":
        status = [{key: " ".join(str(value).split()) for key, value in block.items()} for block in part.get_payload()]
original = parts[2]
inner = original.get_payload(0) if original.get_content_type() == "message/rfc822" else None
json.dump(
    {
        "type": message.get_content_type(),
        "report_type": message.get_param("report-type"),
        "auto_submitted": message["Auto-Submitted"],
        "parts": [part.get_content_type() for part in parts],
        "text": parts[0].get_content(),
        "status": status,
        "original_subject": inner["Subject"] if inner is not None else None,
        "defects": [repr(defect) for part in message.walk() for defect in part.defects],
    },
    sys.stdout,
)
