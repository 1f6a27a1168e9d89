"""Takes away what a recipe, or bootstrap, created: whatever carries the tag, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from aws.bootstrap import TAGS
from aws.client import Aws
from aws.convergence import is_absent
from aws.errors import AwsError
from aws.execution import Report
from aws.inventory import Resource, ask, find_role, plain_tags, removes
from aws.site import IMAGES, PROJECT, RECIPE_TAG, Site
from aws.steps import PlanError

OBJECTS_AT_ONCE = 1000  # DeleteObjects


def remove(aws: Aws, resources: Sequence[Resource], report: Report) -> int:
    """How many were removed; what vanished meanwhile counts."""
    for resource in resources:
        for step in resource.removal:
            try:
                aws.call(step.service, step.operation, step.request)
            except AwsError as error:
                if not is_absent(error):
                    raise
        report(f"removed {resource.kind} {resource.name}")
    return len(resources)


def find_shared(aws: Aws, site: Site) -> Iterator[Resource]:
    """What bootstrap made for all recipes: roles, repositories, bucket."""
    for purpose in ("training", "serving"):
        yield from (role for role in find_role(aws, site.role_name(purpose)) if _is_shared(role))
    for image in IMAGES:
        name = f"{PROJECT}/{image}"
        shown = ask(aws, "ecr", "DescribeRepositories", {"repositoryNames": [name]})
        if shown:
            arn = shown["repositories"][0]["repositoryArn"]
            tags = plain_tags(aws.call("ecr", "ListTagsForResource", {"resourceArn": arn})["tags"])
            delete = removes("ecr", "DeleteRepository", repositoryName=name, force=True)
            repository = Resource(kind="repository", name=name, tags=tags, removal=(delete,))
            yield from (found for found in [repository] if _is_shared(found))
    bucket = site.bucket_name
    shown = ask(aws, "s3", "GetBucketTagging", {"Bucket": bucket})
    if shown is not None and plain_tags(shown["TagSet"]).get(RECIPE_TAG) == TAGS[RECIPE_TAG]:
        delete = removes("s3", "DeleteBucket", Bucket=bucket)
        yield Resource(kind="bucket", name=bucket, tags=TAGS, removal=(delete,))


def empty_bucket(aws: Aws, site: Site, patterns: Sequence[str], report: Report) -> int:
    """Removes every version of the keys that begin like a pattern, and counts them.

    Raises PlanError for a bucket that is not Kennel's.
    """
    tags = ask(aws, "s3", "GetBucketTagging", {"Bucket": site.bucket_name})
    if tags is None or plain_tags(tags["TagSet"]).get(RECIPE_TAG) != TAGS[RECIPE_TAG]:
        raise PlanError(
            f"Bucket {site.bucket_name} does not carry Kennel's tag, so nothing in it is removed."
        )
    count = 0
    for page in aws.pages("s3", "ListObjectVersions", {"Bucket": site.bucket_name}):
        objects = [
            {"Key": version["Key"], "VersionId": version["VersionId"]}
            for version in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            if any(re.match(pattern, version["Key"]) for pattern in patterns)
        ]
        for start in range(0, len(objects), OBJECTS_AT_ONCE):
            chunk = {"Objects": objects[start : start + OBJECTS_AT_ONCE], "Quiet": True}
            aws.call("s3", "DeleteObjects", {"Bucket": site.bucket_name, "Delete": chunk})
        count += len(objects)
    report(f"removed {count} object versions from {site.bucket_name}")
    return count


def _is_shared(resource: Resource) -> bool:
    return resource.tags.get(RECIPE_TAG) == TAGS[RECIPE_TAG]
