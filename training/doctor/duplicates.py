"""Files that are the same: byte for byte, or the same picture encoded, resized, cropped or mirrored.

Near ones are searched by 64-bit hash without comparing all with all, then verified by the correlation of
their luma signatures and by their colours. benchmarks/results holds the measurements behind the thresholds.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from training.doctor.files import COLOURS_SIDE, SIGNATURE_SIDE, FileFacts, hash_margins

Indices = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

HASH_BITS = 64
MAX_DISTANCE = 12  # of 64 bits: reaches a picture cropped by 4 %
MAX_RANK = 6  # of a chunk's bits, least certain first
# Which ranks to flip: the 16 likeliest, by the sum of (rank + 1).
PROBES = sorted(
    (ranks for count in range(4) for ranks in combinations(range(MAX_RANK), count)),
    key=lambda ranks: (sum(ranks) + len(ranks), len(ranks)),
)[:16]
MAX_BUCKET = 64  # hashes looked at per probe: bounds the time on sets of equal pictures
MIN_CORRELATION = 0.93  # of signatures, aligned
MAX_COLOUR_DIFFERENCE = 5.0  # of chroma 0-255, mean: drawn shapes match in luma, and differ in colour
SURE_CORRELATION = 0.99  # from here on it may be a toned copy of a photo,
MAX_TONED_DIFFERENCE = 15.0  # with colours that differ by as much
HOPELESS_CORRELATION = 0.5  # no alignment mends it: the least of 1500 pictures cropped by 4 % was 0.78
CROP_SHARE = 0.02  # per side: signatures are compared as they are, and each with the other's inside
MIN_DEVIATION = 2.0  # of a signature's luma: flatter pictures have nothing to be recognised by
CANDIDATES_AT_ONCE = 1 << 20  # bounds the memory of the search
SIGNATURES_AT_ONCE = 1 << 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two files that show the same picture without being byte-identical."""

    first: int  # index into the facts, first < second
    second: int
    distance: int  # differing bits of the hashes
    mirrored: bool  # one is the other's mirror image
    correlation: float = 1.0  # of the signatures


def find_exact_duplicates(facts: Sequence[FileFacts]) -> list[list[int]]:
    """Groups of two or more files with the same bytes; empty files are only unreadable."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, file in enumerate(facts):
        if file.sha256 and file.size_bytes:
            groups[file.sha256].append(index)
    return [group for group in groups.values() if len(group) > 1]


def find_near_duplicates(facts: Sequence[FileFacts]) -> list[Pair]:
    """Pairs that are the same picture but not the same bytes, sorted; a pair near both ways is not mirrored.

    Of byte-identical files one per split and label stands for the others. In a crowd of equal pictures (more
    than MAX_BUCKET) each is paired with some, not with all.
    """
    members = _distinct_pictures(facts)
    files = [facts[group[0]] for group in members]
    hashes = np.array([file.hash for file in files], dtype=np.uint64)
    mirrored_hashes = np.array([file.mirrored_hash for file in files], dtype=np.uint64)
    signatures = stack_signatures(files)
    colours = stack_colours(files)
    found: dict[tuple[int, int], Pair] = {}
    for mirrored, queries in ((False, hashes), (True, mirrored_hashes)):
        seconds = signatures[:, :, ::-1] if mirrored else signatures
        second_colours = colours[:, :, ::-1] if mirrored else colours
        for first, second in near_hashes(queries, hashes, order_by_certainty(seconds)):
            correlations = aligned_correlations(signatures, seconds, first, second)
            differences = colour_differences(colours, second_colours, first, second)
            same = is_same_picture(correlations, differences)
            for a, b, correlation in zip(
                first[same].tolist(), second[same].tolist(), correlations[same].tolist(), strict=True
            ):
                distance = min(
                    int(queries[a] ^ hashes[b]).bit_count(), int(queries[b] ^ hashes[a]).bit_count()
                )
                pair = Pair(first=a, second=b, distance=distance, mirrored=mirrored, correlation=correlation)
                found.setdefault((a, b), pair)
    return sorted(_expand(found.values(), members), key=lambda pair: (pair.first, pair.second))


def is_same_picture(correlations: Floats, differences: Floats) -> NDArray[np.bool_]:
    """Of pairs near by hash, by the correlation of their luma and the difference of their colours."""
    allowed = np.where(correlations >= SURE_CORRELATION, MAX_TONED_DIFFERENCE, MAX_COLOUR_DIFFERENCE)
    return (correlations >= MIN_CORRELATION) & (differences <= allowed)


def near_hashes(queries: Hashes, hashes: Hashes, least_certain: Bytes) -> Iterator[tuple[Indices, Indices]]:
    """Batches of index pairs first < second with at most MAX_DISTANCE bits between query and hash, each once.

    The hashes are cut into chunks of about log2(n) bits, each with a table of who has which value. A picture
    is looked up under its own value and those that differ in its least certain bits: those whose coefficients
    are nearest to zero are the ones that a crop turns (multi-probe hashing, Lv et al. 2007).
    """
    num_hashes = len(hashes)
    known = np.empty(0, dtype=np.int64)
    for first, second in _probe_chunks(queries, hashes, least_certain):
        pairs = np.minimum(first, second) * num_hashes + np.maximum(first, second)
        fresh = np.setdiff1d(pairs[first != second], known)
        if len(fresh):
            known = np.union1d(known, fresh)
            yield fresh // num_hashes, fresh % num_hashes


def _probe_chunks(queries: Hashes, hashes: Hashes, least_certain: Bytes) -> Iterator[tuple[Indices, Indices]]:
    num_chunks = _num_chunks(len(hashes))
    for number in range(num_chunks):
        bits = np.arange(number, HASH_BITS, num_chunks)
        keys, query_keys = _chunk_keys(hashes, bits), _chunk_keys(queries, bits)
        order, query_order = np.argsort(keys, kind="stable"), np.argsort(query_keys, kind="stable")
        sorted_hashes, sorted_queries = hashes[order], queries[query_order]  # neighbours in memory too
        starts = np.searchsorted(keys[order], np.arange((1 << len(bits)) + 1))
        flips = _bits_to_flip(least_certain, bits)[query_order]
        for probe in PROBES:
            wanted = query_keys[query_order] ^ flips[:, list(probe)].sum(axis=1)
            for first, second in _join(starts[wanted], starts[wanted + 1]):
                near = np.bitwise_count(sorted_queries[first] ^ sorted_hashes[second]) <= MAX_DISTANCE
                yield query_order[first[near]], order[second[near]]


def _num_chunks(num_hashes: int) -> int:
    """As many as have about log2(n) bits each, so that a value is shared by few; of 16 bits at most."""
    return max(4, HASH_BITS // max(8, math.ceil(math.log2(num_hashes + 1))))


def _chunk_keys(hashes: Hashes, bits: Indices) -> Indices:
    keys = np.zeros(len(hashes), dtype=np.int64)
    for place, bit in enumerate(bits):
        keys |= (((hashes >> np.uint64(bit)) & np.uint64(1)) << np.uint64(place)).astype(np.int64)
    return keys


def order_by_certainty(signatures: Bytes) -> Bytes:
    """Each picture's hash bits, least certain first, (N, 64)."""
    ordered = np.empty((len(signatures), HASH_BITS), dtype=np.uint8)
    for start in range(0, len(signatures), SIGNATURES_AT_ONCE):
        part = slice(start, start + SIGNATURES_AT_ONCE)
        margins = np.abs(hash_margins(signatures[part].astype(np.float32))).reshape(-1, HASH_BITS)
        margins[:, 0] = np.inf  # the mean has no bit
        ordered[part] = HASH_BITS - 1 - np.argsort(margins, axis=1)  # the first is the highest bit
    return ordered


def _bits_to_flip(least_certain: Bytes, bits: Indices) -> Indices:
    """The key bits of the chunk's MAX_RANK least certain places, (N, MAX_RANK)."""
    place = np.full(HASH_BITS, -1, dtype=np.int8)
    place[bits] = np.arange(len(bits))
    places = place[least_certain]  # (N, 64), -1 outside the chunk
    inside = places[places >= 0].reshape(len(places), len(bits))
    return np.int64(1) << inside[:, :MAX_RANK].astype(np.int64)


def _join(starts: Indices, ends: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Every index of `starts` with every number from its start to its end, in batches."""
    counts = np.minimum(ends - starts, MAX_BUCKET)
    busy = np.flatnonzero(counts)
    totals = np.cumsum(counts[busy])
    position = 0
    while position < len(busy):
        done = totals[position - 1] if position else 0
        upto = max(position + 1, int(np.searchsorted(totals, done + CANDIDATES_AT_ONCE, side="right")))
        batch = busy[position:upto]
        skipped = totals[position:upto] - counts[batch] - done
        first = np.repeat(batch, counts[batch])
        yield first, np.arange(len(first)) + np.repeat(starts[batch] - skipped, counts[batch])
        position = upto


def _distinct_pictures(facts: Sequence[FileFacts]) -> list[list[int]]:
    """Per picture that can be recognised, one index per split and label with the same bytes."""
    pictures: defaultdict[str, dict[tuple[str, str], int]] = defaultdict(dict)
    for index, file in enumerate(facts):
        if file.signature and np.frombuffer(file.signature, np.uint8).std() >= MIN_DEVIATION:
            pictures[file.sha256].setdefault((file.split, file.label), index)
    return [list(places.values()) for places in pictures.values()]


def _expand(pairs: Iterable[Pair], members: Sequence[list[int]]) -> Iterator[Pair]:
    for pair in pairs:
        for a, b in product(members[pair.first], members[pair.second]):
            yield replace(pair, first=min(a, b), second=max(a, b))


def stack_signatures(files: Sequence[FileFacts]) -> Bytes:
    """(N, SIGNATURE_SIDE, SIGNATURE_SIDE) uint8; every file readable."""
    luma = np.frombuffer(b"".join(file.signature for file in files), np.uint8)
    return luma.reshape(-1, SIGNATURE_SIDE, SIGNATURE_SIDE)


def stack_colours(files: Sequence[FileFacts]) -> Bytes:
    """(N, COLOURS_SIDE, COLOURS_SIDE, 2) uint8; every file readable."""
    chroma = np.frombuffer(b"".join(file.colours for file in files), np.uint8)
    return chroma.reshape(-1, COLOURS_SIDE, COLOURS_SIDE, 2)


def colour_differences(firsts: Bytes, seconds: Bytes, first: Indices, second: Indices) -> Floats:
    """Mean absolute difference of chroma, place by place."""
    differences = np.empty(len(first), dtype=np.float32)
    for start in range(0, len(first), SIGNATURES_AT_ONCE):
        part = slice(start, start + SIGNATURES_AT_ONCE)
        a, b = firsts[first[part]].astype(np.float32), seconds[second[part]].astype(np.float32)
        differences[part] = np.abs(a - b).mean(axis=(1, 2, 3))
    return differences


def aligned_correlations(firsts: Bytes, seconds: Bytes, first: Indices, second: Indices) -> Floats:
    """Whole on whole; where that leaves doubt, also either one's inside on the other's whole."""
    correlations = np.empty(len(first), dtype=np.float32)
    for start in range(0, len(first), SIGNATURES_AT_ONCE):
        part = slice(start, start + SIGNATURES_AT_ONCE)
        a, b = firsts[first[part]].astype(np.float32), seconds[second[part]].astype(np.float32)
        whole = _correlations(a, b)
        doubtful = (whole >= HOPELESS_CORRELATION) & (whole < MIN_CORRELATION)
        a, b = a[doubtful], b[doubtful]
        insides = np.maximum(_correlations(_zoom_in(a), b), _correlations(a, _zoom_in(b)))
        whole[doubtful] = np.maximum(whole[doubtful], insides)
        correlations[part] = whole
    return correlations


def _correlations(a: Floats, b: Floats) -> Floats:
    a = a - a.mean(axis=(1, 2), keepdims=True)
    b = b - b.mean(axis=(1, 2), keepdims=True)
    norms = np.sqrt((a**2).sum(axis=(1, 2)) * (b**2).sum(axis=(1, 2)))
    correlations: Floats = (a * b).sum(axis=(1, 2)) / np.maximum(norms, 1e-6)
    return correlations


def _zoom_in(pictures: Floats) -> Floats:
    zoom = _zoom()
    inside: Floats = (zoom @ pictures @ zoom.T).astype(np.float32, copy=False)
    return inside


@functools.cache
def _zoom() -> Floats:
    """Resamples a line of SIGNATURE_SIDE pixels to its inside, bilinear."""
    position = (np.arange(SIGNATURE_SIDE) + 0.5) * (1 - 2 * CROP_SHARE) + SIGNATURE_SIDE * CROP_SHARE - 0.5
    left = np.floor(position).astype(int)
    zoom = np.zeros((SIGNATURE_SIDE, SIGNATURE_SIDE), dtype=np.float32)
    rows = np.arange(SIGNATURE_SIDE)
    zoom[rows, left] = 1 - (position - left)
    zoom[rows, left + 1] = position - left
    return zoom
