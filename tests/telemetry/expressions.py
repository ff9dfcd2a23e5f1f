"""The expressions in the Prometheus and Grafana files, and the metrics they use."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatrixSelector,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
    parse,
)

DEPLOY = Path(__file__).parents[2] / "deploy"

_RATES = frozenset({"rate", "irate", "increase"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One metric in an expression, and how it is used."""

    name: str
    labels: frozenset[str]
    rated: bool
    quantile: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An expression and its location."""

    where: str
    text: str

    @property
    def uses(self) -> list[Use]:
        """The metrics in it, with the labels that it matches or keeps."""
        text = re.sub(r"\$__\w+", "5m", self.text)
        return list(_uses(parse(text), frozenset(), rated=False, quantile=False))


def alerts() -> list[dict[str, object]]:
    """The alert rules."""
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def all_asked() -> list[Asked]:
    """Every expression of the alerts and of the dashboard."""
    asked = [Asked(where=str(rule["alert"]), text=str(rule["expr"])) for rule in alerts()]
    for panel in json.loads((DEPLOY / "grafana/onebox.json").read_text())["panels"]:
        asked += [Asked(where=panel["title"], text=target["expr"]) for target in panel.get("targets", [])]
    return asked


def _uses(expr: Expr, kept: frozenset[str], *, rated: bool, quantile: bool) -> Iterator[Use]:
    match expr:
        case VectorSelector():
            matched = frozenset(each.name for each in expr.matchers.matchers)
            yield Use(name=expr.name or "", labels=matched | kept, rated=rated, quantile=quantile)
        case MatrixSelector():
            yield from _uses(expr.vector_selector, kept, rated=rated, quantile=quantile)
        case AggregateExpr():
            labels = frozenset(expr.modifier.labels) if expr.modifier is not None else frozenset()
            yield from _uses(expr.expr, kept | labels, rated=rated, quantile=quantile)
        case Call():
            name = expr.func.name
            for each in expr.args:
                yield from _uses(
                    each,
                    kept,
                    rated=rated or name in _RATES,
                    quantile=quantile or name == "histogram_quantile",
                )
        case BinaryExpr():
            for side in (expr.lhs, expr.rhs):
                yield from _uses(side, kept, rated=rated, quantile=quantile)
        case ParenExpr() | UnaryExpr() | SubqueryExpr():
            yield from _uses(expr.expr, kept, rated=rated, quantile=quantile)
        case _:
            return
