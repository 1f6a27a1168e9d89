"""Who made an artifact: a minisign signature of manifest.json, which holds the sha256 of every other file.

    minisign -Sm model/manifest.json   # makes model/manifest.json.minisig; `minisign -G` made the key

The format (https://jedisct1.github.io/minisign/): Ed25519 over the file's BLAKE2b-512 (`ED`) or, as written
before 2021, over the file itself (`Ed`); a second signature covers the first and the trusted comment.
`cryptography` is imported only where a signature is to be verified.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

HASHED, PLAIN = b"ED", b"Ed"
KEY_ID_BYTES = 8
COMMENT = "trusted comment: "


class SignatureError(ValueError):
    """The public key cannot be read, or the signature is not that of this key over these bytes."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 key and the number by which minisign tells keys apart."""

    key_id: bytes  # 8 bytes
    key: bytes  # 32 bytes


def parse_public_key(text: str) -> PublicKey:
    """The second line of minisign.pub, or the whole file. Raises SignatureError."""
    lines = [line for line in text.strip().splitlines() if not line.startswith("untrusted comment:")]
    stored = _decode(lines[0], length=42) if len(lines) == 1 else None
    if stored is None or stored[:2] != PLAIN:
        raise SignatureError("is not a minisign public key: the line of minisign.pub that begins with RW")
    return PublicKey(stored[2:10], stored[10:])


def verify_signature(content: bytes, signature: str, public_key: PublicKey) -> str:
    """The trusted comment of a .minisig file that signs `content`. Raises SignatureError saying why not."""
    signed, comment, global_signature = _parse(signature)
    algorithm, key_id, signed = signed[:2], signed[2:10], signed[10:]
    if key_id != public_key.key_id:
        raise SignatureError(
            f"was made with key {_name(key_id)}, and the configured key is {_name(public_key.key_id)}"
        )
    message = hashlib.blake2b(content).digest() if algorithm == HASHED else content
    _verify(public_key.key, signed, message, fault="does not fit the file: one of them was changed")
    _verify(
        public_key.key,
        global_signature,
        signed + comment.encode(),
        fault="has a trusted comment that was changed",
    )
    return comment


def _parse(signature: str) -> tuple[bytes, str, bytes]:
    """(algorithm, key id and signature), trusted comment, signature of both."""
    lines = signature.strip().splitlines()
    if len(lines) == 4 and lines[2].startswith(COMMENT):
        signed, global_signature = _decode(lines[1], length=74), _decode(lines[3], length=64)
        if signed is not None and global_signature is not None and signed[:2] in (HASHED, PLAIN):
            return signed, lines[2].removeprefix(COMMENT), global_signature
    raise SignatureError("is not a minisign signature of four lines")


def _verify(key: bytes, signature: bytes, message: bytes, *, fault: str) -> None:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise SignatureError(
            f"cannot be verified: the package cryptography is not installed ({error})"
        ) from error
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(fault) from error


def _decode(text: str, *, length: int) -> bytes | None:
    try:
        decoded = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        return None
    return decoded if len(decoded) == length else None


def _name(key_id: bytes) -> str:
    return key_id[::-1].hex().upper()  # as minisign prints it
