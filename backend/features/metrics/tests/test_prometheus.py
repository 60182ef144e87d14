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
from itertools import combinations, pairwise
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
# What others see, who look from outside: the blackbox exporter, cert-manager. docs/how-to/monitor.md says how.
OF_OTHERS = {"probe_ssl_earliest_cert_expiry", "certmanager_certificate_expiration_timestamp_seconds"}
RUNBOOKS = ROOT / "docs/runbooks"


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
            place = f"{path.stem} {panel['id']} {panel['title']}"
            found |= {f"{place} {one['refId']}": one["expr"] for one in panel.get("targets", ())}
        annotations = board["annotations"]["list"]
        found |= {f"{path.stem} annotation {one['name']}": one["expr"] for one in annotations if "expr" in one}
    for place, expression in found.items():
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)  # noqa: PLW2901
        found[place] = expression
    return found


def names(expression: str) -> set[str]:
    """The metrics that a PromQL expression reads."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\boffset \w+", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    words = re.findall(r"[a-zA-Z_:][\w:]*(?![\w:]|\s*\()", bare)
    return set(words) - {"and", "or", "unless", "bool", "group_left", "group_right"}


def test_the_names_in_an_expression_are_found() -> None:
    expression = (
        'sum by (a, b) (rate(x_total{c="d"}[5m])) / on (a) group_left y:z > 2 and absent(w{route!~"/q|/r"} == 1)'
        " or increase(v_total[1h] offset 1w)"
    )
    assert names(expression) == {"x_total", "y:z", "w", "v_total"}


def read_by(expression: str) -> set[str]:
    """The metrics behind an expression: what it records under a name of ours is looked up."""
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    found = names(expression)
    while ours := found & recorded.keys():
        found = (found - ours).union(*(names(recorded[one]) for one in ours))
    return found - OWN - OF_OTHERS


async def exported(app: FastAPI) -> set[str]:
    async with new_client(app) as client:
        await client.get("/openapi.json")
        text = (await client.get("/metrics")).text
    families = list(parse(text))  # some have no samples yet, such as circuits
    found = {family.name for family in families} | {one.name for family in families for one in family.samples}
    found |= {f"{family.name}_total" for family in families if family.type == "counter"}
    histograms = {family.name for family in families if family.type == "histogram"}
    return found | {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}


@pytest.mark.slow  # knows features that a tree may lack
async def test_every_metric_in_a_rule_or_panel_is_exported(make_app: Callable[..., FastAPI]) -> None:
    expressions = [*queries().values(), *(rule["expr"] for rule in rules())]
    assert set().union(*map(read_by, expressions)) - await exported(make_app()) == set()


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def runbook(alert: str) -> str:
    return (RUNBOOKS / f"{alert.lower()}.md").read_text()


def needed(page: str) -> set[str]:
    """The features that a page is about, as it says at its top."""
    return set(re.findall(r"\w+", "".join(re.findall(r"\A---\nneeds: \[(.*)\]\n---\n", page))))


async def test_the_metrics_of_an_alert_are_those_of_the_features_that_its_runbook_names(
    make_app: Callable[..., FastAPI],
) -> None:
    """So an alert for what has been taken out can be told from one that is misspelled."""
    app = make_app()
    features, there = app.state.registry.features, await exported(app)
    for alert, rule in alerts().items():
        needs = needed(runbook(alert))
        if needs - set(app.state.registry.names):
            continue  # it went, or is off
        metrics = read_by(rule["expr"])
        assert metrics - there == set(), alert
        figures = {one.name: feature.name for feature in features for one in feature.figures}
        assert {figures[name] for one in metrics if (name := one.removesuffix("_total")) in figures} <= needs, alert


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")}
    assert pages == {alert.lower() for alert in alerts()} | {"index"}
    linked = re.findall(r"\[(\w+)\]\((\w+)\.md\)", (RUNBOOKS / "index.md").read_text())
    assert sorted(linked) == sorted((alert, alert.lower()) for alert in alerts())


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_says_what_it_means_and_its_runbook_what_to_do(alert: str) -> None:
    rule, page = alerts()[alert], runbook(alert)
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert {"summary", "description", "runbook_url"} == rule["annotations"].keys()
    assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{alert.lower()}.md")
    assert re.findall(r"^# (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE) == [alert]
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == [
        "What people notice",
        "First steps",
        "Is it over?",
        "Silence it",
    ]
    assert f"alertname={alert} " in page


@pytest.mark.slow  # knows features that a tree may lack
async def test_what_runbooks_ask_for_is_exported(make_app: Callable[..., FastAPI]) -> None:
    asked = set().union(*(read_by(query) for query in runbook_queries()))
    assert asked - await exported(make_app()) == set()


def runbook_queries() -> list[str]:
    """Each line of a block is a query by itself."""
    pages = [path.read_text() for path in sorted(RUNBOOKS.glob("*.md"))]
    found = [one for page in pages for one in re.findall(r"^ *```promql\n(.*?)^ *```$", page, re.DOTALL | re.MULTILINE)]
    return [line.strip() for block in found for line in block.splitlines()]


def test_every_alert_is_tested() -> None:
    tested = {
        case["alertname"]
        for file in (OBSERVABILITY / "tests").glob("*.yml")
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert tested == {rule["alert"] for rule in rules() if "alert" in rule}


def test_grafana_finds_the_dashboards_and_can_tell_them_apart() -> None:
    boards = [dashboard(path) for path in DASHBOARDS]
    assert {path.stem for path in DASHBOARDS} >= {"service", "database", "business"}
    for field in ("uid", "title"):
        assert len({board[field] for board in boards}) == len(boards)
    assert len({board["schemaVersion"] for board in boards}) == 1  # written by one version of Grafana
    (provider,) = configuration("grafana/provisioning/dashboards/mainstay.yml")["providers"]
    mounts = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["volumes"]
    assert f"./observability/grafana/dashboards:{provider['options']['path']}:ro" in mounts


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
    kinds = [panel["type"] for panel in board["panels"]]
    assert ("row", "row") not in pairwise([*kinds, "row"])  # none is empty
    assert board["panels"] == sorted(board["panels"], key=lambda one: (one["gridPos"]["y"], one["gridPos"]["x"]))
    for panel in board["panels"]:
        assert panel["title"]
        if panel["type"] != "row":
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
    form = {"username": "ada@example.com", "password": "wrong"}  # asks the database
    assert httpx2.post(f"{app_url}/api/v1/auth/token", data=form).status_code == 401
    answer = httpx2.get(f"{app_url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert "http_request_database_seconds_bucket" in answer.text
    assert "database_connections_limit" in answer.text
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
                for path in ("/", "/status", "/openapi.json", "/api/v1/store/items/1", "/none"):
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
    assert {place for place in empty if not place.endswith("annotation Restarts")} == set()  # there was none of these
    (by_status,) = (query for place, query in queries().items() if place.endswith("Requests by status A"))
    statuses = {one["metric"]["status"] for one in ask(prometheus, by_status)}
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


@pytest.mark.slow
def test_prometheus_understands_what_runbooks_ask(prometheus: httpx2.Client) -> None:
    assert runbook_queries()
    for query in runbook_queries():
        ask(prometheus, query)
