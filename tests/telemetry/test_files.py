"""Alerts, dashboard and scrape configuration, checked from their files."""

import json
import re
import shlex
import subprocess
import sys

import yaml

from tests.deploy import compose
from tests.documents import ROOT, sections
from tests.telemetry.expressions import DEPLOY, alerts, all_asked
from workflows.shared.trace_ids import of_generation

ANCHOR = "docs/runbook.md#"


def kebab(name: str) -> str:
    """The runbook's anchor for an alert: `AwsThrottles` is `aws-throttles`."""
    return re.sub("(?<!^)(?=[A-Z])", "-", name).lower()


def test_every_alert_has_texts_a_severity_and_a_runbook_link() -> None:
    for rule in alerts():
        annotations, name = rule["annotations"], str(rule["alert"])
        assert isinstance(annotations, dict)
        assert {"summary", "description", "runbook"} == set(annotations)
        assert annotations["runbook"] == ANCHOR + kebab(name)
        assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})


def test_every_alert_has_a_section_of_the_runbook() -> None:
    anchors = {section.anchor for section in sections(ROOT / "docs" / "runbook.md")}
    assert {kebab(str(rule["alert"])) for rule in alerts()} <= anchors


def test_alert_names_are_unique() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) > 20


def test_every_invariant_has_an_alert_that_pages() -> None:
    paged = [str(rule["expr"]) for rule in alerts() if rule["labels"] == {"severity": "page"}]
    for invariant in ("I1", "I4", "I9", "I10"):
        assert any(f'invariant="{invariant}"' in text for text in paged), invariant


def test_every_expression_can_be_parsed_and_names_a_metric() -> None:
    for asked in all_asked():
        assert asked.uses, asked


def test_fleet_metrics_are_not_summed_over_workers() -> None:
    for asked in all_asked():
        assert not re.search(r"sum[^()]*\(\s*onebox_(?!\w+_(total|bucket|count|sum)\b)", asked.text), asked


def test_prometheus_scrapes_each_process_of_the_compose_file() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    scraped = {
        job["job_name"]: (each["names"][0], each["port"]) for job in jobs for each in job["dns_sd_configs"]
    }
    services = compose.services(dict.fromkeys(compose.required(), "filled-in"))
    worker, api = (services[name]["environment"] for name in ("worker", "register-api"))
    listening = {
        "onebox-worker": ("worker", worker["WORKER_METRICS_BIND"]),
        "onebox-sdk": ("worker", worker["SDK_METRICS_BIND"]),
        "onebox-api": ("register-api", api["API_METRICS_BIND"]),
    }
    assert scraped == {
        job: (service, int(bind.rpartition(":")[2])) for job, (service, bind) in listening.items()
    }
    for asked in all_asked():
        for job in re.findall(r'job="([^"]*)"', asked.text):
            assert job in scraped, asked


def test_no_metrics_port_is_published() -> None:
    services = compose.services(dict.fromkeys(compose.required(), "filled-in"))
    for service in services.values():
        for published in service.get("ports", []):
            assert published.rpartition(":")[2] not in {"9464", "9465", "9466"}


def test_the_command_that_finds_a_generations_trace_prints_its_id() -> None:
    page = (ROOT / "docs" / "telemetry.md").read_text()
    [line] = re.findall(r"^    (python -c .*)$", page, re.MULTILINE)
    words = shlex.split(line)
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True)
    assert done.stdout.strip() == f"{of_generation('ws-1', 7).trace_id:032x}", done.stderr


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "onebox.json").read_text())
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
    assert dashboard["uid"] == "onebox"
    for panel in dashboard["panels"]:
        where = panel["gridPos"]
        assert where["x"] + where["w"] <= 24
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
