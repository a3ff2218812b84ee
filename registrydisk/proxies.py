"""Which proxy a request takes: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in either case, as curl reads them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from registrydisk.origin import Origin


def proxy_for(origin: Origin, environment: Mapping[str, str]) -> str:
    """Return the proxy's URL for ``origin``, or an empty text; loopback is always reached directly."""
    if origin.is_loopback or _is_exempt(origin, _variable(environment, "no_proxy")):
        return ""
    proxy = _variable(environment, f"{origin.scheme}_proxy") or _variable(environment, "all_proxy")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _variable(environment: Mapping[str, str], name: str) -> str:
    # A CGI server turns the header "Proxy:" into HTTP_PROXY, so that one counts in lower case only there (CVE-2016-5385).
    if name == "http_proxy" and "REQUEST_METHOD" in environment:
        return environment.get(name, "").strip()
    return (environment.get(name) or environment.get(name.upper()) or "").strip()


def _is_exempt(origin: Origin, exemptions: str) -> bool:
    return any(_matches(origin, entry.strip().lower()) for entry in exemptions.split(",") if entry.strip())


def _matches(origin: Origin, entry: str) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return _is_in_network(origin.host, entry)
    name, _, port = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
    if port and port != str(origin.port):
        return False
    name = name.removeprefix("*").lstrip(".")
    return origin.host == name or origin.host.endswith(f".{name}")


def _is_in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
