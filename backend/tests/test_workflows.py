"""The workflows run the scripts that `.ci/run` runs, with the least rights, and cover what the project promises."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend import __version__
from backend.features import FEATURES
from backend.testing import ROOT
from scripts.removal_drill import SPINE

WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
JOBS = {(name, job): body for name, workflow in WORKFLOWS.items() for job, body in workflow["jobs"].items()}
ON: Any = True  # what YAML 1.1 reads `on` as
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# Steps that are no script of `.ci/run`, by their first line, and why.
GITHUB_ONLY = {
    'docker buildx imagetools create $(printf -- \'--tag %s \' $TAGS) "$X64" "$ARM64"': "publishes",
    'echo "$ARCHITECTURE=$NAME@$DIGEST" >> "$GITHUB_OUTPUT"': "hands the image on to the next job",
    'echo "name=ghcr.io/${GITHUB_REPOSITORY,,}" >> "$GITHUB_OUTPUT"': "asks where the workflow runs",
    "git diff --quiet && exit 0": "opens a pull request",
    'gh release create "$GITHUB_REF_NAME" --verify-tag --generate-notes dist/*': "publishes",
    'grep -Fx "version = \\"${GITHUB_REF_NAME#v}\\"" pyproject.toml': "compares with the tag",
    "npm publish --provenance --access public dist/*.tgz": "publishes",
    "python3 -c '": "makes the matrix of the removal drill; a test below runs it",
    "./scripts/lock --upgrade": "changes the tree, which what checks it must not",
}


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for (name, job), body in JOBS.items():
        for step in body.get("steps", []):
            yield f"{name}: {job}", step


def scripts_run_by(path: Path) -> set[str]:
    """The scripts that this one calls, and those that they call."""
    found: set[str] = set()
    waiting = [path]
    while waiting:
        # What is only said to a person is no call.
        code = re.sub(r"^\s*#.*|\becho .*", "", waiting.pop().read_text(), flags=re.MULTILINE)
        called = set(re.findall(r"\./scripts/([a-z-]+)", code)) - found
        found |= called
        waiting += [ROOT / "scripts" / name for name in called]
    return found


def test_every_step_is_a_script_that_ci_runs_too() -> None:
    runs = [(where, step["run"]) for where, step in steps() if "run" in step]
    known = scripts_run_by(ROOT / ".ci/run")
    strange = []
    for where, run in runs:
        first, *others = run.splitlines()
        # One command, alone.
        script = re.fullmatch(r"\./scripts/([a-z-]+)( [^;&|`(]+)?", first)
        allowed = script[1] in known and not others if script else False
        exception = first in GITHUB_ONLY and "scripts/" not in "".join(others)
        if not (allowed or exception):
            strange.append(f"{where}: {run}")
    assert strange == []
    assert set(GITHUB_ONLY) <= {run.splitlines()[0] for _, run in runs}, "exceptions that nothing needs any more"


def test_every_script_that_is_called_can_be_run() -> None:
    called = {found for _, step in steps() for found in re.findall(r"\./(scripts/[a-z-]+)", step.get("run", ""))}
    assert called
    assert [name for name in sorted(called) if not os.access(ROOT / name, os.X_OK)] == []


def test_every_action_is_pinned_by_commit_with_its_version_beside_it() -> None:
    commits: dict[str, set[str]] = {}
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        for line in re.findall(r"\buses: (.*)", path.read_text()):
            if line.startswith("./"):
                assert (ROOT / line.split()[0]).is_file(), line
                continue
            pinned = re.fullmatch(r"([\w-]+/[\w-]+)[\w/-]*(@[0-9a-f]{40} # v\d+\.\d+\.\d+)", line)
            assert pinned, f"{path.name}: {line}"
            commits.setdefault(pinned[1], set()).add(pinned[2])
    assert {action: pins for action, pins in commits.items() if len(pins) > 1} == {}


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_a_workflow_may_nothing_that_a_job_does_not_ask_for(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {}
    assert WORKFLOWS[name]["concurrency"]["group"]
    for job, body in WORKFLOWS[name]["jobs"].items():
        assert "permissions" in body, job
        # A called workflow's jobs have their own.
        assert "timeout-minutes" in body or "uses" in body, job


def needed_by(name: str, job: str) -> set[str]:
    """The workflows and jobs that have to end well before this job begins."""
    needs = JOBS[name, job].get("needs", [])
    found: set[str] = set()
    for one in [needs] if isinstance(needs, str) else needs:
        found |= {one, Path(JOBS[name, one].get("uses", "")).stem} | needed_by(name, one)
    return found


def test_nothing_is_published_before_its_commit_is_tested() -> None:
    assert "push" not in WORKFLOWS["images"][ON], "it publishes: only what calls it knows of tests"
    publishing = {"main": ["images"], "release": ["images", "python-client", "typescript-client", "release"]}
    writing = {"contents: write", "id-token: write", "packages: write"}
    for name, jobs in publishing.items():
        for job, body in WORKFLOWS[name]["jobs"].items():
            writes = writing & {f"{key}: {value}" for key, value in body["permissions"].items()}
            assert bool(writes) == (job in jobs), job
            if writes:
                assert {"tests", "lint"} <= needed_by(name, job), job
    callers = {name for (name, _), body in JOBS.items() if body.get("uses", "").endswith("/images.yml")}
    assert callers == set(publishing)
    assert {"build", "check"} <= needed_by("images", "publish")


def test_a_called_workflow_does_not_wait_for_its_caller() -> None:
    """`github.workflow` is the caller's name there: the same group twice, which GitHub calls a deadlock."""
    for name, workflow in WORKFLOWS.items():
        if "workflow_call" in workflow[ON]:
            assert workflow["concurrency"]["group"] == f"{name}-${{{{ github.ref }}}}"


def test_what_is_published_of_the_clients_is_taken_away_before_tests_install_anything() -> None:
    said = [step.get("run") or step["uses"].split("@")[0] for step in JOBS["clients", "clients"]["steps"]]
    upload = "actions/upload-artifact"
    assert said[said.index("./scripts/generate-clients --check") :] == [
        "./scripts/generate-clients --check",
        upload,
        upload,
        "./scripts/check-clients",
    ]


def test_the_upgraded_locks_are_checked_as_a_change_of_ours_is() -> None:
    """The branch is pushed with a token that starts no workflow."""
    (push,) = [step["run"] for step in JOBS["dependencies", "propose"]["steps"] if "run" in step]
    started = re.findall(r"for workflow in ([a-z ]+);", push)[0].split()
    assert started == ["tests", "lint", "images", "clients"]
    assert all("workflow_dispatch" in WORKFLOWS[name][ON] for name in started)


def test_everything_that_is_released_has_one_version_and_one_home() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    versions = {PYPROJECT["project"]["version"], *re.findall(r"^ARG VERSION=(\S+)", dockerfile, re.MULTILINE)}
    overlays = sorted((ROOT / "k8s/overlays").glob("*/kustomization.yaml"))
    assert overlays
    for path in overlays:
        versions |= {image["newTag"] for image in yaml.safe_load(path.read_text())["images"]}
    assert versions == {__version__}
    homes = re.findall(r"^ARG SOURCE=(\S+)", dockerfile, re.MULTILINE)
    package = json.loads((ROOT / "clients/typescript/package.json").read_text())
    assert [package["repository"]["url"]] == [f"git+{home}.git" for home in homes]
    assert (ROOT / package["repository"]["directory"] / "package.json").is_file()


def test_no_step_finds_the_token_in_the_checkout() -> None:
    checkouts = [step for _, step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_no_expression_is_pasted_into_a_shell() -> None:
    assert [step["run"] for _, step in steps() if "${{" in step.get("run", "")] == []


def test_the_matrix_is_what_the_package_promises() -> None:
    matrix = JOBS["tests", "matrix"]["strategy"]["matrix"]
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(PYPROJECT["project"]["classifiers"]))
    assert matrix["python"] == classifiers
    assert PYPROJECT["project"]["requires-python"] == f">={classifiers[0]}"
    image = re.search(r"^FROM python:(3\.\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert image
    assert image[1] in classifiers


def test_every_server_of_the_matrix_is_there() -> None:
    job = JOBS["tests", "matrix"]
    assert set(job["strategy"]["matrix"]["database"]) == {"sqlite", "postgresql", "mariadb"}
    assert set(job["services"]) == {"postgresql", "mariadb", "redis"}
    for name, service in job["services"].items():
        assert "--health-cmd" in service["options"]
        assert service["ports"][0].split(":")[0] in job["env"][f"TEST_{name.upper()}_URL"]


def test_the_removal_drill_covers_every_feature(tmp_path: Path) -> None:
    (listing,) = [step["run"] for step in JOBS["removal-drill", "features"]["steps"] if step.get("id") == "names"]
    output = tmp_path / "output"
    variables = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "GITHUB_OUTPUT": str(output)}
    subprocess.run(["/bin/bash", "-ec", listing], cwd=ROOT, env=variables, check=True, timeout=30)
    names = json.loads(output.read_text().removeprefix("names="))
    assert names == [name for name in FEATURES if name not in SPINE]


def test_an_exact_pin_is_what_the_locks_have() -> None:
    """Renovate raises pins and cannot write our locks: this says so before the pull request is merged."""
    project = PYPROJECT["project"]
    optional, others = project["optional-dependencies"], PYPROJECT["dependency-groups"]
    groups = [project["dependencies"], *optional.values(), *others.values()]
    pins = {one for group in groups for one in group if "==" in one}
    locked = {line.split(" ")[0] for path in ROOT.glob("requirements*.txt") for line in path.read_text().splitlines()}
    assert pins
    assert pins - locked == set()
