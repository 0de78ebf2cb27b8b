"""What the tests against strangers share: a daemon with a config of its own, receivers that obey or misbehave, and waiting.

Everything runs on loopback, on free ports, in a temporary folder; every wait has an end; every process that is started
is ended by its own id.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

BINARY = os.environ.get("POSTHASTE_BIN", "")
PASSWORD = "correct horse battery"
OPS_KEY = "ops-key-of-the-strangers"
SEND_KEY = "send-key-of-the-strangers"
SENDER = "app@acme.example"


_PORTS = []  # handed out lately: one daemon takes several before it listens on any


def free_port():
    """A port that is free now. The system hands ports out in turn, so that it's not given again soon."""
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if port not in _PORTS:
            _PORTS.append(port)
            del _PORTS[:-64]
            return port


def wait_for(what, check, timeout=20.0, pause=0.02):
    """Calls `check` until it answers something true, and returns that."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:g} s for {what}")
        time.sleep(pause)


def tool(name):
    """The path of a program; a missing one fails the test and names it."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if not path:
        raise AssertionError(f"{name} is not installed (see the head of tests/strangers/run)")
    return path


def command(*args, stdin=None, timeout=60, check=True):
    """Runs a program to its end; its output as text."""
    done = subprocess.run([str(a) for a in args], input=stdin, capture_output=True, timeout=timeout, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"{args[0]} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


class Case(unittest.TestCase):
    """A test with a temporary folder and an alarm."""

    limit = 60  # seconds a test may take

    def setUp(self):
        def ring(_signal, _frame):
            raise TimeoutError(f"the test took longer than {self.limit} s")

        signal.signal(signal.SIGALRM, ring)
        signal.alarm(self.limit)
        self.addCleanup(signal.alarm, 0)
        self.folder = tempfile.mkdtemp(prefix="strangers-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def sink(self, script=None, **options):
        sink = Sink(script, **options)
        self.addCleanup(sink.close)
        return sink

    def daemon(self, sink_port, **options):
        daemon = Daemon(self.folder, sink_port, **options)
        self.addCleanup(daemon.end)
        return daemon


@functools.cache
def _keys():
    """Keys, certificate and password hash, made once a run: (folder, hash)."""
    folder = tempfile.mkdtemp(prefix="strangers-keys-")
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    openssl = tool("openssl")
    command(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem")
    command(openssl, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", f"{folder}/rsa.pem")
    command(openssl, "genpkey", "-algorithm", "ED25519", "-out", f"{folder}/ed25519.pem")
    for name in ("key", "rsa", "ed25519"):
        os.chmod(f"{folder}/{name}.pem", 0o600)
    hashed = command(BINARY, "hash-password", stdin=PASSWORD + "\n").stdout.strip()
    if not hashed.startswith("$argon2id$"):
        raise AssertionError(f"hash-password printed {hashed!r}")
    return folder, hashed


def public_key(name):
    """The base64 of a DKIM record's p= for the key with this name: `rsa` or `ed25519`."""
    import base64

    der = subprocess.run([tool("openssl"), "pkey", "-in", f"{_keys()[0]}/{name}.pem", "-pubout", "-outform", "DER"],
                         capture_output=True, check=True, timeout=30).stdout
    # RFC 8463 §4: an Ed25519 key is its bare 32 octets, an RSA key its SubjectPublicKeyInfo.
    return base64.b64encode(der[-32:] if name == "ed25519" else der).decode()


def dkim_records():
    """The TXT records of both keys, by name."""
    return {
        "r1._domainkey.acme.example": f"v=DKIM1; k=rsa; p={public_key('rsa')}",
        "e1._domainkey.acme.example": f"v=DKIM1; k=ed25519; p={public_key('ed25519')}",
    }


class Daemon:
    """A Posthaste of our own, from its config to its end."""

    def __init__(self, folder, sink_port, *, dkim=False, durability="fsync", retry=("1s", "1s", "1s"),
                 expire_after="1h", top="", tenant="", extra="", route="", data_dir=None, min_free="64MiB",
                 prefix=()):
        self.folder = folder
        self.data_dir = data_dir or os.path.join(folder, "data")
        self.config = os.path.join(folder, "posthaste.toml")
        self.log = os.path.join(folder, "posthaste.log")
        self.relay, self.starttls, self.implicit, self.http = (free_port() for _ in range(4))
        self.process = None
        self.prefix = list(prefix)  # a program that runs it: strace
        keys, hashed = _keys()
        sha = lambda key: hashlib.sha256(key.encode()).hexdigest()
        text = f"""
hostname = "mta.strangers.example"
data_dir = "{self.data_dir}"
durability = "{durability}"
{top}
[[smtp.listeners]]
address = "127.0.0.1:{self.relay}"
role = "relay"
relay_from = ["127.0.0.0/8"]
[[smtp.listeners]]
address = "127.0.0.1:{self.starttls}"
role = "submission"
tls = "starttls"
[[smtp.listeners]]
address = "127.0.0.1:{self.implicit}"
role = "submission"
tls = "implicit"
[tls]
certificate_file = "{keys}/cert.pem"
key_file = "{keys}/key.pem"
[http]
address = "127.0.0.1:{self.http}"
api_keys = [{{ name = "ops", sha256 = "{sha(OPS_KEY)}", role = "admin" }}]
[[tenants]]
name = "acme"
domains = ["acme.example"]
{tenant}
smtp_users = [{{ name = "app", password_hash = "{hashed}" }}]
api_keys = [{{ name = "crm", sha256 = "{sha(SEND_KEY)}", role = "send" }}]
[retry]
schedule = [{", ".join(f'"{d}"' for d in retry)}]
expire_after = "{expire_after}"
delay_notice_after = "0s"
[storage]
min_free = "{min_free}"
[routes."*"]
hosts = ["127.0.0.1:{sink_port}"]
tls = "none"
{route}
"""
        if dkim:
            for selector, algorithm, name in (("r1", "rsa-sha256", "rsa"), ("e1", "ed25519-sha256", "ed25519")):
                text += f"""
[[dkim]]
domain = "acme.example"
selector = "{selector}"
algorithm = "{algorithm}"
key_file = "{keys}/{name}.pem"
"""
        with open(self.config, "w") as file:
            file.write(text + extra)

    def start(self, wait=True, timeout=20):
        log = open(self.log, "ab")
        # A group of its own, so that a Ctrl-C at the terminal reaches only the tests, which then end it.
        self.process = subprocess.Popen(self.prefix + [BINARY, "serve", "--config", self.config],
                                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        log.close()
        if wait:
            self.ready(timeout)
        return self

    def ready(self, timeout=20):
        def check():
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.tail()}")
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=2) as answer:
                    if answer.status == 200:
                        with socket.create_connection(("127.0.0.1", self.relay), timeout=2):
                            return True
            return False

        try:
            wait_for("the daemon to be ready", check, timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.tail()}") from None

    def tail(self, size=3000):
        with contextlib.suppress(OSError), open(self.log, errors="replace") as file:
            return file.read()[-size:]
        return ""

    def kill(self):
        """kill -9, and waits until it is gone."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self):
        """SIGTERM; returns at once."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout=35):
        """SIGTERM, and waits; the exit code."""
        self.terminate()
        return self.process.wait(timeout)

    def end(self):
        if self.process and self.process.poll() is None:
            # The whole session that start() made: with a prefix the daemon is a child of the process we hold.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def request(self, method, path, body=None, key=OPS_KEY, headers=None, timeout=15):
        """(status, headers, body: parsed where it is JSON)."""
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=body, method=method)
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            answer = urllib.request.urlopen(request, timeout=timeout)
        except urllib.error.HTTPError as e:
            answer = e
        with answer:
            data = answer.read()
            kind = answer.headers.get("Content-Type", "")
            if "json" in kind and "ndjson" not in kind:
                data = json.loads(data)
            return answer.status, answer.headers, data

    def events(self, after=0):
        """All events after a sequence, oldest first."""
        found = []
        while True:
            status, _, page = self.request("GET", f"/v1/events?after={after}&limit=1000")
            if status != 200:
                raise AssertionError(f"GET /v1/events: {status} {page}")
            rows = page if isinstance(page, list) else page["events"]
            if not rows:
                return found
            found += rows
            after = rows[-1]["id"]

    def wait_events(self, what, select, count=1, timeout=30):
        """Waits until so many events pass `select`; these."""
        found = []

        def check():
            found[:] = [e for e in self.events() if select(e)]
            return len(found) >= count

        try:
            wait_for(what, check, timeout, 0.1)
        except AssertionError as e:
            short = [{k: ev.get(k) for k in ("event", "recipient", "smtp", "reason")} for ev in self.events()[-30:]]
            raise AssertionError(f"{e}; events: {json.dumps(short)}\n{self.tail()}") from None
        return found


DROP = object()
"""What a script answers to end the connection without a word."""


class Session:
    """One connection of a `Sink`, as its script sees it."""

    def __init__(self, number):
        self.number = number  # from 1
        self.messages = 0
        self.mail = ""
        self.rcpts = []
        self.tls = False


class Received:
    """A message that a sink took."""

    def __init__(self, mail, rcpts, octets, chunked):
        self.mail = mail  # what followed MAIL FROM:, parameters included
        self.rcpts = rcpts  # what followed each RCPT TO:
        self.octets = octets
        self.chunked = chunked

    @property
    def addresses(self):
        return [r[r.index("<") + 1:r.index(">")] for r in self.rcpts]


class Sink:
    """A receiver in Python, whose script may answer anything at any phase.

    `script(phase, session, argument)` is asked at `connect`, `ehlo`, `mail`, `rcpt`, `data`, `midbody`, `final` and
    `delivered` (after the final reply); it answers None for the usual, bytes for a reply, or DROP.
    """

    OFFERS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 50000000", "ENHANCEDSTATUSCODES")

    def __init__(self, script=None, offers=OFFERS, port=0, pause=0.0):
        self.script = script or (lambda phase, session, argument: None)
        self.offers = offers
        self.pause = pause  # seconds between octets of a reply
        self.messages = []
        self.sessions = 0
        self.dialog = []  # commands in order, over all sessions
        self.lock = threading.Lock()
        self.closed = False
        self.server = socket.create_server(("127.0.0.1", port), backlog=256)
        self.port = self.server.getsockname()[1]
        self.open = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.closed = True
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait(self, count, timeout=30):
        """Waits for so many messages; all."""
        wait_for(f"{count} messages at the sink (it has {len(self.messages)})",
                 lambda: len(self.messages) >= count, timeout)
        return list(self.messages)

    def addresses(self):
        """All recipients of all messages taken, with repeats."""
        with self.lock:
            return [a for m in self.messages for a in m.addresses]

    def _accept(self):
        while not self.closed:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with self.lock:
                self.sessions += 1
                session = Session(self.sessions)
                self.open.add(connection)
            threading.Thread(target=self._guard, args=(connection, session), daemon=True).start()

    def _guard(self, connection, session):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(120)
        try:
            with connection, connection.makefile("rb", buffering=1 << 16) as lines:
                self._serve(connection, lines, session)
        except (OSError, EOFError, ValueError):
            pass
        finally:
            self.open.discard(connection)

    def _say(self, connection, phase, session, argument, usual):
        """The scripted or the usual reply; True when it was the usual one or a 2xx/3xx."""
        answer = self.script(phase, session, argument)
        if answer is DROP:
            raise EOFError
        if callable(answer):
            answer(connection)
            raise EOFError
        reply = usual if answer is None else answer
        if self.pause:
            for i in range(len(reply)):
                connection.sendall(reply[i:i + 1])
                time.sleep(self.pause)
        elif reply:
            connection.sendall(reply)
        if reply.startswith(b"421"):
            raise EOFError
        return reply[:1] in (b"2", b"3")

    def _serve(self, connection, lines, session):
        self._say(connection, "connect", session, "", b"220 sink.example ESMTP\r\n")
        while True:
            line = lines.readline(1 << 16)
            if not line:
                return
            text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
            with self.lock:
                self.dialog.append(text)
            verb = text[:4].upper()
            if verb in ("EHLO", "HELO"):
                offers = "".join(f"250-{o}\r\n" for o in self.offers)
                self._say(connection, "ehlo", session, text, f"{offers}250 OK\r\n".encode())
            elif verb == "MAIL":
                session.rcpts = []
                session.mail = text[10:] if self._say(connection, "mail", session, text, b"250 2.1.0 OK\r\n") else ""
            elif verb == "RCPT":
                if self._say(connection, "rcpt", session, text, b"250 2.1.5 OK\r\n"):
                    session.rcpts.append(text[8:])
            elif verb == "DATA":
                if not session.rcpts:
                    self._say(connection, "data", session, text, b"554 5.5.1 no valid recipients\r\n")
                elif self._say(connection, "data", session, text, b"354 go ahead\r\n"):
                    self._finish(connection, session, self._body(connection, lines, session), False)
            elif verb == "BDAT":
                self._chunk(connection, lines, session, text)
            elif verb == "RSET":
                session.rcpts = []
                connection.sendall(b"250 2.0.0 OK\r\n")
            elif verb == "QUIT":
                connection.sendall(b"221 2.0.0 bye\r\n")
                return
            else:
                connection.sendall(b"250 2.0.0 OK\r\n" if verb == "NOOP" else b"502 5.5.1 unknown\r\n")

    def _body(self, connection, lines, session):
        parts, asked = [], False
        while True:
            line = lines.readline()
            if not line:
                raise EOFError
            if line == b".\r\n":
                return b"".join(parts)
            if not asked:
                asked = True
                answer = self.script("midbody", session, "")
                if answer is DROP:
                    raise EOFError
                if answer:
                    connection.sendall(answer)
                    if answer.startswith(b"421"):
                        raise EOFError
            parts.append(line[1:] if line.startswith(b".") else line)

    def _chunk(self, connection, lines, session, text):
        words = text.split()
        octets = lines.read(int(words[1]))
        session.chunks = getattr(session, "chunks", b"") + octets
        if len(words) < 3:
            connection.sendall(b"250 2.0.0 OK\r\n")
        elif not session.rcpts:
            session.chunks = b""
            connection.sendall(b"503 5.5.1 no valid recipients\r\n")
        else:
            whole, session.chunks = session.chunks, b""
            self._finish(connection, session, whole, True)

    def _finish(self, connection, session, octets, chunked):
        received = Received(session.mail, session.rcpts, octets, chunked)
        session.messages += 1
        answer = self.script("final", session, received)
        # A message whose reply is lost was taken all the same: the sender can't know (RFC 1047).
        if answer is None or answer is DROP or (isinstance(answer, bytes) and answer.startswith(b"2")):
            with self.lock:
                self.messages.append(received)
        session.rcpts = []
        if answer is DROP:
            raise EOFError
        if callable(answer):
            answer(connection)
            raise EOFError
        reply = answer or b"250 2.0.0 OK queued\r\n"
        for i in range(len(reply)) if self.pause else ():
            connection.sendall(reply[i:i + 1])
            time.sleep(self.pause)
        if not self.pause:
            connection.sendall(reply)
        if reply.startswith(b"421"):
            raise EOFError


class Raw:
    """An SMTP client of bare sockets, for what no library would send."""

    def __init__(self, port, timeout=10):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()

    def send(self, octets):
        self.socket.sendall(octets)

    def reply(self):
        """One reply, its lines joined; empty at the end of the connection."""
        whole = b""
        while True:
            try:
                line = self.lines.readline()
            except ConnectionResetError:
                return whole
            whole += line
            if len(line) < 4 or line[3:4] != b"-":
                return whole

    def say(self, text):
        self.send(text.encode() + b"\r\n")
        return self.reply()

    def data(self, sender=SENDER, to="u@dest.example"):
        """From the greeting up to 354."""
        assert self.reply().startswith(b"220")
        assert self.say("EHLO strangers.example").startswith(b"250")
        assert self.say(f"MAIL FROM:<{sender}>").startswith(b"250")
        assert self.say(f"RCPT TO:<{to}>").startswith(b"250")
        reply = self.say("DATA")
        assert reply.startswith(b"354"), reply


def letter(subject="hello", body="Hi.\r\n", to="u@dest.example", sender=SENDER):
    """A message with all the header that a submission server would else add."""
    return (f"From: <{sender}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\n"
            f"Message-ID: <{hashlib.sha1((subject + to).encode()).hexdigest()}@acme.example>\r\n"
            f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n").encode() + \
        (body if isinstance(body, bytes) else body.encode())


ODD_BODIES = {
    "empty": b"",
    "one line": b"one line\r\n",
    "no final newline": b"no final newline",
    "whitespace-only last lines": b"text\r\n \t \r\n\t\r\n  \r\n",
    "only whitespace": b" \r\n\t\r\n",
    "only line ends": b"\r\n" * 7,
    "trailing line ends": b"text\r\n\r\n\r\n\r\n",
    "dots": b".\r\n..\r\n...\r\n.leading\r\nmid.dle\r\n.\r\n",
    "dot last": b"text\r\n.",
    "8-bit": "Grüße aus Köln, 日本語\r\n".encode() + bytes(range(0x80, 0x100)) + b"\r\n",
    "long lines": b"x" * 998 + b"\r\n" + b"y" * 999 + b"\r\n" + b"z " * 5000 + b"\r\n.\r\n",
    "trailing spaces": b"a  \r\nb\t\r\n   c   d\r\n",
    "from line": b"From here\r\n>From there\r\n",
    "1 MB": b"".join(b"line %06d of a megabyte, with some more text in it\r\n" % n for n in range(20000)),
}


def with_line_end(octets):
    """What arrives by DATA: it ends with a line end."""
    return octets if octets.endswith(b"\r\n") else octets + b"\r\n"
