"""What can be said of alerts, dashboard and scraping from their files alone."""

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
    """As the runbook's headings are named: `AwsThrottles` is `aws-throttles`."""
    return re.sub("(?<!^)(?=[A-Z])", "-", name).lower()


def test_every_alert_says_what_is_wrong_how_urgent_it_is_and_where_to_read_on() -> None:
    for rule in alerts():
        annotations, name = rule["annotations"], str(rule["alert"])
        assert isinstance(annotations, dict)
        assert {"summary", "description", "runbook"} == set(annotations)
        assert annotations["runbook"] == ANCHOR + kebab(name)
        assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})


def test_every_alert_has_a_section_of_the_runbook() -> None:
    anchors = {section.anchor for section in sections(ROOT / "docs" / "runbook.md")}
    assert {kebab(str(rule["alert"])) for rule in alerts()} <= anchors


def test_no_two_alerts_have_one_name() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) > 20


def test_every_broken_invariant_has_an_alert_that_wakes_somebody() -> None:
    paged = [str(rule["expr"]) for rule in alerts() if rule["labels"] == {"severity": "page"}]
    for invariant in ("I1", "I4", "I9", "I10"):
        assert any(f'invariant="{invariant}"' in text for text in paged), invariant


def test_every_expression_can_be_parsed_and_names_a_metric() -> None:
    for asked in all_asked():
        assert asked.uses, asked


def test_figures_that_every_worker_exports_are_not_added_up() -> None:
    for asked in all_asked():
        assert not re.search(r"sum[^()]*\(\s*onebox_(?!\w+_(total|bucket|count|sum)\b)", asked.text), asked


def test_prometheus_scrapes_each_process_where_compose_has_it_listen() -> None:
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


def test_no_port_of_metrics_is_published() -> None:
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


def test_the_dashboard_is_what_grafana_imports() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "onebox.json").read_text())
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
    assert dashboard["uid"] == "onebox"
    for panel in dashboard["panels"]:
        where = panel["gridPos"]
        assert where["x"] + where["w"] <= 24
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
