"""Pictures fetched by address, from the places the operator allows and never from inside the network.

A name is resolved once and the connection made to the very address that was checked, so a name that answers
differently the second time (DNS rebinding) gains nothing; every redirect is checked like the first address.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from serving.errors import PayloadTooLarge, UrlFailed, UrlRefused

MAX_REDIRECTS = 3
FETCH_SECONDS = 10.0  # for all addresses of one request, redirects included
PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
# Inside 2000::/3, yet leading to an IPv4 address of the sender's choice: Teredo and 6to4.
TUNNELS = (ipaddress.ip_network("2001::/32"), ipaddress.ip_network("2002::/16"))


def parse_url_allow(text: str) -> tuple[str, ...]:
    """Prefixes between commas. Raises ValueError for one that is no http(s) address."""
    prefixes = tuple(part.strip() for part in text.split(",") if part.strip())
    for prefix in prefixes:
        try:
            _split(prefix)
        except (UrlRefused, ValueError) as error:
            raise ValueError(
                f"addresses such as https://bucket.s3.amazonaws.com/pictures/, between commas ({error})"
            ) from error
    return prefixes


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: not private, loopback, link-local or a tunnel."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and (
        ip not in GLOBAL_IPV6 or any(ip in tunnel for tunnel in TUNNELS)
    ):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def resolve(host: str, port: int) -> str:
    """The first address of a name all of whose addresses are public. Raises UrlRefused or UrlFailed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UrlFailed(f"The host {host!r} cannot be resolved.", hint="Check the address.") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not all(is_public(address) for address in addresses):
        raise UrlRefused(
            f"The host {host!r} lies in a private network.", hint="Send the picture's bytes instead."
        )
    return addresses[0]


@dataclass(slots=True)
class Fetcher:
    """Fetches the pictures of one request, which share one time limit."""

    allow: Sequence[str]
    max_bytes: int
    seconds: float = FETCH_SECONDS
    resolve: Callable[[str, int], str] = resolve
    _deadline: float | None = field(default=None, init=False)

    def fetch(self, url: str) -> bytes:
        """The bytes behind an allowed address. Raises UrlRefused, UrlFailed or PayloadTooLarge."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self.seconds
        for _ in range(MAX_REDIRECTS + 1):
            parts = self._check(url)
            location, body = self._get(parts, self.resolve(parts.hostname or "", _port(parts)))
            if location is None:
                return body
            url = urljoin(url, location)
        raise UrlFailed(f"More than {MAX_REDIRECTS} redirects.", hint="Send the last address itself.")

    def _check(self, url: str) -> SplitResult:
        try:
            parts = _split(url)
        except ValueError as error:
            raise UrlRefused(f"{url[:200]!r} is not an address.", hint="Send an https address.") from error
        if not any(_is_under(parts, _split(prefix)) for prefix in self.allow):
            raise UrlRefused(
                f"{url[:200]!r} is not under an address this server may fetch from.",
                hint="Send the picture's bytes, or have its place added to KENNEL_URL_ALLOW.",
            )
        return parts

    def _get(self, parts: SplitResult, address: str) -> tuple[str | None, bytes]:
        """(where a redirect leads, b"") or (None, the body)."""
        left = (self._deadline or 0.0) - time.monotonic()
        if left <= 0.0:
            raise self._too_slow()
        connection = _PinnedConnection(parts, address, timeout=left)
        watchdog = threading.Timer(left, connection.cut)  # a timeout of each read alone lets a drip go on
        watchdog.start()
        try:
            target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
            connection.request("GET", target, headers={"Accept-Encoding": "identity"})
            response = connection.getresponse()
            location = response.getheader("Location") if response.status in REDIRECTS else None
            body = b"" if location else self._read(response)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if connection.was_cut:
                raise self._too_slow() from error
            raise UrlFailed(
                f"{parts.hostname} did not give the picture ({type(error).__name__}).",
                hint="Check the address, or send the picture's bytes.",
            ) from error
        finally:
            watchdog.cancel()
            connection.close()
        if connection.was_cut:  # a body without a length ends like this too
            raise self._too_slow()
        return location, body

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        if response.status != 200:
            raise UrlFailed(
                f"The address answers with status {response.status}.",
                hint="Check the address and its permissions.",
            )
        body = response.read(self.max_bytes + 1)
        if len(body) > self.max_bytes:
            raise PayloadTooLarge(
                f"The picture behind the address has more than {self.max_bytes} bytes.",
                hint="Send a smaller picture, or raise KENNEL_MAX_PAYLOAD_MB.",
            )
        if response.length:
            raise http.client.IncompleteRead(body, response.length)
        return body

    def _too_slow(self) -> UrlFailed:
        return UrlFailed(
            f"The pictures of this request took more than {self.seconds:g} s to fetch.",
            hint="Send the pictures' bytes, or fewer addresses.",
        )


class _PinnedConnection(http.client.HTTPConnection):
    """To an address that was checked, while Host and the certificate are those of the name."""

    def __init__(self, parts: SplitResult, address: str, *, timeout: float) -> None:
        super().__init__(parts.hostname or "", _port(parts), timeout=timeout)
        self.was_cut = False
        self._watched: socket.socket | None = None  # `sock` is gone once an answer without a length begins
        self._address = address
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.default_port = PORTS[parts.scheme]  # else Host would name the port

    def connect(self) -> None:
        self._watched = self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._tls is not None:
            secured = self._tls.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self._watched = self.sock = secured
            secured.do_handshake()

    def cut(self) -> None:
        """From the watchdog's thread: whatever reads or writes fails at once."""
        self.was_cut = True
        if self._watched is not None:
            try:  # not SSLSocket's own shutdown, which is not for another thread
                socket.socket.shutdown(self._watched, socket.SHUT_RDWR)
            except OSError:
                return  # closed already


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise UrlRefused(f"{url[:200]!r} is not an http or https address.", hint="Send an https address.")
    if parts.username is not None or parts.password is not None:
        raise UrlRefused("Addresses with a user name are not fetched.", hint="Leave it out.")
    _port(parts)  # raises ValueError when it is no number
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise UrlRefused("The address has characters that must be percent-encoded.", hint="Encode them.")
    return parts


def _is_under(parts: SplitResult, prefix: SplitResult) -> bool:
    """Same scheme, host and port, and a path at or below the prefix's; `..` is never followed."""
    if (parts.scheme, parts.hostname, _port(parts)) != (prefix.scheme, prefix.hostname, _port(prefix)):
        return False
    if ".." in unquote(parts.path).replace("\\", "/").split("/"):
        return False
    folder = prefix.path.rstrip("/") + "/"
    return parts.path == prefix.path or (parts.path or "/").startswith(folder)


def _port(parts: SplitResult) -> int:
    return parts.port or PORTS[parts.scheme]
