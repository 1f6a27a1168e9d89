"""Will SageMaker take this image? Read it back from its registry, judge it, remember its digest.

    python -m local.image_check built training kennel/training:TAG      before the push
    python -m local.image_check compare kennel/training:TAG REGISTRY/kennel/training:TAG
    python -m local.image_check pushed training REGISTRY/kennel/training:TAG

The standard library only: build_and_push.sh runs this wherever there is Docker and Python 3.11.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.registry import (
    DOCKER_MANIFEST,
    ImageError,
    Manifest,
    download_config,
    download_manifest,
    parse_reference,
)

IMAGES_FILE = Path(__file__).resolve().parents[1] / "container" / "images.json"
SERVERLESS_LIMIT_BYTES = 10 * 1000**3
BIND_LABEL = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One judgement; `refuses` when SageMaker would not take the image, or Kennel's promises would break."""

    refuses: bool
    message: str


def judge(name: str, *, manifest: Manifest, config: Mapping[str, Any], platform: str) -> list[Finding]:
    """All there is to say against a pushed image; `config` is the registry's own image config."""
    return judge_manifest(name, manifest) + (judge_config(name, config, platform) if config else [])


def judge_manifest(name: str, manifest: Manifest) -> list[Finding]:
    """Media type and size."""
    findings = []
    if manifest.media_type != DOCKER_MANIFEST:
        message = (
            f"its manifest is {manifest.media_type!r}, and CreateModel takes only {DOCKER_MANIFEST} "
            "(aws/amazon-sagemaker-feedback#180). Build without provenance and SBOM attestations, turn the "
            "engine's containerd image store off if it is on, and push under a new tag."
        )
        findings.append(Finding(refuses=True, message=message))
    if name.startswith("serving") and manifest.compressed_bytes > SERVERLESS_LIMIT_BYTES:
        message = (
            f"it is {_gigabytes(manifest.compressed_bytes)} compressed: serverless endpoints take images "
            "up to 10 GB; real-time endpoints and jobs take longer to start."
        )
        findings.append(Finding(refuses=False, message=message))
    return findings


def judge_config(name: str, config: Mapping[str, Any], platform: str) -> list[Finding]:
    """Platform, entry point, user and labels."""
    runtime = config.get("config") or {}
    refusals = [_judge_platform(config, platform), _judge_entrypoint(name, runtime.get("Entrypoint") or [])]
    user = str(runtime.get("User") or "")
    if name == "training" and user.split(":")[0] not in ("", "0", "root"):
        refusals.append(
            f"it runs as USER {user!r}, but SageMaker makes /opt/ml for root; drop USER from its Dockerfile."
        )
    if name.startswith("serving") and (runtime.get("Labels") or {}).get(BIND_LABEL) != "true":
        refusals.append(
            f"it lacks the label {BIND_LABEL}=true, without which it is refused in an inference pipeline."
        )
    findings = [Finding(refuses=True, message=message) for message in refusals if message]
    if _is_shell_form(runtime.get("Entrypoint") or []):
        message = "its ENTRYPOINT is in shell form, so SIGTERM ends at the shell; write it as a JSON list."
        findings.append(Finding(refuses=False, message=message))
    return findings


def _judge_platform(config: Mapping[str, Any], platform: str) -> str:
    found = f"{config.get('os')}/{config.get('architecture')}"
    if found == platform and platform in ("linux/amd64", "linux/arm64"):
        return ""
    return f"it is built for {found}, and {platform} was asked for; build it with PLATFORM=linux/amd64."


def _judge_entrypoint(name: str, entrypoint: Sequence[str]) -> str:
    verb = "train" if name == "training" else "serve"
    if not entrypoint:
        return f'it has no ENTRYPOINT, and whether it has `{verb}` cannot be seen. Add ENTRYPOINT ["{verb}"].'
    if entrypoint[0].rsplit("/", 1)[-1].startswith("tini"):
        return "its ENTRYPOINT is tini, which takes SageMaker's `train` and `serve` for its own arguments."
    return ""


def _is_shell_form(entrypoint: Sequence[str]) -> bool:
    return len(entrypoint) > 1 and entrypoint[0].endswith("sh") and entrypoint[1] == "-c"


def image_uri(name: str, *, file: Path = IMAGES_FILE) -> str:
    """REPOSITORY@DIGEST of an image as it was last pushed from here."""
    image = read_images(file).get(name)
    if image is None:
        raise ImageError(f"No {name!r} in {file}; push it: ./build_and_push.sh build push {name}")
    return image["uri"]


def planned_image_uri(name: str, *, file: Path = IMAGES_FILE) -> str:
    """`image_uri`, or a stand-in to print where nothing was pushed yet; nothing to send to AWS."""
    return read_images(file)[name]["uri"] if name in read_images(file) else f"<digest of {name}>"


def read_images(file: Path = IMAGES_FILE) -> dict[str, dict[str, str]]:
    """Every image pushed from here: name -> uri, tag, pushed."""
    try:
        images: dict[str, dict[str, str]] = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ImageError(f"{file} is not JSON ({error}); delete it and push again.") from error
    return images


def write_image(name: str, *, uri: str, tag: str, file: Path = IMAGES_FILE) -> None:
    """Add or replace one image; the others stay, also when two pushes write at once."""
    with _locked(file.parent):
        images = read_images(file)
        if images.get(name, {}).get("uri") == uri and images[name]["tag"] == tag:
            return
        pushed = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        images[name] = {"uri": uri, "tag": tag, "pushed": pushed}
        partial = file.with_name(f".{file.name}.partial")
        partial.write_text(json.dumps(images, indent=2, sort_keys=True) + "\n")
        partial.replace(file)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder itself is the lock: nothing is left behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_built_image(tag: str) -> tuple[str, dict[str, Any]]:
    """Id and config of an image in the local engine, in the words of the registry's config."""
    command = ["docker", "image", "inspect", tag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageError(f"{tag} is not built here; run ./build_and_push.sh build first.")
    (image,) = json.loads(done.stdout)
    config = {"os": image["Os"], "architecture": image["Architecture"], "config": image["Config"]}
    return image["Id"], config


def report_lines(uri: str, manifest: Manifest, config: Mapping[str, Any]) -> list[str]:
    """What was read back, for people."""
    runtime = config.get("config") or {}
    labels = sorted((runtime.get("Labels") or {}).items())
    size = (
        f"{_gigabytes(manifest.compressed_bytes)} compressed, {len(manifest.body.get('layers', ()))} layers"
    )
    rows = {
        "manifest": manifest.media_type,
        "platform": f"{config.get('os')}/{config.get('architecture')}",
        "size": size,
        "entrypoint": f"{json.dumps(runtime.get('Entrypoint'))} cmd {json.dumps(runtime.get('Cmd'))}",
        "user": runtime.get("User") or "root",
        "labels": " ".join(f"{key}={value}" for key, value in labels) or "none",
    }
    return [uri, *(f"  {name:<10} {value}" for name, value in rows.items())]


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1000**3:.2f} GB"


def _verdict(findings: Sequence[Finding], *, accepted: str, refused: str) -> int:
    """Print it; 1 when SageMaker would refuse."""
    for finding in findings:
        print(f"  {refused if finding.refuses else 'Note:'} {finding.message}")
    if any(finding.refuses for finding in findings):
        return 1
    print(f"  {accepted}")
    return 0


def _built(options: argparse.Namespace) -> int:
    _, config = read_built_image(options.tag)
    findings = [
        finding for finding in judge_config(options.name, config, options.platform) if finding.refuses
    ]
    return _verdict(findings, accepted="fit to push", refused="Not pushed; SageMaker would refuse it:")


def _compare(options: argparse.Namespace) -> int:
    """One word on stdout: absent, same, or different."""
    image_id, _ = read_built_image(options.built)
    manifest = download_manifest(parse_reference(options.reference))
    if manifest is None:
        print("absent")
    else:  # an engine with the containerd image store calls the manifest's digest the id
        print("same" if image_id in (manifest.config_digest, manifest.digest) else "different")
    return 0


def _pushed(options: argparse.Namespace) -> int:
    reference = parse_reference(options.reference)
    manifest = download_manifest(reference)
    if manifest is None:
        raise ImageError(f"{options.reference} is not in the registry; push it.")
    config = download_config(reference, manifest)
    uri = f"{options.reference.rsplit(':', 1)[0]}@{manifest.digest}"
    print("\n".join(report_lines(uri, manifest, config)))
    findings = judge(options.name, manifest=manifest, config=config, platform=options.platform)
    if _verdict(findings, accepted="SageMaker will accept it.", refused="SageMaker will not accept it:"):
        return 1
    write_image(options.name, uri=uri, tag=reference.tag, file=options.images_file)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 after the reason."""
    parser = argparse.ArgumentParser(
        prog="python -m local.image_check", description="Will SageMaker take this image?"
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    built = verbs.add_parser("built", help="judge an image of the local engine")
    built.add_argument("name", help="training, serving-cpu or serving-gpu")
    built.add_argument("tag", help="its local tag")
    built.set_defaults(run=_built)
    compare = verbs.add_parser("compare", help="print absent, same or different")
    compare.add_argument("built", metavar="TAG", help="local tag")
    compare.add_argument("reference", help="HOST/REPOSITORY:TAG")
    compare.set_defaults(run=_compare)
    pushed = verbs.add_parser("pushed", help="read an image back, judge it, and remember its digest")
    pushed.add_argument("name", help="training, serving-cpu or serving-gpu")
    pushed.add_argument("reference", help="HOST/REPOSITORY:TAG")
    pushed.add_argument(
        "--images-file", type=Path, default=IMAGES_FILE, help="default: container/images.json"
    )
    pushed.set_defaults(run=_pushed)
    for verb in (built, pushed):
        verb.add_argument("--platform", default="linux/amd64", help="what was asked for")
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except ImageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
