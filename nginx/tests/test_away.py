"""Maintenance, by an operator's hand or because no app answers."""

from pathlib import Path

import httpx2
import pytest

from backend.core.errors import ErrorBody
from backend.testing import free_port
from nginx.tests.conftest import SECURITY_HEADERS, App, Nginx, StartNginx, running_apps

pytestmark = [pytest.mark.slow, pytest.mark.nginx]

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def check_away(nginx: Nginx, answer: httpx2.Response) -> None:
    """503 with Retry-After, in the form that this caller reads."""
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Cache-Control"] == "no-store"
    for name in (*SECURITY_HEADERS, "X-Request-ID", "Content-Type"):
        assert len(answer.headers.get_list(name)) == 1, name
    if "text/html" in answer.request.headers["Accept"]:
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "<h1>Back in a moment</h1>" in answer.text
    else:
        error = ErrorBody.model_validate(answer.json())
        assert (error.error.code, error.path) == ("unavailable", answer.url.path)
        assert error.request_id == answer.headers["X-Request-ID"]
    line = nginx.logged(answer.headers["X-Request-ID"])
    assert (line["status"], line["method"], line["path"]) == (503, answer.request.method, answer.url.path)


def check_away_for_all(nginx: Nginx, client: httpx2.Client) -> None:
    for headers in (BROWSER, {"Accept": "application/json"}):
        check_away(nginx, client.get("/", headers=headers))
        check_away(nginx, client.post("/admin/login", data={"username": "a"}, headers=headers))
        check_away(nginx, client.delete("/api/v1/store/items/1", headers=headers))


def test_a_file_begins_and_ends_maintenance(start_nginx: StartNginx, apps: list[App]) -> None:
    nginx = start_nginx([apps[0].address])
    switch = nginx.folder / "maintenance"
    with nginx.client() as client:
        assert client.get("/").status_code == 200
        switch.touch()
        check_away_for_all(nginx, client)
        check_away(nginx, client.get("/static/logo.svg", headers=BROWSER))
        assert client.get("/live").status_code == 200  # nobody shall restart what is merely closed
        switch.unlink()
        assert client.get("/").status_code == 200


def test_the_page_is_shown_while_no_app_is_there(start_nginx: StartNginx) -> None:
    nginx = start_nginx([f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"])
    with nginx.client() as client:
        check_away_for_all(nginx, client)


def test_static_files_are_served_while_the_app_is_away(start_nginx: StartNginx, tmp_path: Path) -> None:
    with running_apps(1, "sqlite", tmp_path) as [app]:
        nginx = start_nginx([app.address])
        with nginx.client() as client:
            file = client.get("/static/logo.svg")
            assert file.status_code == 200
            assert app.stop() == 0
            check_away(nginx, client.get("/", headers=BROWSER))
            assert client.get("/static/logo.svg").content == file.content
            app.start()
            assert client.get("/", headers=BROWSER).status_code == 200
