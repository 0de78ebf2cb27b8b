"""Reads a message from standard input with Python's email package and prints as JSON what is in it."""

import email
import email.policy
import json
import sys


def structure(part):
    if part.is_multipart():
        return {part.get_content_subtype(): [structure(inner) for inner in part.iter_parts()]}
    return part.get_content_subtype()


message = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
leaves = [part for part in message.walk() if not part.is_multipart()]
json.dump(
    {
        "subject": message["Subject"],
        "from": [[address.display_name, address.addr_spec] for address in message["From"].addresses],
        "to": [[address.display_name, address.addr_spec] for address in message["To"].addresses],
        "structure": structure(message),
        "texts": [part.get_content().replace("\r\n", "\n") for part in leaves if part.get_content_maintype() == "text"],
        "files": [
            [part.get_filename(), part["Content-ID"], list(part.get_content())]
            for part in leaves
            if part.get_content_maintype() != "text"
        ],
        "defects": [repr(defect) for part in message.walk() for defect in part.defects]
        + [repr(defect) for _, value in message.items() for defect in value.defects],
    },
    sys.stdout,
)
