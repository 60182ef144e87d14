"""What Prometheus and Grafana are told, against what the app exports: in a real Prometheus, where there is one.

REQUIRE_PROMETHEUS=1 makes its absence a failure.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families as parse

from backend.testing import ROOT, free_port, new_client, running_server

OBSERVABILITY = ROOT / "observability"
DASHBOARDS = sorted((OBSERVABILITY / "grafana/dashboards").glob("*.json"))
TOKEN = "a-token-of-twenty-four-characters"
# What Grafana fills in.
VARIABLES = {"$__rate_interval": "15s", "$__range": "1m", "$instance": ".*", "$route": ".*"}
OWN = {"up", "ALERTS"}  # Prometheus' own series
# What rules and panels ask of features that can be taken out.
OF_FEATURES = {
    "load_shedding": {"load_shed_total", "event_loop_lag_seconds"},
    "request_timeouts": {"request_timeouts_total"},
}


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None and os.environ.get("REQUIRE_PROMETHEUS"):
        pytest.fail(f"REQUIRE_PROMETHEUS is set and there is no {name}")
    if found is None:
        pytest.skip(f"no {name} on this machine: the Debian package prometheus has it")
    return found


def configuration(path: str) -> Any:
    return yaml.safe_load((OBSERVABILITY / path).read_text())


def rules() -> list[dict[str, Any]]:
    files = sorted((OBSERVABILITY / "rules").glob("*.yml"))
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def dashboard(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def queries() -> dict[str, str]:
    """Where in a dashboard → what it asks, with Grafana's variables filled in."""
    found: dict[str, str] = {}
    for path in DASHBOARDS:
        board = dashboard(path)
        for panel in board["panels"]:
            found |= {f"{panel['title']} {one['refId']}": one["expr"] for one in panel.get("targets", ())}
        found |= {f"annotation {one['name']}": one["expr"] for one in board["annotations"]["list"] if "expr" in one}
    for place, expression in found.items():
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)  # noqa: PLW2901
        found[place] = expression
    return found


def names(expression: str) -> set[str]:
    """The metrics that a PromQL expression reads."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    words = re.findall(r"[a-zA-Z_:][\w:]*(?![\w:]|\s*\()", bare)
    return set(words) - {"and", "or", "unless", "bool", "offset", "group_left", "group_right"}


def test_the_names_in_an_expression_are_found() -> None:
    expression = (
        'sum by (a, b) (rate(x_total{c="d"}[5m])) / on (a) group_left y:z > 2 and absent(w{route!~"/q|/r"} == 1)'
    )
    assert names(expression) == {"x_total", "y:z", "w"}


async def test_every_metric_in_a_rule_or_panel_is_exported(make_app: Callable[..., FastAPI]) -> None:
    app = make_app()
    async with new_client(app) as client:
        await client.get("/openapi.json")
        text = (await client.get("/metrics")).text
    families = list(parse(text))  # some have no samples yet, such as circuits
    exported = {family.name for family in families} | {one.name for family in families for one in family.samples}
    exported |= {f"{family.name}_total" for family in families if family.type == "counter"}
    for feature, own in OF_FEATURES.items():
        exported |= set() if feature in app.state.registry.names else own
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    expressions = [*queries().values(), *(rule["expr"] for rule in rules())]
    assert set().union(*map(names, expressions)) <= exported | recorded | OWN


def test_every_alert_says_what_it_means_and_has_a_section_in_the_guide() -> None:
    sections = re.findall(r"^##+ (.+)$", (ROOT / "docs/how-to/monitor.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in sections}
    alerts = [rule for rule in rules() if "alert" in rule]
    assert alerts
    for alert in alerts:
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description", "runbook_url"} <= alert["annotations"].keys()
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/docs/how-to/monitor.md")
        assert anchor in anchors, alert["alert"]


def test_every_alert_is_tested() -> None:
    tested = {
        case["alertname"]
        for file in (OBSERVABILITY / "tests").glob("*.yml")
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert tested == {rule["alert"] for rule in rules() if "alert" in rule}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    board = dashboard(path)
    source = {
        "type": "prometheus",
        "uid": configuration("grafana/provisioning/datasources/prometheus.yml")["datasources"][0]["uid"],
    }
    assert board["uid"]
    assert board["id"] is None  # Grafana gives it
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    for one, other in combinations([panel["gridPos"] for panel in board["panels"]], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)
        assert one["x"] + one["w"] <= 24
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["description"]
            assert panel["datasource"] == source
            assert panel["targets"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
            assert all(target["expr"] and target["datasource"] == source for target in panel["targets"])
    variables = {one["name"] for one in board["templating"]["list"]} | {"__rate_interval", "__range"}
    assert set(re.findall(r"\$(\w+)", json.dumps(board["panels"]))) <= variables


# --- with Prometheus' own tools ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_configuration_and_the_rules_pass_their_checks() -> None:
    tool("promtool")
    checked = subprocess.run([OBSERVABILITY / "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.fixture(scope="module")
def app_url() -> Iterator[str]:
    """The app, open by token only."""
    with running_server(DATABASE_URL="sqlite://", METRICS__TOKEN=TOKEN, METRICS__ALLOWED="192.0.2.0/24") as url:
        yield url


@pytest.mark.slow
def test_prometheus_finds_nothing_amiss_in_what_is_exported(app_url: str) -> None:
    answer = httpx2.get(f"{app_url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=answer.content, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, b"")


@pytest.fixture(scope="module")
def prometheus(app_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A real Prometheus with our configuration, but for the addresses and the pace; has scraped the app some times."""
    program, folder = tool("prometheus"), tmp_path_factory.mktemp("prometheus")
    (folder / "token").write_text(f"{TOKEN}\n")
    config = configuration("prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(OBSERVABILITY / one) for one in config["rule_files"]]
    config["scrape_configs"] = [one for one in config["scrape_configs"] if one["job_name"] == "mainstay"]
    (job,) = config["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [app_url.removeprefix("http://")]}]
    job["authorization"]["credentials_file"] = str(folder / "token")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, *options, f"--web.listen-address={address}"], stderr=log)
    try:
        with httpx2.Client(base_url=f"http://{address}/api/v1") as client:
            deadline = time.monotonic() + 60
            while not ask(
                client, 'count_over_time(up{job="mainstay"}[1m]) > 8 and on (job) mainstay:http_requests:rate5m'
            ):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                for path in ("/", "/openapi.json", "/api/v1/store/items/1", "/none"):
                    httpx2.get(f"{app_url}{path}")
                time.sleep(0.2)
            yield client
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask(prometheus: httpx2.Client, query: str) -> list[Any]:
    try:
        reply = prometheus.get("/query", params={"query": query})
    except httpx2.TransportError:  # it is still starting
        return []
    if reply.status_code == 503:  # it has started, and reads what it had stored
        return []
    answer = reply.json()
    assert answer["status"] == "success", (query, answer)
    found: list[Any] = answer["data"]["result"]
    return found


@pytest.mark.slow
def test_every_panel_shows_something_in_a_real_prometheus(prometheus: httpx2.Client) -> None:
    empty = {place for place, query in queries().items() if not ask(prometheus, query)}
    assert empty <= {"annotation Restarts"}  # there was none
    statuses = {one["metric"]["status"] for one in ask(prometheus, queries()["Requests by status A"])}
    assert statuses == {"200", "401", "404"}


@pytest.mark.slow
def test_every_rule_works_in_a_real_prometheus(prometheus: httpx2.Client) -> None:
    groups = prometheus.get("/rules").json()["data"]["groups"]
    loaded = [rule for group in groups for rule in group["rules"]]
    assert len(loaded) == len(rules())
    for rule in loaded:
        assert rule["health"] == "ok", rule
        if rule["type"] == "recording":
            assert ask(prometheus, rule["name"]), rule
        else:
            assert rule["state"] == "inactive", rule
