"""What the operator allows one request to cost: plain values that `respond` is called with."""

from __future__ import annotations

from dataclasses import dataclass

from artifact.preprocess import MAX_PIXELS
from serving.settings import MIB, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Limits of a request; the defaults are those of the settings."""

    max_pixels: int = MAX_PIXELS  # of one picture
    max_images: int = 1000
    max_fetch_bytes: int = 25 * MIB  # of one fetched picture
    url_allow: tuple[str, ...] = ()  # prefixes; without one nothing is fetched


def build_options(settings: Settings) -> Options:
    """The options these settings ask for."""
    return Options(
        max_pixels=settings.max_pixels,
        max_images=settings.max_images,
        max_fetch_bytes=settings.max_payload_mb * MIB,
        url_allow=settings.url_allow,
    )
