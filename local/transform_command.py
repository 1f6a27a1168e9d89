"""`python -m local transform`: a job from the command line, in CreateTransformJob's words."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from local.invoking import Address
from local.platform import LocalError
from local.transform_driver import running_server, transform_with
from local.transform_job import build_request, run_transform_job
from local.transform_request import parse_transform_request
from scoring.comparison import alarm_words

MOST_SHOWN_FAILURES = 20


class Field(NamedTuple):
    """An option that is a field of the request, and where the field lies."""

    option: str
    place: tuple[str, ...]
    parse: Callable[[str], Any]
    meaning: str


FIELDS = (
    Field(
        "--content-type",
        ("TransformInput", "ContentType"),
        str,
        "of every object; default: application/x-image",
    ),
    Field("--split-type", ("TransformInput", "SplitType"), str, "None, Line, RecordIO or TFRecord"),
    Field("--compression", ("TransformInput", "CompressionType"), str, "None or Gzip"),
    Field(
        "--data-type",
        ("TransformInput", "DataSource", "S3DataSource", "S3DataType"),
        str,
        "S3Prefix, or ManifestFile where INPUT is a manifest",
    ),
    Field("--accept", ("TransformOutput", "Accept"), str, "Accept of every request"),
    Field("--assemble-with", ("TransformOutput", "AssembleWith"), str, "None, or Line to end every answer"),
    Field("--strategy", ("BatchStrategy",), str, "MultiRecord or SingleRecord"),
    Field("--max-payload-mb", ("MaxPayloadInMB",), int, "0 streams; default: what the server asks for"),
    Field("--max-concurrent", ("MaxConcurrentTransforms",), int, "default: what the server asks for"),
    Field("--timeout-seconds", ("ModelClientConfig", "InvocationsTimeoutInSeconds"), int, "1 to 3600"),
    Field("--retries", ("ModelClientConfig", "InvocationsMaxRetries"), int, "0 to 3"),
    Field("--input-filter", ("DataProcessing", "InputFilter"), str, "JSONPath: what of a record is sent"),
    Field("--output-filter", ("DataProcessing", "OutputFilter"), str, "JSONPath: what of an answer is kept"),
    Field(
        "--join-source", ("DataProcessing", "JoinSource"), str, "None, or Input to join records and answers"
    ),
    Field("--instances", ("TransformResources", "InstanceCount"), int, "servers that share the objects"),
)


def add_transform_options(parser: argparse.ArgumentParser) -> None:
    """All but --docker and --image."""
    parser.add_argument("--artifact", type=Path, help="model.tar.gz, or its unpacked folder")
    parser.add_argument("--input", type=Path, required=True, help="folder of images, by label if scored")
    parser.add_argument("--output", type=Path, required=True, help="gets **.out, scores.json, report.html")
    parser.add_argument(
        "--url", action="append", help="a server that runs already, anybody's; one per instance; not scored"
    )
    parser.add_argument("--labels", type=Path, help="folder or CSV with the truth, if INPUT does not tell it")
    parser.add_argument("--retry-failed", action="store_true", help="send what failed before once more")
    parser.add_argument("--fresh", action="store_true", help="begin anew where a job was cut short")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of the container"
    )
    for field in FIELDS:
        parser.add_argument(field.option, type=field.parse, metavar=field.place[-1], help=field.meaning)


def run_transform(options: argparse.Namespace, image: str | None) -> int:
    """Exit code 1 where objects failed, or the answers are not the trainer's. Raises LocalError."""
    fields = collect_fields(options)
    if options.url:
        return _run_elsewhere(options, fields)
    if options.artifact is None:
        raise LocalError("Give --artifact to start a server, or --url of one that runs.")
    result = run_transform_job(
        options.artifact,
        input_dir=options.input,
        output_dir=options.output,
        image=image,
        fields=fields,
        labels=options.labels,
        retry_failed=options.retry_failed,
        fresh=options.fresh,
    )
    _show_failures(result.failed, options.output)
    alarm = alarm_words(result.scores["comparison"])
    if alarm:
        print(f"ALARM: {alarm}. See {result.report}", file=sys.stderr)
    print(
        json.dumps(
            {
                "report": str(result.report),
                "failed": len(result.failed),
                "top1_accuracy": result.scores["top1_accuracy"]["value"],
            }
        )
    )
    return 1 if result.failed or alarm else 0


def collect_fields(options: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, in the request's form. Raises LocalError for a bad --env."""
    fields: dict[str, Any] = {}
    for field in FIELDS:
        value = getattr(options, field.option.strip("-").replace("-", "_"))
        if value is not None:
            section = fields
            for name in field.place[:-1]:
                section = section.setdefault(name, {})
            section[field.place[-1]] = value
    if options.env:
        pairs = [text.partition("=") for text in options.env]
        if not all(equals for _, equals, _ in pairs):
            raise LocalError("--env needs NAME=VALUE.")
        fields["Environment"] = {name: value for name, _, value in pairs}
    return fields


def _run_elsewhere(options: argparse.Namespace, fields: Mapping[str, Any]) -> int:
    """On servers that somebody else started and stops."""
    urls = iter(options.url)
    instances = {"TransformResources": {"InstanceCount": len(options.url)}}
    request = parse_transform_request(
        build_request(options.input, options.output, fields={**fields, **instances})
    )

    def start(environment: Mapping[str, str]) -> AbstractContextManager[Address]:
        return running_server(next(urls))

    result = transform_with(request, start, retry_failed=options.retry_failed, fresh=options.fresh)
    _show_failures(result.failed, options.output)
    print(json.dumps({"objects": result.num_objects, "failed": len(result.failed)}))
    return 1 if result.failed else 0


def _show_failures(failed: Mapping[str, str], output: Path) -> None:
    for path, reason in list(failed.items())[:MOST_SHOWN_FAILURES]:
        print(f"failed {path}: {reason}", file=sys.stderr)
    if failed:
        print(
            f"{len(failed)} failed: {output / 'failed.jsonl'} lists them; --retry-failed sends them again.",
            file=sys.stderr,
        )
