"""Every command that README and docs show is one that its program takes.

`make` is asked for what it would do; `python -m` by the program's own parser, which ends before any work.
helm's are rendered in test_chart_docs.py, README's first ten are run in a bare container by .ci/cold.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from local.platform import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PROGRAMS = ("make ", "python ", ".venv/bin/python ", "./build_and_push.sh ", "aws ", "curl ", "docker ")
MAKEFILE = (REPOSITORY / "Makefile").read_text()
PUSHING = (REPOSITORY / "build_and_push.sh").read_text()
# Of the verbs that go to an account only with ON=aws, those without it are not meant.
ACCOUNT_VERBS = set(re.findall(r"^([a-z]+):.*## on AWS:", MAKEFILE, re.MULTILINE))


@dataclass(frozen=True, slots=True)
class Command:
    """A line of a code block, with the section it stands in."""

    text: str
    section: str


def read_commands(page: Path) -> list[Command]:
    """The lines a shell takes; comments, line ends and notes after two spaces are no part of them."""
    found: list[Command] = []
    for section in re.split(r"^(?=#+ )", re.sub(r"\\\n\s*", "", page.read_text()), flags=re.MULTILINE):
        indented = re.findall(r"^ {4}(\S.*)$", section, re.MULTILINE)
        fenced = "\n".join(re.findall(r"^```(?:bash|sh)\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
        for line in (*indented, *fenced.splitlines()):
            text = re.split(r" {2,}|\s#\s", line)[0]
            parts = re.split("; (?=make )", text)
            found += [Command(part, section) for part in parts if part.startswith(PROGRAMS)]
    return found


COMMANDS = {command.text: command for page in PAGES for command in read_commands(page)}


def commands_of(*programs: str) -> list[str]:
    return [text for text in COMMANDS if text.startswith(programs)]


@pytest.mark.parametrize("command", commands_of("make "))
def test_make_knows_verb_and_variables(command: str) -> None:
    words = shlex.split(command.replace("...", "x").replace("$", "$$"))[1:]
    variables = {word.partition("=")[0] for word in words if "=" in word}
    known = {name for name in variables if re.search(rf"\b{name}\b", MAKEFILE + PUSHING)}

    done = subprocess.run(
        ["make", "--dry-run", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert variables == known


class Parsed(Exception):
    """The program's parser took the arguments."""


@pytest.mark.parametrize("command", commands_of("python ", ".venv/bin/python "))
def test_program_takes_the_arguments(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)[1:]
    if words[0] != "-m":
        assert (REPOSITORY / words[0]).is_file()
        return
    module = words[1]
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no {module}"
    program = importlib.import_module(f"{module}.__main__" if spec.submodule_search_locations else module)
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, *arguments: object) -> None:
        parse(parser, *arguments)  # type: ignore[call-overload]
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", [module, *words[2:]])
    try:
        program.main()
    except Parsed:
        return
    except (SystemExit, TypeError) as refused:
        pytest.fail(f"{command}: {refused} {capsys.readouterr().err}")
    pytest.fail(f"{command} asked no parser")


@pytest.mark.parametrize("command", commands_of("./build_and_push.sh "))
def test_push_script_knows_the_words(command: str) -> None:
    done = subprocess.run(
        ["bash", *shlex.split(command), "--dry-run"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "is neither a verb" not in done.stdout + done.stderr


def test_command_that_goes_to_an_account_says_so() -> None:
    """By its place: its section, or a note beside it, names AWS."""

    def is_sent(text: str) -> bool:
        words = text.split()
        to_aws = words[:3] == ["python", "-m", "aws"] or words[0] == "aws" or "ON=aws" in words
        return (to_aws or (words[0] == "make" and words[1] in ACCOUNT_VERBS)) and "--dry-run" not in text

    sent = [command for text, command in COMMANDS.items() if is_sent(text)]

    assert len(sent) > 10
    assert [command.text for command in sent if not re.search(r"AWS|SageMaker", command.section)] == []


def test_files_that_commands_name_exist() -> None:
    """Recipes, examples, container files; not what a command makes, and not a reader's own."""
    named = {
        word
        for command in commands_of(*PROGRAMS)
        for word in re.findall(r"(?:recipes|examples|container)/[\w./-]+", command)
    }

    assert "recipes/hurricane-cnn.toml" in named
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []
