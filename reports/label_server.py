"""The labelling page: a web server on the loopback interface, for people who label explanations without seeing any verdict.

One process, the standard library's server, no network beyond the loopback interface. The printed address contains a random token that every
request must carry, so another user of the machine can neither read texts nor label. Requests must also name a loopback host and send
JSON, so that no page of another site can do it through the user's browser.
"""

import hmac
import json
import re
import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from markupsafe import Markup

from audit.labelling.sample import Item
from audit.labelling.session import ADJUDICATOR, Labelling
from graders.labelled.labels import Label
from graders.rubric import RULES
from nla.support.errors import ConfigError, HarnessError
from reports.pages import TEMPLATES, hashed_script

TOKEN_HEADER = "X-Label-Token"
"""How the page sends the token of its address; the first request has it in the address (`?token=`)."""
_MAX_BODY_BYTES = 100_000
_MAX_NAME_LENGTH = 60
_MAX_QUERY_FIELDS = 10
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,7}", re.ASCII)


class LabelServer(ThreadingHTTPServer):
    """The server of one file of labels.

    Args:
        labelling: the file of labels.
        port: on 127.0.0.1; 0 takes a free one.
        adjudicate: show only the items on which annotators differ, with their labels, to an adjudicator.

    Raises:
        ConfigError: the port is in use.
    """

    daemon_threads = True

    def __init__(self, labelling: Labelling, port: int, *, adjudicate: bool = False) -> None:
        self.labelling, self.adjudicate = labelling, adjudicate
        self.token = secrets.token_urlsafe(24)
        self.page, self.policy = _page(adjudicate)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as ex:
            raise ConfigError(f"Port {port} cannot be used ({ex.strerror}); give another one with --port, or 0 for a free one.") from ex

    @property
    def url(self) -> str:
        """The address of the page, with its token."""
        return f"http://127.0.0.1:{self.server_address[1]}/?token={self.token}"

    def accepts(self, token: str) -> bool:
        """Whether a request has the token of this server; takes the same time for every wrong one."""
        return hmac.compare_digest(token.encode(errors="replace"), self.token.encode())

    def items(self, annotator: str) -> list[dict[str, Any]]:
        """Return what the page shows to an annotator: never a prediction, and labels of others only to the adjudicator."""
        if self.adjudicate:
            return [self._shown(item, annotator, others) for item, others in self.labelling.disputes()]
        return [self._shown(item, annotator, []) for item in self.labelling.order(annotator)]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that closed its connection; anything else is our mistake and is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def _shown(self, item: Item, annotator: str, others: list[Label]) -> dict[str, Any]:
        label = self.labelling.label_of(item.id, annotator)
        return {
            "id": item.id,
            "text": item.text,
            "blurb": item.blurb,
            "label": _answer(label) if label else None,
            "others": [_answer(other) for other in others],
        }


def _answer(label: Label) -> dict[str, Any]:
    """Return a label without its annotator."""
    return label.model_dump(exclude={"annotator", "kind"})


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection. Anything wrong about a request is refused with a JSON object `{"error": reason}`."""

    server: LabelServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "audit-label", ""
    timeout = 30

    def do_GET(self) -> None:
        try:
            address = urlsplit(self.path)
            query = parse_qs(address.query, max_num_fields=_MAX_QUERY_FIELDS)
        except ValueError:
            self._refuse(HTTPStatus.BAD_REQUEST, "The address is malformed.")
            return
        if not self._is_allowed(query.get("token", [""])[0]):
            return
        if address.path == "/":
            self._send(HTTPStatus.OK, self.server.page.encode(), "text/html; charset=utf-8")
        elif address.path == "/items":
            annotator = self._annotator(query.get("annotator", [""])[0])
            if annotator is not None:
                self._run(lambda: {"annotator": annotator, "items": self.server.items(annotator)})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "This page does not exist.")

    def do_POST(self) -> None:
        if not self._is_allowed(""):
            return
        fields = self._body()
        annotator = None if fields is None else self._annotator(fields.pop("annotator", ""))
        if fields is None or annotator is None:
            return
        if self.path == "/label":
            item = str(fields.pop("id", ""))
            self._run(lambda: self._give(annotator, item, fields))
        elif self.path == "/undo":
            self._run(lambda: self._undo(annotator))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "This page does not exist.")

    def _give(self, annotator: str, item: str, answer: dict[str, Any]) -> dict[str, Any]:
        self.server.labelling.give(annotator, item, answer)
        return {"saved": True}

    def _undo(self, annotator: str) -> dict[str, Any]:
        item = self.server.labelling.undo(annotator)
        label = self.server.labelling.label_of(item, annotator) if item else None
        return {"id": item, "label": _answer(label) if label else None}

    def _run(self, action: Any) -> None:
        """Send what an action returns, or why it failed."""
        try:
            content = action()
        except HarnessError as ex:
            self._refuse(HTTPStatus.BAD_REQUEST, ex.text)
        except OSError as ex:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"The label could not be saved: {ex.strerror}.")
        else:
            self._send(HTTPStatus.OK, json.dumps(content).encode(), "application/json")

    def _is_allowed(self, token: str) -> bool:
        """Whether the request is meant for this server and has its token; sends the refusal otherwise.

        A name that another site points at the loopback address is not accepted as host, nor is anything before or after it.
        """
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not _LOOPBACK.fullmatch(hosts[0]):
            self._refuse(HTTPStatus.FORBIDDEN, "This page is served on the loopback interface only.")
            return False
        if not self.server.accepts(self.headers.get(TOKEN_HEADER) or token):
            self._refuse(HTTPStatus.FORBIDDEN, "Open the address that `audit label` printed; it changes with every start.")
            return False
        return True

    def _annotator(self, name: object) -> str | None:
        """Return the annotator's name; None, after sending an error, for a name that cannot be used."""
        if self.server.adjudicate:
            return ADJUDICATOR
        stripped = name.strip() if isinstance(name, str) else ""
        if stripped and len(stripped) <= _MAX_NAME_LENGTH and stripped.isprintable() and stripped != ADJUDICATOR:
            return stripped
        self._refuse(HTTPStatus.BAD_REQUEST, f"Enter a name of 1 to {_MAX_NAME_LENGTH} printable characters, other than '{ADJUDICATOR}'.")
        return None

    def _body(self) -> dict[str, Any] | None:
        """Return the JSON object of a request; None, after sending an error, for anything else."""
        length = self.headers.get("Content-Length") or ""
        if self.headers.get_content_type() != "application/json" or not _LENGTH.fullmatch(length) or int(length) > _MAX_BODY_BYTES:
            self._refuse(HTTPStatus.BAD_REQUEST, f"Expected a JSON object of at most {_MAX_BODY_BYTES:,} bytes.")
            return None
        try:
            fields = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            self._refuse(HTTPStatus.BAD_REQUEST, "Expected a JSON object.")
            return None
        return fields

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True  # an unread body must not be taken for the next request
        self._send(status, json.dumps({"error": reason}).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", self.server.policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
            ("Connection", "close" if self.close_connection else "keep-alive"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: requests contain the token."""


def _page(adjudicate: bool) -> tuple[str, str]:
    """Return the page and its content security policy."""
    script, digest = hashed_script("label.js")
    page = TEMPLATES.get_template("label.html.j2").render(script=Markup(script), rules=list(RULES.values()), adjudicate=adjudicate)
    sources = f"script-src '{digest}'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
    return page, f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
