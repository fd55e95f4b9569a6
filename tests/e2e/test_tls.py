"""Encrypted, with and without certificates of clients."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from sidecars import LINES, TOKEN, Answer, Sidecar, free_port

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, a server's certificate of the first, a client's of each."""
    folder = tmp_path_factory.mktemp("keys")
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for authority in ("ca", "other"):
        more = ["-x509", "-days", "2", "-subj", f"/CN={authority}", "-keyout", f"{authority}.key", "-out", f"{authority}.crt"]
        openssl(folder, *new, *more, "-addext", "basicConstraints=critical,CA:TRUE")
    (folder / "extensions").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        openssl(folder, *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        sign = ["-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial", "-extfile", "extensions"]
        openssl(folder, "x509", "-req", "-days", "2", "-in", f"{name}.csr", *sign, "-out", f"{name}.crt")
    return folder


def start(folder: Path, keys: Path, more: str = "") -> Sidecar:
    config = f'[tls]\ncertificate = "{keys}/server.crt"\nkey = "{keys}/server.key"\n{more}'
    health = free_port()
    running = Sidecar(folder, "--health-listen", f"127.0.0.1:{health}", config=config).start(wait=False)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", health, timeout=10)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return running
        except OSError:
            time.sleep(0.02)
        finally:
            connection.close()
    raise AssertionError(running.log())


def context(keys: Path, name: str | None) -> ssl.SSLContext:
    out = ssl.create_default_context(cafile=str(keys / "ca.crt"))
    if name is not None:
        out.load_cert_chain(keys / f"{name}.crt", keys / f"{name}.key")
    return out


def ask(running: Sidecar, tls: ssl.SSLContext, method: str, path: str, body: bytes | None = None, token: str | None = TOKEN) -> Answer:
    connection = http.client.HTTPSConnection("127.0.0.1", running.port, timeout=30, context=tls)
    try:
        headers = {"Content-Type": LINES} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


EVENT = json.dumps({"x": 1.0}).encode()


def test_what_goes_over_the_wire_is_encrypted(keys: Path, tmp_path: Path) -> None:
    running = start(tmp_path, keys)
    try:
        tls = context(keys, None)
        assert ask(running, tls, "POST", "/v1/models/m/events", EVENT).status == 200
        assert ask(running, tls, "GET", "/v1/models", token=None).status == 401
        # Both versions of HTTP are offered.
        for offered in ("h2", "http/1.1"):
            tls = context(keys, None)
            tls.set_alpn_protocols([offered])
            with socket.create_connection(("127.0.0.1", running.port)) as plain, tls.wrap_socket(plain, server_hostname="localhost") as one:
                assert one.selected_alpn_protocol() == offered
        if shutil.which("curl") is not None:
            for option, version in (("--http2", "2"), ("--http1.1", "1.1")):
                command = ["curl", "-sS", "--fail", option, "--cacert", str(keys / "ca.crt"), "-w", "\n%{http_version}"]
                address = f"https://127.0.0.1:{running.port}/v1/models"
                done = subprocess.run(
                    [*command, "-H", f"Authorization: Bearer {TOKEN}", address], capture_output=True, text=True, check=True
                )
                answer, spoken = done.stdout.splitlines()
                assert "models" in json.loads(answer)
                assert spoken == version
        # What is not encrypted, or too old, gets nothing.
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as plain:
            plain.sendall(f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
            assert b"HTTP/1.1 200" not in plain.recv(1000)
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as silent:
            assert silent.recv(1000) == b""
        assert ask(running, context(keys, None), "GET", "/v1/models").status == 200
        running.stop()
    finally:
        running.__exit__()


def test_certificates_of_clients(keys: Path, tmp_path: Path) -> None:
    running = start(tmp_path, keys, f'client_ca = "{keys}/ca.crt"\n')
    try:
        known = context(keys, "client")
        # He may send and ask, and changes nothing without a token.
        assert ask(running, known, "POST", "/v1/models/m/events", EVENT, token=None).status == 200
        assert ask(running, known, "GET", "/v1/models", token=None).status == 200
        assert ask(running, known, "DELETE", "/v1/models/m", token=None).status == 403
        assert ask(running, known, "GET", "/v1/models", token="wrong").status == 401
        for stranger in (None, "stranger"):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                ask(running, context(keys, stranger), "GET", "/v1/models")
        assert ask(running, known, "DELETE", "/v1/models/m").status == 204
        running.stop()
    finally:
        running.__exit__()


def test_certificates_and_tokens_are_both_asked_for(keys: Path, tmp_path: Path) -> None:
    more = f'client_ca = "{keys}/ca.crt"\n[[tokens]]\nname = "app"\ntoken = "the-app"\nscopes = ["ingest"]\n'
    running = start(tmp_path, keys, more)
    try:
        known = context(keys, "client")
        assert ask(running, known, "POST", "/v1/models/m/events", EVENT, token=None).status == 401
        assert ask(running, known, "POST", "/v1/models/m/events", EVENT, token="the-app").status == 200
        assert ask(running, known, "GET", "/v1/models", token="the-app").status == 403
    finally:
        running.__exit__()
