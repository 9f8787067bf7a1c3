"""Prometheus metrics that add up under several gunicorn workers.

With `PROMETHEUS_MULTIPROC_DIR` set each process writes its numbers to files in that folder and `/metrics`, whichever
worker answers, sums all of them. Without it the numbers are this process's own. What the app's background worker counts in the folder
beside it (`<app>-<slot>-worker` beside `<app>-<slot>-api`) is added: a worker serves no `/metrics` of its own.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

# prometheus_client chooses its storage when it is imported: the folder must be there by then
_FOLDER: Final = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
if _FOLDER:
    Path(_FOLDER).mkdir(parents=True, exist_ok=True)

from prometheus_client import (  # noqa: E402 - see the comment above
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.metrics import MetricWrapperBase  # noqa: E402 - see the comment above
from prometheus_client.metrics_core import Metric  # noqa: E402 - see the comment above
from prometheus_client.registry import Collector  # noqa: E402 - see the comment above

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper bounds in seconds; 2.0 is where the usual latency alarm stands."""

GaugeMode = Literal[
    "all", "liveall", "min", "livemin", "max", "livemax", "sum", "livesum", "mostrecent", "livemostrecent"
]

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY: Final = CollectorRegistry()
_known: dict[str, MetricWrapperBase] = {}
M = TypeVar("M", bound=MetricWrapperBase)


def counter(name: str, help: str, labels: Sequence[str] = ()) -> Counter:  # noqa: A002 - Prometheus calls it help
    """A number that only grows. Asking twice for one name gives the same metric."""
    return _once(Counter, name, labels, lambda: Counter(name, help, labels, registry=REGISTRY))


def histogram(
    name: str,
    help: str,  # noqa: A002 - Prometheus calls it help
    labels: Sequence[str] = (),
    *,
    buckets: Sequence[float] = LATENCY_BUCKETS,
) -> Histogram:
    """How values are spread over buckets; seconds unless the name says another unit."""
    return _once(Histogram, name, labels, lambda: Histogram(name, help, labels, buckets=buckets, registry=REGISTRY))


def gauge(
    name: str,
    help: str,  # noqa: A002 - Prometheus calls it help
    labels: Sequence[str] = (),
    *,
    mode: GaugeMode = "livesum",
) -> Gauge:
    """A value that goes up and down; `mode` says how the workers' values become one."""
    return _once(Gauge, name, labels, lambda: Gauge(name, help, labels, registry=REGISTRY, multiprocess_mode=mode))


def _once(kind: type[M], name: str, labels: Sequence[str], make: Callable[[], M]) -> M:
    known = _known.get(name)
    if known is None:
        known = _known[name] = make()
    has = tuple(known._labelnames)  # noqa: SLF001 - nothing public tells
    if not isinstance(known, kind) or has != tuple(labels):
        raise ValueError(f"metric {name} exists already as a {type(known).__name__} with labels {has}")
    return known


def _summed() -> CollectorRegistry:
    """A registry with every metric, summed over the workers when there are several."""
    if not _FOLDER:
        return REGISTRY
    registry = CollectorRegistry()
    registry.register(_Together())
    return registry


class _Together(Collector):
    """What all processes of the app count."""

    def collect(self) -> Iterable[Metric]:
        """Give the metrics."""
        own = Path(_FOLDER)
        beside = own.with_name(f"{own.name.removesuffix('-api')}-worker") if own.name.endswith("-api") else own
        for folders in ({own, beside}, {own}):
            files = [str(path) for folder in folders for path in folder.glob("*.db")]
            try:
                return list(multiprocess.MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]
            except FileNotFoundError:  # the worker ends just now, and its folder with it
                continue
        return []


def exposition() -> bytes:
    """Every metric in Prometheus' text format."""
    return generate_latest(_summed())


def total(name: str, counts: Callable[[Mapping[str, str]], bool] = lambda _labels: True) -> float:
    """The sum of a counter over all workers and over the label sets for which `counts` is true."""
    return sum(
        sample.value
        for metric in _summed().collect()
        for sample in metric.samples
        if sample.name == f"{name.removesuffix('_total')}_total" and counts(sample.labels)
    )


@dataclass(frozen=True)
class Distribution:
    """A histogram over all workers. `buckets` are (upper bound, how many at or below it), ending with infinity."""

    count: int
    sum: float
    buckets: tuple[tuple[float, int], ...]

    @property
    def mean(self) -> float | None:
        """The mean; None when nothing was observed."""
        return self.sum / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """About the value below which this share lies, straight within its bucket; None when nothing was observed."""
        wanted, low, before = share * self.count, 0.0, 0
        for bound, upto in self.buckets:
            if upto >= wanted and upto > before:
                return low if bound == math.inf else low + (bound - low) * (wanted - before) / (upto - before)
            low, before = bound, upto
        return None


def distribution(name: str, counts: Callable[[Mapping[str, str]], bool] = lambda _labels: True) -> Distribution:
    """A histogram summed over all workers and over the label sets for which `counts` is true."""
    buckets: dict[float, float] = {}
    count = total_ = 0.0
    for metric in _summed().collect():
        for sample in metric.samples if metric.name == name else ():
            if not counts(sample.labels):
                continue
            if sample.name == f"{name}_bucket":
                bound = float(sample.labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + sample.value
            elif sample.name == f"{name}_count":
                count += sample.value
            elif sample.name == f"{name}_sum":
                total_ += sample.value
    return Distribution(int(count), total_, tuple((bound, int(buckets[bound])) for bound in sorted(buckets)))


def forget_worker(pid: int) -> None:
    """Drop the live gauges of a worker that died; counters and histograms stay counted."""
    if _FOLDER:
        multiprocess.mark_process_dead(pid, _FOLDER)  # type: ignore[no-untyped-call]
