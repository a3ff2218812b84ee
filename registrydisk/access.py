"""How registries and web servers are reached: credentials, trust, proxies, patience.

One frozen value travels from a command's options down to every connection, so that nothing below reads the process
environment, the user's home or the clock on its own. It imports no HTTP library: ``--help`` builds it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imagekit.base.clock import SYSTEM_CLOCK, Clock
from imagekit.base.errors import UsageError
from imagekit.base.retry import RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What proves who we are: a name with a password, or an identity token (an OAuth2 refresh token).

    It never prints its secret.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Credential:
        """Return the credential that ``USER:PASSWORD`` writes.

        Raises:
            UsageError: There is no colon; the text is not repeated, it may be a password.
        """
        username, colon, password = text.partition(":")
        if not colon or not username:
            raise UsageError("the credentials are not USER:PASSWORD", hint="or log in once with `registrydisk login REGISTRY`")
        return cls(username=username, password=password)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """How patient a connection is.

    Attributes:
        connect_seconds: Until a connection, with its TLS handshake, stands.
        answer_seconds: Until the head of an answer is complete.
        commit_seconds: The same where a registry moves a whole blob before it answers.
        stall_seconds: Over this time a body must move ``stall_bytes_per_second``, or its connection is given up.
        stall_bytes_per_second: The slowest body that is not called stalled.
        retry: How often and how long apart temporary failures are tried again.
    """

    connect_seconds: float = 10.0
    answer_seconds: float = 120.0
    commit_seconds: float = 900.0
    stall_seconds: float = 60.0
    stall_bytes_per_second: int = 1024
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAccess:
    """Everything that a command line or a job says about reaching registries and web servers.

    Attributes:
        credential: Used for the registry that the user named, before any stored one.
        auth_file: Read instead of the usual files (containers-auth.json(5)).
        is_insecure: Do not verify the TLS certificate of the host that the user named.
        is_plain_http: Speak http to the host that the user named.
        certificate_directory: ``*.crt``, ``*.cert`` and ``*.key`` for the host that the user named.
        token_hosts: More ``HOST[:PORT]`` that may ask for this registry's credentials and hand out its tokens.
        environment: HOME, XDG_RUNTIME_DIR, REGISTRY_AUTH_FILE, DOCKER_CONFIG and the proxy variables are looked at.
        system_directory: Where docker/certs.d, containers/ and containerd/ are configured.
    """

    credential: Credential | None = None
    auth_file: Path | None = None
    is_insecure: bool = False
    is_plain_http: bool = False
    certificate_directory: Path | None = None
    token_hosts: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    system_directory: Path = Path("/etc")
    limits: HttpLimits = field(default_factory=HttpLimits)
    clock: Clock = SYSTEM_CLOCK
