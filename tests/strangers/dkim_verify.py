"""Verifies the DKIM signatures of the messages in a folder with dkimpy.

Usage: dkim_verify.py FOLDER

FOLDER holds `*.eml` (octets as on the wire, without dot-stuffing) and `keys.json`: {"<selector>._domainkey.<domain>": "<record>"}.
Every DKIM-Signature of every message must verify, and each message must have at least one.
Prints what failed and ends with 1, or prints the number of verified signatures and ends with 0.
"""

import json
import pathlib
import sys

import dkim


def main() -> int:
    folder = pathlib.Path(sys.argv[1])
    keys = json.loads((folder / "keys.json").read_text())

    def dnsfunc(name, timeout=5):
        return keys[name.decode().rstrip(".")].encode()

    verified, failed = 0, []
    for path in sorted(folder.glob("*.eml")):
        message = path.read_bytes()
        checker = dkim.DKIM(message)
        signatures = [value for name, value in checker.headers if name.lower() == b"dkim-signature"]
        if not signatures:
            failed.append(f"{path.name}: no signature")
        for index in range(len(signatures)):
            try:
                good = dkim.DKIM(message).verify(idx=index, dnsfunc=dnsfunc)
            except Exception as error:  # what a verifier throws is what it thinks of the message
                failed.append(f"{path.name}[{index}]: {type(error).__name__}: {error}")
                continue
            if good:
                verified += 1
            else:
                failed.append(f"{path.name}[{index}]: does not verify")
    for line in failed:
        print(line)
    if not failed:
        print(verified)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
