"""OCI layouts whose layers are made by hand, sound and hostile."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from registrydisk.digest import Digest
from registrydisk.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST

Member = tuple[str, bytes] | tarfile.TarInfo


def layer(*members: Member) -> bytes:
    """Return a tar archive of regular files, and of whatever TarInfo says."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """Return a member that is a link, a device or the like."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def write_layout(
    directory: Path,
    layers: Iterable[bytes],
    *,
    platform: str = "amd64",
    diff_ids: Iterable[str] | None = None,
    annotations: Mapping[str, str] | None = None,
    config: Mapping[str, object] | None = None,
) -> str:
    """Write an image, base layer first, and return how a command names it."""
    archives = list(layers)
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, media_type: str) -> dict[str, object]:
        digest = Digest.of(content)
        (blobs / digest.encoded).write_bytes(content)
        return {"mediaType": media_type, "digest": str(digest), "size": len(content)}

    described = [put(gzip.compress(archive, 1, mtime=0), f"{OCI_LAYER}+gzip") for archive in archives]
    document = {
        "architecture": platform,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids or (str(Digest.of(archive)) for archive in archives))},
        "config": dict(config or {}),
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": put(json.dumps(document).encode(), OCI_CONFIG),
        "layers": described,
        "annotations": dict(annotations or {}),
    }
    top = put(json.dumps(manifest).encode(), OCI_MANIFEST) | {"annotations": {"org.opencontainers.image.ref.name": "1"}}
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    return f"oci:{directory}:1"
