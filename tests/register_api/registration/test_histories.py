"""Random histories of two boxes and one bootstrap, against the running API: what holds after every step,
and that the right box gets back in after the last one. The rule of the incident is put through the same."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, LiteralString, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from typing_extensions import override

from activities.user_data import onebox_box
from register_api.auth.rules import ABANDONED_AFTER
from tests.register_api.platform import KEYS
from tests.register_api.registration.boxes_model import BEAT, REGISTER, History
from tests.register_api.stage import Stage, Told, stage

RUN = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)

MOST_GENERATIONS = 4
"""A box that is two generations old differs from one that is older by nothing."""

MOST_CRASHES = 1
"""A restart takes as long as thirty calls."""

HELD: dict[str, LiteralString] = {
    "a beat": "SELECT FROM heartbeats WHERE workspace_id = %s FOR UPDATE",
    "a register, before it writes": "SELECT FROM generations WHERE workspace_id = %s FOR UPDATE",
    "a register, before it commits": "SELECT FROM workspaces WHERE workspace_id = %s FOR UPDATE",
}
"""The rows that the call waits for when it is killed. A beat is one statement, which runs to its end."""

BOX = st.sampled_from(["current", "old"])
PRESENTING = st.sampled_from(["secret", "both"])
FOREIGN = st.sampled_from(["nothing", "a random token", "a forged secret", "a neighbour's token"])


class Box:
    """The box script on its real files, and a runtime that knows no more than the token file."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.generation, secret = history.open_next()
        self.name = f"the box of generation {self.generation}"
        self.configs = history.stage.directory / f"{history.workspace_id}-{self.generation}"
        self.configs.mkdir()
        parameters: dict[str, object] = {
            "workspace_id": history.workspace_id,
            "generation": self.generation,
            "bootstrap_secret": secret,
            "platform_url": history.stage.api.url,
            "runtime_command": "true",
            "runtime_user": "",
            "runtime_port": 0,
            "configs_dir": self.configs,
        }
        self.script = onebox_box.Box(parameters, {})
        self.file = onebox_box.TokenFile(self.script)
        self.kept: str | None = None
        """By the script, in memory."""
        self.cached: str | None = None
        """By the runtime: a value is never read again."""

    def start(self) -> None:
        """The script starts, or starts again: the runtime that it had is gone with it."""
        self.kept = self.cached = None
        with self.history.script_of(self.name):
            self._enter(self.file.read())

    def look(self) -> None:
        """The script's look once a minute."""
        with self.history.script_of(self.name):
            held = self.file.read()
            if held is None or onebox_box.token_lost(self.script, held):
                self._enter(held or self.kept)
            else:
                self.kept = held

    def _enter(self, held: str | None) -> None:
        self.cached = None  # the runtime is stopped before, and started after it
        self.kept = onebox_box.register(self.script, held)
        self.file.write(self.kept)

    def register(self, presenting: str, *, lost: bool, held: LiteralString | None = None) -> Told:
        """One call of the script, or of the runtime with its token only; and what it does with the answer."""
        bearer = self._token() if presenting in ("token", "both") else None
        headers = {}
        if presenting in ("secret", "both"):
            bearer = bearer or self.script.secret
            headers["X-Bootstrap-Token"] = self.script.secret
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        body: dict[str, object] = {"id": self.history.workspace_id, "url": ""}
        told = self.history.call(REGISTER, headers, body, by=self.name, held=held)
        if presenting == "token":
            self.cached = bearer
        if lost or told.status != 200:
            return told
        got = told.token or bearer or ""
        if presenting == "token":
            self.cached = got
            (self.configs / ".auth_token").write_text(got)
        else:
            self.cached, self.kept = None, got  # the runtime will be started anew
            self.file.write(got)
        return told

    def beat(self, *, held: LiteralString | None = None) -> Told:
        """The runtime beats with what it cached, or finds in the file."""
        self.cached = self._token()
        headers = {} if self.cached is None else {"Authorization": f"Bearer {self.cached}"}
        body: dict[str, object] = {"workspace_id": self.history.workspace_id, "active_tasks": 0}
        return self.history.call(BEAT, headers, body, by=self.name, held=held)

    def restart_runtime(self) -> Told:
        self.cached = None
        return self.register("token", lost=False)

    def _token(self) -> str | None:
        """Whosever it is: only the script looks at the mark beside the file."""
        file = self.configs / ".auth_token"
        return self.cached or (file.read_text() if file.exists() else None)

    def wipe(self) -> None:
        for file in self.configs.iterdir():
            file.unlink()

    def copy_files_of(self, other: "Box") -> None:
        """What a volume that outlives its box, or serves two of them, does."""
        self.wipe()
        shutil.copytree(other.configs, self.configs, dirs_exist_ok=True)


class TwoBoxes(RuleBasedStateMachine):
    """A box and its successor, both up, both well-meaning; only that the right one gets in is looked at."""

    judging: ClassVar[bool] = False

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.history = History(stage, judging=self.judging)
        self.boxes: list[Box] = []

    @property
    def current(self) -> Box:
        return self.boxes[-1]

    def box(self, which: str) -> Box:
        return self.boxes[-1] if which == "current" else self.boxes[-2]

    @initialize(old_was_up=st.booleans())
    def the_old_box_is_replaced(self, old_was_up: bool) -> None:
        self.boxes.append(Box(self.history))
        if old_was_up:
            self.current.start()
            self.current.beat()
        self.boxes.append(Box(self.history))

    @rule(box=BOX, presenting=PRESENTING)
    def a_box_registers(self, box: str, presenting: str) -> None:
        self.box(box).register(presenting, lost=False)

    @rule(box=BOX)
    def a_runtime_beats(self, box: str) -> None:
        self.box(box).beat()

    @rule()
    def the_current_box_gets_in(self) -> None:
        self.current.look()
        told = self.current.beat()
        assert told.status == 200, f"I5: the right box beats in vain, it is told {told}"

    @override
    def teardown(self) -> None:
        if sys.exception() is None:  # else the history was cut short, by what it found or by its shrinking
            self.the_current_box_gets_in()


class Histories(TwoBoxes):
    """And all that goes wrong between them; every answer and every state of the record is looked at."""

    judging = True

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.crashes = 0

    @rule()
    def the_old_box_is_told_that_it_is_over(self) -> None:
        for what_it_does in (self.boxes[-2].look, self.boxes[-2].start):
            with pytest.raises(onebox_box.Over):
                what_it_does()

    @rule()
    def the_script_of_the_current_box_starts_again(self) -> None:
        self.current.start()

    @rule(box=BOX)
    def a_runtime_starts_again(self, box: str) -> None:
        self.box(box).restart_runtime()

    @rule(box=BOX, presenting=st.sampled_from(["secret", "both", "token"]))
    def an_answer_to_a_register_is_lost(self, box: str, presenting: str) -> None:
        self.box(box).register(presenting, lost=True)

    @rule(lost=st.booleans())
    def the_current_box_registers_after_a_quiet_minute(self, lost: bool) -> None:
        self.history.pass_time(ABANDONED_AFTER)
        self.current.register("secret", lost=lost)

    @rule(box=BOX)
    def a_token_file_is_wiped(self, box: str) -> None:
        self.box(box).wipe()

    @rule(to=BOX)
    def a_token_file_is_copied(self, to: str) -> None:
        self.box(to).copy_files_of(self.box("old" if to == "current" else "current"))

    @rule()
    def a_minute_passes_without_a_call(self) -> None:
        self.history.pass_time(ABANDONED_AFTER)

    @precondition(lambda self: len(self.boxes) < MOST_GENERATIONS)
    @rule(volume_survives=st.booleans())
    def the_box_is_replaced(self, volume_survives: bool) -> None:
        self.boxes.append(Box(self.history))
        if volume_survives:
            self.current.copy_files_of(self.boxes[-2])

    @rule()
    def an_operator_revokes_the_newest_token(self) -> None:
        self.history.revoke_newest()

    @rule(path=st.sampled_from([REGISTER, BEAT, "state"]), presenting=FOREIGN)
    def a_stranger_calls(self, path: str, presenting: str) -> None:
        workspace_id = self.history.workspace_id
        bearer = {
            "nothing": None,
            "a random token": "x" * 43,
            "a forged secret": f"ob1.{KEYS.current}.{len(self.boxes)}.{'x' * 43}",
            "a neighbour's token": self.history.stage.neighbours_token,
        }[presenting]
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        if path == "state":
            self.history.call(f"/workspaces/{workspace_id}/state", headers, None, by="a stranger")
        else:
            body: dict[str, object] = {"id": workspace_id, "workspace_id": workspace_id}
            self.history.call(path, headers, body, by="a stranger")

    @precondition(lambda self: self.crashes < MOST_CRASHES)
    @rule(during=st.sampled_from(sorted(HELD)))
    def the_api_is_killed(self, during: str) -> None:
        self.crashes += 1
        if during == "a beat":
            self.current.beat(held=HELD[during])
        else:
            self.current.register("both", lost=True, held=HELD[during])

    @invariant()
    def the_record_is_sound(self) -> None:
        if self.boxes:
            self.history.check()

    @override
    def teardown(self) -> None:
        super().teardown()
        if sys.exception() is None and not self.history.stage.naive:  # it would be found without a step
            self.history.check()
            self.boxes[-2].copy_files_of(self.current)
            self.boxes[-2].register("both", lost=True)
            self.the_old_box_is_told_that_it_is_over()


@pytest.fixture(scope="module")
def incident(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The API with the rule of the incident."""
    with stage(database, tmp_path_factory.mktemp("incident"), naive=True) as running:
        yield running


@pytest.mark.storm
def test_after_any_history_the_right_box_gets_back_in_and_nobody_else(database: str, tmp_path: Path) -> None:
    with stage(database, tmp_path) as running:
        _run(lambda: Histories(running), RUN)


def test_the_rule_of_the_incident_does_not_stand_the_same_histories(incident: Stage) -> None:
    assert _counter_example(lambda: Histories(incident), "^I[4-7]: ")


def test_the_rule_of_the_incident_leaves_the_right_box_with_a_401_for_ever(incident: Stage) -> None:
    steps = _counter_example(
        lambda: TwoBoxes(incident), "I5: .*'401 token_invalid'.*given to .'the box of generation 1'"
    )
    assert "state.a_box_registers(box='old', presenting='secret')" in steps


def _counter_example(machine: Callable[[], TwoBoxes], message: str) -> list[str]:
    with pytest.raises(AssertionError, match=message) as found:
        _run(machine, settings(RUN, stateful_step_count=6))
    return found.value.__notes__


def _run(machine: Callable[[], TwoBoxes], how: settings) -> None:
    # Any factory will do, says its documentation; its annotation has room for the class only.
    run_state_machine_as_test(cast("type[TwoBoxes]", machine), settings=how)
