"""The metrics that a process exports: families with types, samples with labels and values."""

from collections import defaultdict
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families


@dataclass(slots=True, kw_only=True)
class Exported:
    """The combined metrics of several processes."""

    types: dict[str, str] = field(default_factory=dict)
    """Types by sample name: counter, gauge, histogram. Includes families without samples."""
    labels: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)

    def take(self, text: str) -> None:
        """Add one scrape."""
        for family in text_string_to_metric_families(text):
            for name in _samples(family.name, family.type):
                self.types[name] = family.type
            for sample in family.samples:
                self.labels[sample.name] |= set(sample.labels)
                self.values[sample.name, tuple(sorted(sample.labels.items()))] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """The value of a sample; 0 if it is missing."""
        return self.values.get((name, tuple(sorted(labels.items()))), 0)

    @property
    def ours(self) -> set[str]:
        """Onebox's metric families, as in the documentation."""
        return {
            name.removesuffix("_count")
            for name, kind in self.types.items()
            if name.startswith("onebox_") and (kind != "histogram" or name.endswith("_count"))
        }


def _samples(family: str, kind: str) -> tuple[str, ...]:
    match kind:
        case "counter":
            return (f"{family}_total",)
        case "histogram":
            return (f"{family}_bucket", f"{family}_sum", f"{family}_count")
        case _:
            return (family,)
