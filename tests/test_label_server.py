"""The labelling page: answers only requests that carry its token and name the loopback interface, and works in a browser."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.labelling.session import ADJUDICATOR, open_labelling
from nla.support.errors import ConfigError
from reports import label_server
from reports.label_server import TOKEN_HEADER, LabelServer
from tests.label_source import write_source


@pytest.fixture
def served(tmp_path: Path) -> Iterator[LabelServer]:
    with LabelServer(open_labelling(write_source(tmp_path), tmp_path / "labels.jsonl", 10, 0), 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def asked(server: LabelServer, method: str, path: str, body: bytes = b"", *, token: str | None = None, **headers: str) -> tuple[int, str]:
    """Send a request with the right token, unless another one is given; returns status and content."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    named = {name.replace("_", "-"): text for name, text in headers.items()} | {TOKEN_HEADER: server.token if token is None else token}
    connection.request(method, path, body or None, {name: text for name, text in named.items() if text})
    answer = connection.getresponse()
    content = answer.status, answer.read().decode()
    connection.close()
    return content


def raw(server: LabelServer, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def label(server: LabelServer, **more: Any) -> bytes:
    return json.dumps({"annotator": "ann", "id": server.labelling.session.items[0].id, "verdict": "NO"} | more).encode()


JSON = {"Content_Type": "application/json"}


@pytest.mark.parametrize(
    "path", ["/", "/items?annotator=ann", "/label", "/undo", "/other", "/?token=", "/?token=%FF", "/items?token=x&annotator=ann"]
)
@pytest.mark.parametrize("token", ["", "wrong", "x" * 32, "\xe9"])
def test_without_the_token_nothing_is_read_or_labelled(path: str, token: str, served: LabelServer) -> None:
    for method, body in (("GET", b""), ("POST", label(served))):
        status, content = asked(served, method, path, body, token=token, **JSON)
        assert (status, list(json.loads(content))) == (403, ["error"])
    assert not served.labelling.out.exists()


def test_the_token_is_in_the_printed_address_alone(served: LabelServer, tmp_path: Path) -> None:
    assert served.url.endswith(f"/?token={served.token}")
    assert len(served.token) >= 24
    status, page = asked(served, "GET", served.url.split(str(served.server_address[1]))[1], token="")
    assert (status, served.token in page) == (200, False)
    answer = raw(served, f"GET /?token={served.token} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert b"Referrer-Policy: no-referrer" in answer
    with LabelServer(served.labelling, 0) as other:
        assert other.token != served.token


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1:80@evil.example", "localhost.evil.example", "127.0.0.1:80:80",
     "127.0.0.1:", "127.0.0.1:\u0661",
     "[::1]", "127.0.0.2", "localhost:80/", "user@127.0.0.1", "127.0.0.1, evil.example"],
)  # fmt: skip
def test_a_host_that_is_not_exactly_the_loopback_interface_is_refused(host: str, served: LabelServer) -> None:
    request = f"GET /items?annotator=ann HTTP/1.1\r\nHost: {host}\r\n{TOKEN_HEADER}: {served.token}\r\nConnection: close\r\n\r\n"
    assert raw(served, request.encode("utf-8")).split()[1] == b"403"
    two = request.replace(f"Host: {host}", f"Host: 127.0.0.1\r\nHost: {host}")
    assert raw(served, two.encode("utf-8")).split()[1] == b"403"
    none = request.replace(f"Host: {host}\r\n", "")
    assert raw(served, none.encode("utf-8")).split()[1] == b"403"


@pytest.mark.parametrize(
    "fields",
    [{"item": "x"}, {"self": "x"}, {"annotator": ["x"]}, {"annotator": "\ud800"}, {"annotator": "a\x1b[0m"}, {"annotator": "x" * 61},
     {"id": 3}, {"id": "\ud800"},
     {"answer": {}}, {"kind": "model"}, {"verdict": None}, {"verdict": 10**300}, {"format_only": float("nan")},
     {"evidence": "\ud800"}, {"rule": "\ud800"},
     {"rule": "x" * 300}, {"\ud800": 1}, {"annotator": ADJUDICATOR}, {"annotator": " "}],
)  # fmt: skip
def test_fields_that_are_wrong_are_refused_with_a_reason(
    fields: dict[str, Any], served: LabelServer, capfd: pytest.CaptureFixture[str]
) -> None:
    status, content = asked(served, "POST", "/label", label(served, **fields), **JSON)
    assert (status, list(json.loads(content))) == (400, ["error"])
    assert capfd.readouterr().err == ""
    assert not served.labelling.out.exists()


@pytest.mark.parametrize("length", ["", "\xb2", "-1", "1e3", "0x10", "9" * 5000, "100001", "\u0663".encode().decode("latin-1"), " 5 5"])
def test_a_length_that_is_no_small_number_is_refused(length: str, served: LabelServer, capfd: pytest.CaptureFixture[str]) -> None:
    head = f"POST /label HTTP/1.1\r\nHost: 127.0.0.1\r\n{TOKEN_HEADER}: {served.token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    assert raw(served, head.encode("latin-1") + label(served)).split()[1] == b"400"
    assert capfd.readouterr().err == ""
    assert not served.labelling.out.exists()


@pytest.mark.parametrize("body", [b"[1]", b"{", b'"x"', b"[" * 50_000, b'{"a":' * 10_000, b"\xff\xfe", b"1" * 5000, b"NaN"])
def test_a_body_that_is_no_json_object_is_refused(body: bytes, served: LabelServer, capfd: pytest.CaptureFixture[str]) -> None:
    status, content = asked(served, "POST", "/label", body, **JSON)
    assert (status, list(json.loads(content))) == (400, ["error"])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "target", ["//[", "/items?" + "&" * 50 + "a=1" * 3, "/items?" + "a=1&" * 50, "/" + "x" * 60_000, "http://[x/", "/items?annotator=%00"]
)
def test_a_malformed_address_is_refused(target: str, served: LabelServer, capfd: pytest.CaptureFixture[str]) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TOKEN_HEADER}: {served.token}\r\nConnection: close\r\n\r\n"
    assert raw(served, request.encode()).split()[1] in (b"400", b"404")
    assert capfd.readouterr().err == ""


def test_verdicts_are_not_shown_and_labels_of_others_neither(served: LabelServer) -> None:
    assert asked(served, "GET", "/")[0] == 200
    assert asked(served, "GET", "/other")[0] == asked(served, "POST", "/other", label(served), **JSON)[0] == 404
    status, content = asked(served, "GET", "/items?annotator=ann")
    assert status == 200
    assert {frozenset(item) for item in json.loads(content)["items"]} == {frozenset({"id", "text", "blurb", "label", "others"})}
    assert asked(served, "POST", "/label", label(served), Content_Type="text/plain")[0] == 400  # what a form of another site could send
    assert not served.labelling.out.exists()
    assert asked(served, "POST", "/label", label(served), **JSON)[0] == 200
    others = json.loads(asked(served, "GET", "/items?annotator=ben")[1])["items"]
    assert not any(item["label"] or item["others"] for item in others)
    assert json.loads(asked(served, "POST", "/undo", b'{"annotator": "ann"}', **JSON)[1])["label"] is None
    with pytest.raises(ConfigError, match="cannot be used"):
        LabelServer(served.labelling, served.server_address[1])


def test_a_label_that_cannot_be_saved_is_not_acknowledged(served: LabelServer) -> None:
    served.labelling.out.mkdir()
    status, content = asked(served, "POST", "/label", label(served), **JSON)
    assert (status, "labels.jsonl" in content) == (400, True)


@pytest.mark.slow
def test_two_people_label_in_a_browser_and_a_third_settles(
    browser: Any, served: LabelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page()
    said: list[str] = []
    referers: list[str | None] = []
    monkeypatch.setattr(label_server._Handler, "log_request", lambda handler, *_: referers.append(handler.headers.get("Referer")))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    for name, keys in (("ann", "ynufyn"), ("ben", "nnnnnn")):
        page.goto(served.url)
        page.fill("#name", name)
        page.keyboard.press("Enter")
        page.get_by_text("0 labelled").wait_for()
        shown = page.inner_text("#text")
        page.evaluate("document.getSelection().setBaseAndExtent(document.querySelector('#text').firstChild, 0, "
                      "document.querySelector('#text').firstChild, 4)")  # fmt: skip
        page.get_by_text("The evidence is marked").wait_for()
        page.keyboard.press("b")
        page.get_by_text("A test of knowledge.").wait_for()
        for key in keys:  # faster than the server answers
            page.keyboard.press(key)
        page.get_by_text("All are labelled").wait_for()
        first = served.labelling.order(name)[0]
        assert shown == first.text
        label = served.labelling.label_of(first.id, name)
        assert label is not None
        assert (label.verdict, label.evidence) == ({"y": "YES", "n": "NO"}[keys[0]], first.text[:4])
    assert served.labelling.counts() == {"ann": 6, "ben": 6}
    page.keyboard.press("z")
    page.get_by_text("5 labelled").wait_for()
    page.keyboard.press("n")
    page.get_by_text("All are labelled").wait_for()
    given = [served.labelling.label_of(item.id, "ann") for item in served.labelling.order("ann")]
    assert [(label.verdict, label.format_only) for label in given if label] == [
        ("YES", False), ("NO", False), ("UNCLEAR", False), ("NO", True), ("YES", False), ("NO", False),
    ]  # fmt: skip
    with LabelServer(served.labelling, 0, adjudicate=True) as settling:
        threading.Thread(target=settling.serve_forever, args=(0.01,), daemon=True).start()
        context = browser.new_context(bypass_csp=True)
        page = context.new_page()
        page.goto(settling.url)
        page.get_by_text("text 1 of 3").wait_for()
        assert "Annotator 1" in page.inner_text("#others")
        assert [(fault["id"], fault["nodes"][0]["html"]) for fault in Axe().run(page).response["violations"]] == []
        page.screenshot(path=tmp_path / "label.png")
        page.click("[data-verdict=NO]")
        page.get_by_text("1 labelled").wait_for()
        settling.shutdown()
    assert said == []
    assert len(referers) > 20
    assert set(referers) == {None}  # it would hold the token
    assert sum(served.labelling.counts().values()) == 13
