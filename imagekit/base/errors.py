"""The one error tree of the toolkit.

    ImagekitError                     1   Failed
    ├── UsageError                    2   BadRequest
    ├── NotFoundError                 3   NotFound
    ├── AccessError                   4   Unauthorized | Forbidden | TLSUntrusted | RealmRefused | RedirectRefused
    ├── VerificationError             5   DigestMismatch | ChecksumMismatch | SizeMismatch | TruncatedStream
    ├── NetworkError                  6   UpstreamUnavailable | RateLimited | Stalled | ConnectionReset   (temporary)
    ├── NoSpaceError                  7   NoSpace | TooLarge (for the target)
    ├── ImageError                    8   UnsafeImage | UnsupportedFormat | TooLarge (for a limit of ours) | BadManifest | ...
    ├── PartialError                  9   PartlyFailed
    ├── ToolError                     1   ToolCrashed | ToolFailed | ToolMissing
    └── DeadlineError               124   Timeout

A class fixes the exit code; ``reason`` is the machine-readable word that also becomes a condition's reason; and
``temporary`` says whether the same call may succeed later. So the command line, a status and a queue always agree.
"""

from __future__ import annotations

from typing import ClassVar


class ImagekitError(Exception):
    """Something failed that the user should read about in plain words.

    Args:
        message: What failed, with which value.
        reason: CamelCase word for machines; the class's default when omitted.
        hint: What the reader can do about it; empty when there is nothing to say.
        temporary: Whether the same call may succeed later; the class's default when omitted.
        retry_after_seconds: How long the other side asked us to wait.
    """

    exit_code: ClassVar[int] = 1
    default_reason: ClassVar[str] = "Failed"
    default_temporary: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        hint: str = "",
        temporary: bool | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.hint = hint
        self.temporary = self.default_temporary if temporary is None else temporary
        self.retry_after_seconds = retry_after_seconds


class UsageError(ImagekitError):
    """The request itself makes no sense."""

    exit_code = 2
    default_reason = "BadRequest"


class NotFoundError(ImagekitError):
    """A file, image, tag or blob does not exist."""

    exit_code = 3
    default_reason = "NotFound"


class AccessError(ImagekitError):
    """The other side refused us, or we refused to trust it."""

    exit_code = 4
    default_reason = "Unauthorized"


class VerificationError(ImagekitError):
    """Bytes are not what a digest, checksum or size promised."""

    exit_code = 5
    default_reason = "DigestMismatch"


class NetworkError(ImagekitError):
    """The network or a server failed; trying again later may help."""

    exit_code = 6
    default_reason = "UpstreamUnavailable"
    default_temporary = True


class NoSpaceError(ImagekitError):
    """The target cannot hold the disk."""

    exit_code = 7
    default_reason = "NoSpace"


class ImageError(ImagekitError):
    """An image is unsafe, broken or of a kind that is not supported."""

    exit_code = 8
    default_reason = "UnsupportedFormat"


class PartialError(ImagekitError):
    """Some of many succeeded."""

    exit_code = 9
    default_reason = "PartlyFailed"


class ToolError(ImagekitError):
    """An external program failed, crashed or is missing; ``said`` is the end of its standard error.

    Only the program's own wrapper reads ``said``, to raise a better type where the program tells only words.
    """

    default_reason = "ToolFailed"

    def __init__(self, message: str, *, reason: str = "", hint: str = "", said: str = "") -> None:
        super().__init__(message, reason=reason, hint=hint)
        self.said = said


class DeadlineError(ImagekitError):
    """Something did not end in the time it was given."""

    exit_code = 124
    default_reason = "Timeout"
    default_temporary = True
