"""Grams a kilowatt-hour: a number, a country's mean, and a service on loopback that answers, refuses, or is gone."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from agentlab.compress.config import CompressConfig
from agentlab.compress.intensity import KEY, Intensity, fetch_intensity, key_of, look_up_intensity
from agentlab.errors import ConfigError, MissingKeyError, UnknownNameError, UntrustedHostError

GERMANY = look_up_intensity("Germany")


class Grid(HTTPServer):
    """A service that answers with `status` and `body`, and remembers what it was asked."""

    status, body = 200, b'{"zone": "DE", "carbonIntensity": 302, "datetime": "2026-01-01T00:00:00Z"}'

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.heard: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Grid

    def do_GET(self) -> None:
        self.server.heard.append((self.path, self.headers.get("auth-token")))
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.body)))
        if self.server.status == 302:
            self.send_header("location", "/elsewhere")
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def grid() -> Iterator[Grid]:
    server = Grid()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_number_is_itself_and_a_country_its_mean() -> None:
    assert look_up_intensity(123) == Intensity(123.0, "fixed")
    assert look_up_intensity(" deu ") == look_up_intensity("de") == GERMANY
    assert 300 < GERMANY.grams < 500
    assert look_up_intensity("France").grams < 100
    with pytest.raises(UnknownNameError, match="Atlantis"):
        look_up_intensity("Atlantis")
    with pytest.raises(UnknownNameError) as refused:
        look_up_intensity("Germny")
    assert "Germany" in str(refused.value.hint)


def test_the_service_is_asked_once_an_hour_and_its_key_is_not_kept(grid: Grid, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    intensity = fetch_intensity(grid.address, "DE", "secret-key", cache, GERMANY, now=0.0)
    assert intensity == Intensity(302.0, "Electricity Maps, DE, 1970-01-01 00:00 UTC")
    assert grid.heard == [("/carbon-intensity/latest?zone=DE", "secret-key")]
    grid.body = b'{"carbonIntensity": 200}'
    assert fetch_intensity(grid.address, "DE", "secret-key", cache, GERMANY, now=3000.0) == intensity
    assert fetch_intensity(grid.address, "DE", "secret-key", cache, GERMANY, now=4000.0).grams == 200
    assert len(grid.heard) == 2
    assert "secret-key" not in cache.read_text()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, b"{}", "status 401"),
        (302, b"", "redirects"),
        (200, b"<html>", "did not answer with JSON"),
        (200, b'{"carbonIntensity": null}', "no carbon intensity"),
        (200, b'{"carbonIntensity": -4}', "no carbon intensity"),
        (200, b"[]", "no carbon intensity"),
        (200, b'"' + b"x" * 100_000 + b'"', "too large"),
    ],
)
def test_without_an_answer_the_last_one_counts_or_the_mean(
    grid: Grid, tmp_path: Path, status: int, body: bytes, reason: str
) -> None:
    grid.status, grid.body = status, body
    cache = tmp_path / "cache.json"
    intensity = fetch_intensity(grid.address, "DE", "k", cache, GERMANY)
    assert intensity.grams == GERMANY.grams
    assert intensity.source.startswith(GERMANY.source)
    assert reason in intensity.source
    cache.write_text(json.dumps({"DE": {"grams": 100, "at": 0}}))
    intensity = fetch_intensity(grid.address, "DE", "k", cache, GERMANY, now=90_000.0)
    assert intensity.grams == 100
    assert "Electricity Maps, DE, 1970" in intensity.source


def test_a_service_that_is_gone_and_a_damaged_cache_stop_nobody(tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    cache.write_text('{"DE": 3')
    intensity = fetch_intensity("http://127.0.0.1:9", "DE", "k", cache, GERMANY)
    assert intensity.grams == GERMANY.grams
    assert "Cannot connect" in intensity.source


def test_config_and_environment_are_checked_before_work() -> None:
    assert CompressConfig.model_validate({"energy": {"intensity": "FRA"}}).energy.intensity == "FRA"
    for energy in ({"intensity": "Atlantis"}, {"intensity": -1}, {"service": "http://example.org/v3"}):
        with pytest.raises((ValueError, ConfigError)):
            CompressConfig.model_validate({"energy": energy})
    with pytest.raises(MissingKeyError, match=KEY):
        key_of("https://api.electricitymaps.com/v3", {})
    with pytest.raises(UntrustedHostError, match=KEY):
        key_of("https://example.org/v3", {KEY: "k"})
