"""The connections below an HTTP session: requests' adapter on urllib3's pools, with deadlines and an address guard.

urllib3's time limits hold for each system call, so a server that sends one byte a minute would never meet them. Here a
timer ends the connection when the handshake or the head of the answer takes longer than it may. The address guard sees
the address that was really connected to, before a byte is sent: a name that resolves differently the second time
(DNS rebinding) gains nothing.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from imagekit.base.errors import NetworkError
from imagekit.base.units import MIB, format_duration

_POOLED_CONNECTIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRules:
    """What holds for the connections of one origin.

    Attributes:
        connect_seconds: Until the TLS handshake is done.
        answer_seconds: Until the head of an answer is complete; one request may ask for another value.
        check_address: Called with the peer's numeric address before anything is sent; raises to refuse it.
    """

    connect_seconds: float
    answer_seconds: float
    check_address: Callable[[str], None] | None = None


class OriginAdapter(HTTPAdapter):
    """Connections to one origin, with its own trust and rules."""

    def __init__(self, *, rules: ConnectionRules, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._classes = _pool_classes(rules)
        super().__init__(pool_maxsize=_POOLED_CONNECTIONS)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block=block, **self._options(options))
        self._install(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **self._options(options))
        self._install(manager)
        return manager

    def cert_verify(self, *arguments: Any, **options: Any) -> None:
        """Leave trust to the TLS context alone: requests would add its own bundle to it."""

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        tls = {"ssl_context": self._tls} if self._tls is not None else {}
        return {**options, **tls, "blocksize": MIB}

    def _install(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = self._classes


class _Guarded:
    """What a connection of ours adds to urllib3's; mixed into its two connection classes."""

    rules: ClassVar[ConnectionRules]
    answer_seconds: float
    _connecting: socket.socket | None = None

    # urllib3 has no public hook between TCP and TLS; ``_new_conn`` is where its own proxies package hooks in.
    def _new_conn(self) -> socket.socket:
        raw: socket.socket = super()._new_conn()  # type: ignore[misc]  # the mixin's base is urllib3's class
        self._connecting = raw.dup()
        is_direct = not getattr(self, "proxy", None)
        if is_direct and self.rules.check_address is not None:
            try:
                self.rules.check_address(str(raw.getpeername()[0]))
            except BaseException:
                raw.close()
                raise
        return raw

    def connect(self) -> None:
        what = f"the connection to {getattr(self, 'host', '')}"
        try:
            with _deadline(self.rules.connect_seconds, lambda: self._connecting, what=what):
                super().connect()  # type: ignore[misc]  # the mixin's base is urllib3's class
        finally:
            if self._connecting is not None:
                self._connecting.close()
                self._connecting = None

    def getresponse(self) -> Any:  # http.client and urllib3 declare different classes
        limits_seconds = max(self.rules.answer_seconds, float(getattr(self, "timeout", None) or 0))
        what = f"the answer of {getattr(self, 'host', '')}"
        with _deadline(limits_seconds, lambda: getattr(self, "sock", None), what=what):
            return super().getresponse()  # type: ignore[misc]  # the mixin's base is urllib3's class


@contextlib.contextmanager
def _deadline(seconds: float, current_socket: Callable[[], socket.socket | None], *, what: str) -> Iterator[None]:
    """End a blocking exchange after ``seconds`` by shutting its socket down from a timer."""
    has_expired = threading.Event()

    def expire() -> None:
        has_expired.set()
        connected = current_socket()
        with contextlib.suppress(OSError):
            if connected is not None:
                socket.socket.shutdown(connected, socket.SHUT_RDWR)  # not SSLSocket's, which would wait for the peer

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if has_expired.is_set():
            raise NetworkError(f"{what} was not complete after {format_duration(seconds)}", reason="Stalled") from error
        raise
    finally:
        timer.cancel()


def _pool_classes(connection_rules: ConnectionRules) -> dict[str, Any]:
    class PlainConnection(_Guarded, HTTPConnection):
        rules = connection_rules

    class TlsConnection(_Guarded, HTTPSConnection):
        rules = connection_rules

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = PlainConnection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": PlainPool, "https": TlsPool}
