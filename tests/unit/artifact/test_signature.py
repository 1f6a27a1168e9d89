"""minisign's own files are accepted, and every change of them is not."""

from __future__ import annotations

import base64

import pytest

from artifact.signature import SignatureError, parse_public_key, verify_signature

# Made by minisign 0.11 from throw-away keys.
KEY = "RWQMxSggVayMj9XIuF+rGCgZDO4xaMV+NwlZm85t9wZaQA7JGreQogkb"
OTHER_KEY = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"  # the example of minisign's page
CONTENT = b'{"format_version": "1.0"}\n'
SIGNATURE = """untrusted comment: signature from minisign secret key
RUQMxSggVayMj9BLFsMBnohMsYEuXhkZWVRt5x0xc+NQK+FYitBwiNME8jkzhYZWwLeGB0Ke+khzQX7/j06Xjy50Ko5aPV8zyAc=
trusted comment: signed for a test
AYCy/BH2MqI+Ye6wjYRXvjzeMhkTwwCMm+RRONwAcqu8S7ZCt/4sTJeg0TxFIAn6UK83rV15Ey7OtTU2mib3BA==
"""
UNHASHED = """untrusted comment: signature from minisign secret key
RWQMxSggVayMjzpvZUZairwEOQqotkC3uQiZlrot4HCnN9s6UD2ywUqtI3LQiNbygEiNSJftpd4SkcmP5Rl/9y+zgGImhs+saQc=
trusted comment: old form
FuNVwDPEjD4etvwvQVuHugIS36hrDIZqOue74e7p6zpZ3Pi60UsHlcfSG27EhD0B9LhdbYJLbuJS+lEgsowdCQ==
"""


@pytest.mark.parametrize(
    ("signature", "comment"),
    [(SIGNATURE, "signed for a test"), (UNHASHED, "old form")],
    ids=["hashed", "plain"],
)
@pytest.mark.parametrize("text", [KEY, f"untrusted comment: minisign public key 8F8CAC552028C50C\n{KEY}\n"])
def test_signature_of_minisign_is_accepted(signature: str, comment: str, text: str) -> None:
    assert verify_signature(CONTENT, signature, parse_public_key(text)) == comment


def test_other_content_is_refused() -> None:
    with pytest.raises(SignatureError, match="does not fit the file"):
        verify_signature(CONTENT + b" ", SIGNATURE, parse_public_key(KEY))


def test_other_key_is_refused_naming_both() -> None:
    with pytest.raises(SignatureError, match=r"key 8F8CAC552028C50C, .* E7620F1842B4E81F"):
        verify_signature(CONTENT, SIGNATURE, parse_public_key(OTHER_KEY))


def test_other_key_under_the_same_number_is_refused() -> None:
    stored = bytearray(base64.b64decode(OTHER_KEY))
    stored[2:10] = base64.b64decode(KEY)[2:10]

    with pytest.raises(SignatureError, match="does not fit the file"):
        verify_signature(CONTENT, SIGNATURE, parse_public_key(base64.b64encode(stored).decode()))


def test_changed_trusted_comment_is_refused() -> None:
    with pytest.raises(SignatureError, match="trusted comment that was changed"):
        verify_signature(CONTENT, SIGNATURE.replace("a test", "a toast"), parse_public_key(KEY))


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "x",
        SIGNATURE.replace("RUQM", "XXQM"),
        SIGNATURE.replace("trusted comment: s", "s"),
        SIGNATURE[:200],
    ],
)
def test_what_is_no_signature_is_refused(signature: str) -> None:
    with pytest.raises(SignatureError, match="not a minisign signature"):
        verify_signature(CONTENT, signature, parse_public_key(KEY))


@pytest.mark.parametrize(
    "text", ["", "RW", KEY[:-2], KEY + "A", f"{KEY}\n{KEY}", "€" * 56, KEY.replace("RW", "AA")]
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(SignatureError, match="not a minisign public key"):
        parse_public_key(text)
