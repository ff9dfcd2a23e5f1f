"""The result of a run as one self-contained HTML page, without scripts or external resources."""

from collections.abc import Iterable
from html import escape

from faults.summary import RunSummary, by_kind, summary

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 small { font-weight: normal; opacity: .7; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.bar { background: #4a90d9; height: .7rem; display: inline-block; }
.good { color: #1a7f37; } .bad { color: #d1242f; }
pre { overflow-x: auto; background: #8881; padding: .6rem; font-size: .8rem; }
"""

_BAR_REM = 20.0


def page(tally: RunSummary) -> str:
    """Return the page."""
    verdict = (
        '<p class="good"><b>No invariant was violated.</b></p>'
        if tally.passed
        else f'<p class="bad"><b>{len(tally.violations)} violations.</b></p>'
    )
    return "\n".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Fault injection, seed {tally.seed}</title><style>{_STYLE}</style>",
            f"<h1>Fault injection <small>seed {tally.seed}, {escape(tally.machine)}</small></h1>",
            verdict,
            _table((), ([escape(name), escape(value)] for name, value in summary(tally))),
            *_violations(tally),
            "<h2>Faults</h2>",
            "<p>A fault is effective if it hit something: a running process, a connection in use, "
            "a request that was refused.</p>",
            _table(("kind", "effective", "", "ineffective"), _kinds(tally)),
            "<h2>Rounds</h2>",
            _table(
                ("round", "faults", "settled after", "", "online", "stopped", "deleted", "held back"),
                _rounds(tally),
            ),
            "<h2>Requests</h2>",
            _table(("kind", "sent"), ([escape(name), str(n)] for name, n in sorted(tally.requests.items()))),
            "</html>",
        ]
    )


def _violations(tally: RunSummary) -> Iterable[str]:
    for it in tally.violations:
        yield f'<h3 class="bad">{escape(it.invariant)} {escape(it.workspace)}</h3><p>{escape(it.what)}</p>'
        yield f"<pre>{escape(chr(10).join(it.timeline))}</pre>"


def _kinds(tally: RunSummary) -> Iterable[list[str]]:
    rows = by_kind(tally)
    highest = max((effective for _, effective, _ in rows), default=0)
    for name, effective, ineffective in rows:
        yield [escape(name), str(effective), _bar(effective, highest), str(ineffective)]


def _rounds(tally: RunSummary) -> Iterable[list[str]]:
    highest = tally.settling[-1] if tally.settling else 0.0
    for it in tally.rounds:
        after = it.settled_after
        text = "not in time" if after is None else f"{after:.1f} s"
        numbers = [str(n) for n in (it.online, it.stopped, it.deleted, it.held_back)]
        yield [
            str(it.number),
            str(sum(it.effective.values())),
            text,
            _bar(after or 0.0, highest),
            *numbers,
        ]


def _bar(value: float, highest: float) -> str:
    width = _BAR_REM * value / highest if highest else 0.0
    return f'<span class="bar" style="width:{width:.2f}rem"></span>'


def _table(headings: Iterable[str], rows: Iterable[list[str]]) -> str:
    head = "".join(f"<th>{each}</th>" for each in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"
