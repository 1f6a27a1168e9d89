"""Which kinds of picture are opened at all, and what the others are called when they are refused.

Pillow has some forty parsers and tries them on any bytes; each is a place for hostile files to strike, and
one (EPS) starts another program. Only those that people's pictures are in are let near a body.
"""

from __future__ import annotations

# What torchvision's ImageFolder lists (JPEG, PNG, PPM and its kin, BMP, TIFF, WebP) and the web's other two.
# A phone's MPO opens as JPEG. Left out: EPS, PSD, JPEG 2000, ICO, ICNS, TGA, PCX, SGI, DDS, BLP, FLI, ...
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# (offset, bytes there, name), the first that fits. For messages alone: nothing is parsed because of them.
SIGNATURES = (
    *((4, b"ftyp" + brand, "a HEIC or HEIF picture") for brand in HEIF_BRANDS),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"8BPS", "a Photoshop picture"),
    (0, b"\0\0\1\0", "a Windows icon"),
    (0, b"\0\0\2\0", "a Windows cursor"),
    (0, b"icns", "a macOS icon"),
    (0, b"DDS ", "a DDS texture"),
    (0, b"BLP1", "a BLP texture"),
    (0, b"BLP2", "a BLP texture"),
    (0, b"\x01\xda", "an SGI picture"),
    (4, b"\x11\xaf", "a FLI animation"),
    (4, b"\x12\xaf", "a FLC animation"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (0, b"qoif", "a QOI picture"),
    (0, b"SIMPLE  =", "a FITS picture"),
    (0, b"%!PS", "PostScript"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"PK\x05\x06", "an empty ZIP archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\x93NUMPY", "a NumPy array"),
)
MARKUP = ((b"<!doctype html", "an HTML page"), (b"<html", "an HTML page"), (b"<svg", "an SVG drawing"))


def name_foreign_format(body: bytes) -> str | None:
    """What the bytes are, with its article, where they begin like something that is not opened; else None."""
    for offset, signature, name in SIGNATURES:
        if body[offset : offset + len(signature)] == signature:
            return name
    start = body[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<?xml"):
        return "an SVG drawing" if b"<svg" in body[:4096] else "an XML document"
    return next((name for signature, name in MARKUP if start.startswith(signature)), None)
