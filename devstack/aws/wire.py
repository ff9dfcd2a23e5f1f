"""Wire formats of EC2 (form in, XML out) and Route 53 (REST with XML): parse requests, write responses."""

import io
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from werkzeug.wrappers import Request, Response

EC2 = "ec2"
ROUTE_53 = "route53"
STS = "sts"

EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
ROUTE_53_NAMESPACE = "https://route53.amazonaws.com/doc/2013-04-01/"

Environ = dict[str, object]
Application = Callable[[Environ, Callable[..., object]], Iterable[bytes]]

_SCOPE = re.compile(r"Credential=[^/]+/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/")
_RECORDS = re.compile(r"/2013-04-01/hostedzone/(?P<zone>[^/]+)/rrset/?")
_ZONE = re.compile(r"/2013-04-01/hostedzone/(?P<zone>[^/]+)/?")

OUR_AGENT = "onebox"
"""User agent of production clients; the clients of tests and the box host lack it."""


class Refused(Exception):
    """An AWS error response; clients match on `code`."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Call:
    """One request to AWS."""

    service: str
    region: str
    action: str
    parameters: Mapping[str, str]
    """Form fields of EC2 and STS; empty for other services."""
    body: bytes = field(repr=False)
    environ: Environ = field(repr=False)
    zone_id: str = ""
    """Hosted zone from the path of Route 53 calls."""
    record_name: str = ""
    """Start of a listing of records."""

    @property
    def changes_something(self) -> bool:
        """Whether the request may change something."""
        reads = self.action.startswith(("Describe", "Get", "List"))
        return bool(self.action) and not reads and not self.is_dry_run

    @property
    def is_dry_run(self) -> bool:
        """Whether the EC2 call is a dry run."""
        return self.parameters.get("DryRun", "").lower() == "true"

    @property
    def is_ours(self) -> bool:
        """Whether production code sent it."""
        return OUR_AGENT in str(self.environ.get("HTTP_USER_AGENT", "")).split()

    def with_parameters(self, parameters: Mapping[str, str]) -> "Call":
        """Return the same caller's EC2 call with other parameters."""
        return Call(
            service=self.service,
            region=self.region,
            action=parameters["Action"],
            parameters=parameters,
            body=urlencode(parameters).encode(),
            environ=self.environ,
        )

    def listed(self, name: str) -> list[str]:
        """Return the values of `name.1`, `name.2` and so on."""
        return [value for key, value in self.parameters.items() if re.fullmatch(rf"{name}\.\d+", key)]

    def filters(self) -> dict[str, list[str]]:
        """Return the filters of a Describe call."""
        return {
            value: self.listed(key.removesuffix("Name") + "Value")
            for key, value in self.parameters.items()
            if re.fullmatch(r"Filter\.\d+\.Name", key)
        }

    def tags(self) -> dict[str, str]:
        """Return the tags for the resources that the call creates."""
        return {
            value: self.parameters.get(key.removesuffix("Key") + "Value", "")
            for key, value in self.parameters.items()
            if re.fullmatch(r"TagSpecification\.\d+\.Tag\.\d+\.Key", key)
        }

    def send(self, application: Application) -> Response:
        """Forward it to another WSGI application, with the body unread."""
        environ = self.environ | {
            "wsgi.input": io.BytesIO(self.body),
            "CONTENT_LENGTH": str(len(self.body)),
        }
        return Response.from_app(application, environ, buffered=True)


def read_call(environ: Environ) -> Call:
    """Parse a request to AWS and its body."""
    request = Request(environ)
    body = request.get_data()
    scope = _SCOPE.search(request.headers.get("Authorization", ""))
    service = scope["service"] if scope else ""
    parameters: dict[str, str] = {}
    zone_id = ""
    action = ""
    if service in (EC2, STS):
        parameters = dict(parse_qsl(body.decode() or request.query_string.decode(), keep_blank_values=True))
        action = parameters.get("Action", "")
    elif service == ROUTE_53 and (records := _RECORDS.fullmatch(request.path)):
        zone_id = records["zone"]
        action = "ChangeResourceRecordSets" if request.method == "POST" else "ListResourceRecordSets"
    elif service == ROUTE_53 and request.method == "GET" and (zone := _ZONE.fullmatch(request.path)):
        zone_id = zone["zone"]
        action = "GetHostedZone"
    return Call(
        service=service,
        region=scope["region"] if scope else "",
        action=action,
        parameters=parameters,
        body=body,
        environ=environ,
        zone_id=zone_id,
        record_name=request.args.get("name", "") if service == ROUTE_53 else "",
    )


def error_answer(service: str, refused: Refused) -> Response:
    """Return an error response in the service's format, so that botocore finds the code."""
    code, message, request_id = escape(refused.code), escape(refused.message), uuid.uuid4()
    if service == EC2:
        text = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
            f"<RequestID>{request_id}</RequestID></Response>"
        )
    else:
        kind = "Sender" if refused.status < 500 else "Receiver"
        text = (
            f'<ErrorResponse xmlns="{ROUTE_53_NAMESPACE}"><Error><Type>{kind}</Type><Code>{code}</Code>'
            f"<Message>{message}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return xml_answer(text, status=refused.status)


def ec2_answer(action: str, content: str) -> Response:
    """Return an EC2 response with this content."""
    request_id = f"<requestId>{uuid.uuid4()}</requestId>"
    return xml_answer(f'<{action}Response xmlns="{EC2_NAMESPACE}">{request_id}{content}</{action}Response>')


def xml_answer(text: str, *, status: int = 200) -> Response:
    """Return an XML response."""
    return Response(
        f'<?xml version="1.0" encoding="UTF-8"?>\n{text}',
        status=status,
        content_type="text/xml;charset=UTF-8",
    )


def read_xml(content: bytes) -> ElementTree.Element:
    """Parse an XML document. Raises `Refused` if it is malformed."""
    try:
        return ElementTree.fromstring(content)  # noqa: S314 (from our own clients, on this machine)
    except ElementTree.ParseError as error:
        raise Refused("InvalidInput", f"Invalid XML: {error}") from None


def write_xml(element: ElementTree.Element) -> str:
    """Return the element as text in EC2's namespace without prefixes, as EC2 writes it."""
    text = ElementTree.tostring(element, encoding="unicode", default_namespace=None)
    return re.sub(r"(</?)ns\d+:", r"\1", text).replace("xmlns:ns0=", "xmlns=")


def text_of(element: ElementTree.Element, path: str) -> str:
    """Return the text at a path of local names; empty if it is missing."""
    return element.findtext("/".join(f"{{*}}{name}" for name in path.split("/")), default="")


def all_of(element: ElementTree.Element, path: str) -> list[ElementTree.Element]:
    """Return the elements at a path of local names."""
    return element.findall("/".join(f"{{*}}{name}" for name in path.split("/")))


def error_code(response: Response) -> str:
    """Return the error code of a response of either service."""
    found = re.search(r"<Code>([^<]+)</Code>", response.get_data(as_text=True))
    return found[1] if found else str(response.status_code)
