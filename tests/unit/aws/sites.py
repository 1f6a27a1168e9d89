"""The account that plans are made for in tests, and every recipe of the repository."""

from __future__ import annotations

from pathlib import Path

from aws.site import Site
from training.recipe import Recipe, read_recipe

REPOSITORY = Path(__file__).resolve().parents[3]
RECIPES = {path.stem: read_recipe(path) for path in sorted((REPOSITORY / "recipes").glob("*.toml"))}
ACCOUNT = "123456789012"
REGION = "eu-west-1"


def make_site(*, region: str = REGION, run: str = "") -> Site:
    """An account into which all three images were pushed."""
    registry = f"{ACCOUNT}.dkr.ecr.{region}.amazonaws.com/kennel"
    names = ("training", "serving-cpu", "serving-gpu")
    images = {
        name: f"{registry}/{name}@sha256:{str(number) * 64}" for number, name in enumerate(names, start=1)
    }
    return Site(account_id=ACCOUNT, region=region, images=images, run=run)


def make_recipe(folder: Path, text: str, *, name: str = "dogs") -> Recipe:
    """A recipe from TOML below its name."""
    path = folder / f"{name}.toml"
    path.write_text(f"name = {name!r}\n{text}")
    return read_recipe(path)
