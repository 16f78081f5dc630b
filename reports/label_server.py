"""The labelling page: a web server on the loopback interface, for people who label explanations without seeing any verdict.

One process, the standard library's server, no network beyond the loopback. Requests must name a loopback host and send JSON,
so that no page of another site can read texts or give labels.
"""

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from markupsafe import Markup

from audit.labelling.session import ADJUDICATOR, Item, Labelling
from graders.labelled.labels import Label
from graders.rubric import RULES
from nla.support.errors import ConfigError, HarnessError
from reports.pages import TEMPLATES, hashed_script

_LONGEST_BODY = 1_000_000
_LONGEST_NAME = 60


class LabelServer(ThreadingHTTPServer):
    """The server of one file of labels.

    Args:
        labelling: the file.
        port: on 127.0.0.1; 0 takes a free one.
        adjudicate: show only the items on which annotators differ, with what they said, to an adjudicator.

    Raises:
        ConfigError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, labelling: Labelling, port: int, *, adjudicate: bool = False) -> None:
        self.labelling, self.adjudicate = labelling, adjudicate
        self.page, self.policy = _page(adjudicate)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as ex:
            raise ConfigError(f"port {port} cannot be used ({ex.strerror}); give another with --port, or 0 for a free one.") from ex

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def items(self, annotator: str) -> list[dict[str, Any]]:
        """What the page shows one annotator: never a prediction, and another's labels only to the adjudicator."""
        if self.adjudicate:
            return [self._shown(item, annotator, others) for item, others in self.labelling.disputes()]
        return [self._shown(item, annotator, []) for item in self.labelling.order(annotator)]

    def _shown(self, item: Item, annotator: str, others: list[Label]) -> dict[str, Any]:
        label = self.labelling.label_of(item.id, annotator)
        return {
            "id": item.id,
            "text": item.text,
            "blurb": item.blurb,
            "label": _told(label) if label else None,
            "others": [_told(other) for other in others],
        }


def _told(label: Label) -> dict[str, Any]:
    return label.model_dump(exclude={"annotator", "kind"})


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        if not self._from_here():
            return
        asked = urlsplit(self.path)
        if asked.path == "/":
            self._send(HTTPStatus.OK, self.server.page.encode(), "text/html; charset=utf-8")
        elif asked.path == "/items":
            annotator = self._annotator(parse_qs(asked.query).get("annotator", [""])[0])
            if annotator is not None:
                self._json({"annotator": annotator, "items": self.server.items(annotator)})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "no such page")

    def do_POST(self) -> None:
        if not self._from_here():
            return
        said = self._body()
        annotator = None if said is None else self._annotator(said.pop("annotator", ""))
        if said is None or annotator is None:
            return
        labelling = self.server.labelling
        try:
            if self.path == "/label":
                labelling.give(annotator, str(said.pop("id", "")), **said)
                self._json({"saved": True})
            elif self.path == "/undo":
                item = labelling.undo(annotator)
                label = labelling.label_of(item, annotator) if item else None
                self._json({"id": item, "label": _told(label) if label else None})
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "no such page")
        except HarnessError as ex:
            self._refuse(HTTPStatus.BAD_REQUEST, ex.text)
        except OSError as ex:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"the label could not be saved: {ex.strerror}")

    def _from_here(self) -> bool:
        """Whether the browser means this machine: a name that another site points at the loopback address is refused."""
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host in ("127.0.0.1", "localhost"):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "this page is for the loopback interface only")
        return False

    def _annotator(self, name: object) -> str | None:
        """The annotator's name; None, after an error was sent, where there is none that may be used."""
        if self.server.adjudicate:
            return ADJUDICATOR
        found = name.strip() if isinstance(name, str) else ""
        if found and len(found) <= _LONGEST_NAME and found.isprintable() and found != ADJUDICATOR:
            return found
        self._refuse(HTTPStatus.BAD_REQUEST, f"give a name of 1 to {_LONGEST_NAME} characters, other than {ADJUDICATOR!r}")
        return None

    def _body(self) -> dict[str, Any] | None:
        length = self.headers.get("Content-Length") or ""
        if self.headers.get_content_type() != "application/json" or not length.isdigit() or int(length) > _LONGEST_BODY:
            self._refuse(HTTPStatus.BAD_REQUEST, "expected a small JSON object")
            return None
        try:
            said = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            self._refuse(HTTPStatus.BAD_REQUEST, "expected a JSON object")
            return None
        return said

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True  # an unread body must not be taken for the next request
        self._send(status, json.dumps({"error": why}).encode(), "application/json")

    def _json(self, content: Any) -> None:
        self._send(HTTPStatus.OK, json.dumps(content).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", self.server.policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
            ("Connection", "close" if self.close_connection else "keep-alive"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the terminal shows progress instead."""


def _page(adjudicate: bool) -> tuple[str, str]:
    """(the page, its content security policy)."""
    script, digest = hashed_script("label.js")
    page = TEMPLATES.get_template("label.html.j2").render(script=Markup(script), rules=list(RULES.values()), adjudicate=adjudicate)
    own = f"script-src '{digest}'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
    return page, f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
