"""What the manifests promise beyond their schemas: that they fit the app and each other. `./k8s/check` has the rest."""

import base64
import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from fastapi import FastAPI

from backend import testing
from backend.__main__ import GRACE, parser
from backend.core.feature import load
from backend.features import FEATURES
from backend.testing import ROOT, free_port
from backend.tests import snapshots
from backend.tests.test_access import CONSOLE_PUBLIC, api_routes

FOLDERS = ("overlays/dev", "overlays/staging", "overlays/production", "examples/data-in-the-cluster")
IN_EVERY_CLUSTER = {
    "Namespace", "ServiceAccount", "ConfigMap", "NetworkPolicy", "Job", "Deployment", "Service", "Ingress",
    "HorizontalPodAutoscaler", "PodDisruptionBudget",
}  # fmt: skip
EXACT_IMAGE = re.compile(r"\S+:v?\d+\.\d+(\.\d+)?(-[a-z]+)*(@sha256:[0-9a-f]{64})?")
RULES = ROOT / "observability/rules/mainstay.yml"
ISSUER = "cert-manager.io/cluster-issuer"
Manifest = dict[str, Any]


class Rendered(list[Manifest]):
    """The objects of one overlay."""

    def all(self, kind: str) -> list[Manifest]:
        return [one for one in self if one["kind"] == kind]

    def one(self, kind: str, name: str = "") -> Manifest:
        (found,) = (one for one in self.all(kind) if name in ("", one["metadata"]["name"]))
        return found

    @property
    def config(self) -> dict[str, str]:
        return dict(self.one("ConfigMap")["data"])

    @property
    def pods(self) -> list[Manifest]:
        """The templates of all pods."""
        return [one["spec"]["template"] for one in self if "template" in one.get("spec", {})]

    @property
    def containers(self) -> list[Manifest]:
        specs = [pod["spec"] for pod in self.pods]
        return [one for spec in specs for one in (*spec.get("initContainers", ()), *spec["containers"])]

    @property
    def ours(self) -> list[Manifest]:
        """The containers that run our image."""
        return [one for one in self.containers if "/mainstay:" in one["image"]]

    @property
    def api(self) -> Manifest:
        return dict(self.one("Deployment", "api")["spec"]["template"]["spec"]["containers"][0])


@pytest.fixture(scope="session", params=FOLDERS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(request.param)


@functools.cache
def render(folder: str, root: Path = ROOT / "k8s") -> Rendered:
    """What `kubectl apply -k` would send."""
    if shutil.which("kubectl") is None:
        if os.environ.get("REQUIRE_KUBECTL") == "1":
            pytest.fail("kubectl is missing, and REQUIRE_KUBECTL=1")
        pytest.skip("kubectl is missing: it renders the manifests")
    command = ["kubectl", "kustomize", str(root / folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return Rendered(yaml.safe_load_all(made.stdout))


def labelled(labels: dict[str, str], selector: dict[str, Any]) -> bool:
    assert set(selector) <= {"matchLabels"}, selector
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


# --- they have what they should, and fit each other ----------------------------------------------------------------


@pytest.mark.slow
def test_the_overlays_have_what_a_cluster_needs() -> None:
    for folder in FOLDERS:
        kinds = {one["kind"] for one in render(folder)}
        assert not IN_EVERY_CLUSTER - kinds, folder
    for folder in FOLDERS[1:]:
        rendered = render(folder)
        assert rendered.all("ServiceMonitor")
        assert not rendered.all("Secret"), "values of secrets belong nowhere in the repository"
        assert len(rendered.one("HorizontalPodAutoscaler")["spec"]["metrics"]) == 3


def test_images_have_an_exact_tag_and_the_job_is_named_after_it(rendered: Rendered) -> None:
    for container in rendered.containers:
        assert EXACT_IMAGE.fullmatch(container["image"]), container["image"]
    (tag,) = {container["image"].rpartition(":")[2] for container in rendered.ours}
    assert rendered.one("Job")["metadata"]["name"] == f"migrate-{tag}"


@pytest.mark.parametrize("folder", [one for one in FOLDERS if one.startswith("overlays")])
def test_the_job_is_named_after_the_tag_of_an_image_from_a_registry_with_a_port(folder: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    kustomization = tmp_path / "k8s" / folder / "kustomization.yaml"
    image = "registry.example.org:5000/you/mainstay"
    kustomization.write_text(kustomization.read_text().replace("newTag: ", f"newName: {image}\n    newTag: "))
    rendered = render(folder, tmp_path / "k8s")
    (name,) = {container["image"] for container in rendered.ours}
    assert name.startswith(f"{image}:")
    assert rendered.one("Job")["metadata"]["name"] == f"migrate-{name.removeprefix(f'{image}:')}", (
        "the replacement in the overlay's kustomization.yaml must take what follows the image's last colon"
    )


def test_the_job_changes_with_a_release_only(rendered: Rendered) -> None:
    """A Job cannot be changed; a name with a hash in it would change without a new tag."""
    hashed = {one["metadata"]["name"] for one in rendered if re.search(r"-[a-z0-9]{10}$", one["metadata"]["name"])}
    job = yaml.safe_dump(rendered.one("Job")["spec"])
    assert rendered.one("ConfigMap")["metadata"]["name"] in hashed
    assert not {name for name in hashed if name in job}


def test_argo_cd_starts_the_app_after_the_migration(rendered: Rendered) -> None:
    def wave(one: Manifest) -> int:
        return int(one["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))

    job = rendered.one("Job")
    assert job["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "Sync"
    after = {one["kind"] for one in rendered if wave(one) > wave(job)}
    assert after == {"Deployment", "HorizontalPodAutoscaler", "Ingress"}


def test_selectors_find_what_they_are_for(rendered: Rendered) -> None:
    templates = [one["spec"]["template"] for one in rendered if "template" in one.get("spec", {})]
    labels = [template["metadata"]["labels"] for template in templates]
    for one in rendered:
        name, spec = f"{one['kind']} {one['metadata']['name']}", one.get("spec", {})
        match one["kind"]:
            case "Service":
                assert any(spec["selector"].items() <= found.items() for found in labels), name
            case "Deployment" | "StatefulSet":
                assert labelled(spec["template"]["metadata"]["labels"], spec["selector"]), name
            case "PodDisruptionBudget":
                assert any(labelled(found, spec["selector"]) for found in labels), name
            case "ServiceMonitor":
                service = rendered.one("Service", "api")
                assert labelled(service["metadata"]["labels"], spec["selector"]), name
                assert service["metadata"]["labels"][spec["jobLabel"]] == "mainstay"
                assert {end["port"] for end in spec["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
            case "NetworkPolicy":
                pods = spec["podSelector"].get("matchLabels", {})
                by_others = pods.keys() & {"cnpg.io/cluster", "app", "acme.cert-manager.io/http01-solver"}
                assert by_others or any(labelled(found, spec["podSelector"]) for found in labels), name
            case "HorizontalPodAutoscaler":
                target = spec["scaleTargetRef"]
                assert "replicas" not in rendered.one(target["kind"], target["name"])["spec"]
            case "Ingress":
                for path in spec["rules"][0]["http"]["paths"]:
                    backend = path["backend"]["service"]
                    ports = rendered.one("Service", backend["name"])["spec"]["ports"]
                    assert backend["port"]["name"] in {port["name"] for port in ports}


def test_everything_is_in_the_namespace_of_its_overlay(rendered: Rendered) -> None:
    namespace = rendered.one("Namespace")["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    elsewhere = [one for one in rendered if one["metadata"].get("namespace", "") != namespace["name"]]
    assert [one["kind"] for one in elsewhere] == ["Namespace"]


def test_a_stop_fits_into_the_grace_period(rendered: Rendered) -> None:
    pod = rendered.one("Deployment", "api")["spec"]["template"]["spec"]
    asleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = float(rendered.config["SERVER__DRAIN_SECONDS"])
    assert asleep > 0
    assert drain > 0
    assert asleep + drain + GRACE < pod["terminationGracePeriodSeconds"]


def test_the_pools_of_all_pods_fit_into_the_database(rendered: Rendered) -> None:
    config, autoscaler = rendered.config, rendered.one("HorizontalPodAutoscaler")["spec"]
    surge = float(rendered.one("Deployment", "api")["spec"]["strategy"]["rollingUpdate"]["maxSurge"].rstrip("%")) / 100
    pods = autoscaler["maxReplicas"] * (1 + surge)
    wanted = pods * (int(config["DATABASE__POOL_SIZE"]) + int(config["DATABASE__MAX_OVERFLOW"]))
    if clusters := rendered.all("Cluster"):
        assert wanted <= int(clusters[0]["spec"]["postgresql"]["parameters"]["max_connections"]) * 0.9
    elif any("postgres" in container["image"] for container in rendered.containers):
        assert wanted <= 97, "PostgreSQL's default, less those for the superuser"


def test_who_asks_for_a_certificate_can_prove_that_the_host_is_its_own(rendered: Rendered) -> None:
    """cert-manager answers HTTP-01 in a pod of this namespace, on port 8089, for the controller that calls the app."""
    calls_api, calls_solver = (
        rendered.one("NetworkPolicy", f"ingress-controller-calls-{whom}")["spec"] for whom in ("api", "acme-solver")
    )
    assert calls_solver["podSelector"] == {"matchLabels": {"acme.cert-manager.io/http01-solver": "true"}}
    (rule,) = calls_solver["ingress"]
    assert rule["from"] == calls_api["ingress"][0]["from"]
    assert rule["ports"] == [{"port": 8089, "protocol": "TCP"}]


def test_data_in_the_cluster_needs_no_way_out_of_it() -> None:
    policies = render("examples/data-in-the-cluster").all("NetworkPolicy")
    assert "ipBlock" not in yaml.safe_dump(policies)


def test_the_app_is_let_out_to_a_collector_and_to_sentry_by_a_component(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    kustomization = tmp_path / "k8s/overlays/production/kustomization.yaml"
    components = "  - ../../components/monitoring\n"
    assert components in kustomization.read_text()
    added = components + "  - ../../components/telemetry\n"
    kustomization.write_text(kustomization.read_text().replace(components, added))
    without, rendered = render("overlays/production"), render("overlays/production", tmp_path / "k8s")
    test_selectors_find_what_they_are_for(rendered)
    test_everything_is_in_the_namespace_of_its_overlay(rendered)
    before = {one["metadata"]["name"] for one in without.all("NetworkPolicy")}
    policies = {one["metadata"]["name"]: one["spec"] for one in rendered.all("NetworkPolicy")}
    assert policies.keys() - before == {"api-sends-traces", "api-reports-bugs"}
    labels = rendered.one("Deployment", "api")["spec"]["template"]["metadata"]["labels"]
    for name in policies.keys() - before:
        assert labelled(labels, policies[name]["podSelector"])
        assert policies[name]["policyTypes"] == ["Egress"]
    (collector,), (sentry,) = policies["api-sends-traces"]["egress"], policies["api-reports-bugs"]["egress"]
    assert collector["ports"] == [{"port": 4318, "protocol": "TCP"}]
    assert sentry["ports"] == [{"port": 443, "protocol": "TCP"}]
    assert "169.254.0.0/16" in sentry["to"][0]["ipBlock"]["except"], "a cloud's metadata has its credentials"


def test_no_value_of_the_url_comes_from_two_places() -> None:
    rendered = render("examples/data-in-the-cluster")
    assert "database__url" not in yaml.safe_dump(rendered.one("ExternalSecret"))
    for kind in ("Deployment", "Job"):
        sources = rendered.one(kind)["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"]
        assert sources[1]["secret"] == {
            "name": f"{rendered.one('Cluster')['metadata']['name']}-app",
            "items": [{"key": "uri", "path": "database__url"}],
        }


# --- they fit the app ----------------------------------------------------------------------------------------------


def test_every_command_is_one_of_ours(rendered: Rendered) -> None:
    ours = rendered.ours
    assert len(ours) == 3
    for container in ours:
        assert "command" not in container, "the image's entry point is `python -m backend`"
        parser().parse_args(container["args"])


@pytest.mark.slow  # knows features that a tree may lack
def test_every_variable_and_every_secret_is_a_setting(rendered: Rendered) -> None:
    known = {name for one in load("backend.features", FEATURES).settings for name in one.variables()}
    given = {one["name"] for container in rendered.ours for one in container.get("env", ())} | set(rendered.config)
    assert given - {"PORT", "SECRETS_DIR"} <= known
    secrets = {name for one in rendered.all("Secret") if one["metadata"]["name"] == "mainstay" for name in one["data"]}
    secrets |= {one["secretKey"] for found in rendered.all("ExternalSecret") for one in found["spec"]["data"]}
    endpoints = [end for one in rendered.all("ServiceMonitor") for end in one["spec"]["endpoints"]]
    assert {end["authorization"]["credentials"]["name"] for end in endpoints} <= {"mainstay"}
    secrets |= {end["authorization"]["credentials"]["key"] for end in endpoints}
    assert secrets
    assert {name.upper() for name in secrets} <= known


@pytest.mark.slow  # knows features that a tree may lack
def test_probes_and_scrapes_ask_for_what_is_there(rendered: Rendered, make_app: Callable[..., FastAPI]) -> None:
    paths = make_app().openapi()["paths"]
    probes = {kind: rendered.api[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startupProbe": "/live",
        "livenessProbe": "/live",
        "readinessProbe": "/ready",
    }
    assert {probe["path"] for probe in probes.values()} <= paths.keys()
    (port,) = rendered.api["ports"]
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert str(port["containerPort"]) == rendered.config["PORT"]


@pytest.mark.slow  # knows features that a tree may lack
def test_the_host_name_is_trusted_and_has_a_certificate(rendered: Rendered) -> None:
    (rule,) = {one["spec"]["rules"][0]["host"] for one in rendered.all("Ingress")}
    assert rule in rendered.config["TRUSTED_HOSTS__ALLOWED"].split(",")
    (tls,) = {yaml.safe_dump(one["spec"]["tls"]) for one in rendered.all("Ingress")}
    assert yaml.safe_load(tls)[0]["hosts"] == [rule]
    # Several owners of one certificate would fight over it.
    (asking,) = (one for one in rendered.all("Ingress") if ISSUER in one["metadata"]["annotations"])
    assert asking["metadata"]["name"] == "mainstay"


def ingress(rendered: Rendered, name: str) -> tuple[dict[str, str], set[str]]:
    """An Ingress' annotations, without their prefix, and its paths."""
    found = rendered.one("Ingress", name)
    prefixed = found["metadata"]["annotations"].items()
    annotations = {key.removeprefix("nginx.ingress.kubernetes.io/"): value for key, value in prefixed}
    return annotations, {path["path"] for path in found["spec"]["rules"][0]["http"]["paths"]}


@pytest.mark.slow  # knows features that a tree may lack
def test_sign_in_is_limited_more_than_the_rest(rendered: Rendered, make_app: Callable[..., FastAPI]) -> None:
    limits, paths = ingress(rendered, "mainstay-sign-in")
    open_to_all = {one.path for one in api_routes(make_app()) if one.method == "POST" and one.reason}
    assert open_to_all
    assert paths == open_to_all | CONSOLE_PUBLIC.keys()
    rest, _ = ingress(rendered, "mainstay")
    assert int(limits["limit-rpm"]) < 60 * int(rest["limit-rps"])
    assert int(limits["limit-rpm"]) * int(limits["limit-burst-multiplier"]) <= 30
    assert rest["limit-connections"]


@pytest.mark.slow  # knows features that a tree may lack
def test_only_what_stays_open_may_be_silent_for_long(rendered: Rendered, make_app: Callable[..., FastAPI]) -> None:
    patient, paths = ingress(rendered, "mainstay-streams")
    # The status page's stream says something every few seconds, and is passed on unbuffered by a header of its own.
    open_long = {one.path for one in api_routes(make_app()) if one.stays_open and one.path != "/status/live"}
    assert {path for path in paths if any(one.startswith(f"{path}/") for one in open_long)} == paths
    assert all(any(one.startswith(f"{path}/") for path in paths) for one in open_long)
    assert {"proxy-read-timeout", "proxy-send-timeout"} <= patient.keys()
    for name in ("mainstay", "mainstay-sign-in"):
        assert not {one for one in ingress(rendered, name)[0] if one.endswith("-timeout")}, "nginx's minute will do"


def test_production_accepts_the_settings_of_its_overlay(tmp_path: Path, make_app: Callable[..., FastAPI]) -> None:
    rendered = render("overlays/production")
    (tmp_path / "security__secret_key").write_text("k" * 48)
    (tmp_path / "redis__url").write_text("redis://redis:6379/0")
    app = make_app(**rendered.config, SECRETS_DIR=str(tmp_path))
    assert app.state.settings.environment == "production"


# --- they fit what watches the app ---------------------------------------------------------------------------------


def test_prometheus_in_a_cluster_has_the_rules_of_the_others() -> None:
    rules = RULES.read_text()
    head = (
        "# Written from observability/rules/mainstay.yml: UPDATE_SNAPSHOTS=1 ./scripts/test k8s\n"
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: mainstay\nspec:\n"
    )
    groups = rules[rules.index("groups:") :].splitlines(keepends=True)
    indented = "".join(f"  {line}" if line.strip() else line for line in groups)
    snapshots.check(ROOT / "k8s/components/monitoring/prometheus-rule.yaml", head + indented)
    assert yaml.safe_load(head + indented)["spec"]["groups"] == yaml.safe_load(rules)["groups"]


def test_rules_are_evaluated_once_for_all_namespaces() -> None:
    """A Prometheus that sees several namespaces must neither mix them nor count anything twice."""
    assert [folder for folder in FOLDERS[:3] if render(folder).all("PrometheusRule")] == ["overlays/production"]
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"]):
            assert "namespace" in labels.split(", "), rule


def test_the_autoscaler_asks_for_what_prometheus_records() -> None:
    rendered = render("overlays/production")
    metrics = rendered.one("HorizontalPodAutoscaler")["spec"]["metrics"]
    (asked,) = (one["pods"]["metric"]["name"] for one in metrics if one["type"] == "Pods")
    values = yaml.safe_load((ROOT / "k8s/components/requests-per-second/prometheus-adapter-values.yaml").read_text())
    (offered,) = (one["seriesQuery"].partition("{")[0] for one in values["rules"]["custom"])
    rules = [rule for group in rendered.one("PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    assert asked == offered
    assert asked in {rule.get("record") for rule in rules}


# --- they run, as far as that goes without a cluster ---------------------------------------------------------------


@contextlib.contextmanager
def container(spec: Manifest, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The container's process, with its arguments and these settings alone."""
    command = [sys.executable, "-m", "backend", *spec["args"]]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | variables) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def secrets(tmp_path: Path) -> Iterator[Path]:
    """The dev overlay's Secret as the kubelet mounts it: a folder of links into a folder of links into a folder."""
    if "TEST_POSTGRESQL_URL" not in os.environ:
        pytest.skip("the manifests are for PostgreSQL, which --databases left out")
    folder = tmp_path / "secrets"
    (folder / "..2026").mkdir(parents=True)
    (folder / "..data").symlink_to("..2026")
    with testing.temporary_database("postgresql") as database:
        ours = {"database__url": database, "redis__url": os.environ["TEST_REDIS_URL"]}
        for name, value in render("overlays/dev").one("Secret", "mainstay")["data"].items():
            (folder / "..2026" / name).write_text(ours.get(name, base64.b64decode(value).decode()))
            (folder / name).symlink_to(f"..data/{name}")
        yield folder


@pytest.mark.slow
def test_a_roll_out_by_hand(secrets: Path) -> None:
    """Init container, Job and API, in the order in which a cluster may start them; then the stop."""
    rendered = render("overlays/dev")
    (wait,) = rendered.one("Deployment", "api")["spec"]["template"]["spec"]["initContainers"]
    (migrate,) = rendered.one("Job")["spec"]["template"]["spec"]["containers"]
    port, folder = str(free_port()), {"SECRETS_DIR": str(secrets)}
    with container(wait, **folder) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=4)
        with container(migrate, **folder) as one, container(migrate, **folder) as another:
            assert (one.wait(timeout=60), another.wait(timeout=60)) == (0, 0)
        assert waiting.wait(timeout=60) == 0
    with container(rendered.api, **rendered.config | folder | {"PORT": port}) as api:
        base = f"http://127.0.0.1:{port}"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = rendered.api[probe]["httpGet"]["path"]
            assert answer_in_time(f"{base}{path}", api, host=f"10.244.0.7:{port}") == 200, probe
        assert httpx2.get(f"{base}/health", headers={"Host": "10.244.0.7"}).status_code == 400
        assert httpx2.get(f"{base}/health", headers={"Host": "mainstay.localhost"}).status_code == 200
        token = (secrets / "metrics__token").read_text()
        scrape = httpx2.get(f"{base}/metrics", headers={"Host": "10.244.0.7", "Authorization": f"Bearer {token}"})
        assert "http_requests_total" in scrape.text
        api.send_signal(signal.SIGTERM)
        grace = rendered.one("Deployment", "api")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert answer_in_time(f"{base}/ready", api, host="10.244.0.7", wanted=503) == 503
        assert api.wait(timeout=grace) == 0


def answer_in_time(url: str, process: subprocess.Popen[bytes], *, host: str, wanted: int = 200) -> int:
    """The status, asked for until it is the wanted one or half a minute is over."""
    status = 0
    deadline = time.monotonic() + 30
    while status != wanted and time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx2.HTTPError):
            status = httpx2.get(url, headers={"Host": host}).status_code
        time.sleep(0.1)
    return status
