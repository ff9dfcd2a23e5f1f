"""A made-up report that has one result with every part."""

from bench.parts.results import Comparison, Figure, Goal, Line, Profile, Report, Result, Table

COMPARISON = Comparison(
    name="beats",
    unit="heartbeats/s",
    ours="the API",
    theirs="a constant",
    rounds=((50.0, 100.0), (90.0, 100.0), (30.0, 120.0)),
)
MET = Goal(text="half of a constant", seen=0.5, relation=">=", limit=0.5)
MISSED = Goal(text="time to online", seen=1.25, relation="<", limit=1.0, unit="s")
PROFILE = Profile(of="a beat's time", shares=(("psycopg", 61.0), ("json", 39.0)))


def result(*goals: Goal) -> Result:
    return Result(
        name="beats",
        title="Beats of one API",
        work="Some boxes beat.",
        against="A constant.",
        comparisons=(COMPARISON,),
        figures=(Figure(name="p99", value=12.345, unit="ms"),),
        lines=(Line(name="beats by fleet", unit="heartbeats/s", points=((10, 5.0), (1_000, 4.0))),),
        goals=goals,
        profiles=(PROFILE,),
        tables=(Table(title="Calls", head=("call", "times"), rows=(("RunInstances", "1"),)),),
        notes=("That is all.",),
    )


def report(*goals: Goal, size: str = "full") -> Report:
    return Report(size=size, machine={"processor": "2 × one"}, minutes=3.21, results=(result(*goals),))
