"""Random histories of two boxes of one workspace against the running API.

Invariants hold after every step, and the current box recovers after the last one. The incident's rule must
fail the same histories.
"""

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

from activities.user_data import box_base, box_files, onebox_box
from register_api.auth.rules import ABANDONED_AFTER
from tests.register_api.platform import KEYS
from tests.register_api.registration.boxes_model import HEARTBEAT, REGISTER, History
from tests.register_api.stage import ApiResponse, Stage, stage

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
"""More generations add no new situation."""

MOST_CRASHES = 1
"""A restart takes as long as thirty calls."""

HELD: dict[str, LiteralString] = {
    "a heartbeat": "SELECT FROM heartbeats WHERE workspace_id = %s FOR UPDATE",
    "a register, before it writes": "SELECT FROM generations WHERE workspace_id = %s FOR UPDATE",
    "a register, before it commits": "SELECT FROM workspaces WHERE workspace_id = %s FOR UPDATE",
}
"""The rows that the killed call waits for. A heartbeat is one statement, which completes."""

BOX = st.sampled_from(["current", "old"])
PRESENTING = st.sampled_from(["secret", "both"])
FOREIGN = st.sampled_from(["nothing", "a random token", "a forged secret", "a neighbour's token"])


class Box:
    """The box script with real files, and a runtime that knows only the token file."""

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
        self.script = box_base.Box(parameters, {})
        self.file = box_files.TokenFile(self.script)
        self.kept: str | None = None
        """The token that the script has in memory."""
        self.cached: str | None = None
        """The token that the runtime has read; it never reads it again."""

    def start(self) -> None:
        """Start or restart the script; its runtime ended with it."""
        self.kept = self.cached = None
        with self.history.script_of(self.name):
            self._enter(self.file.read())

    def look(self) -> None:
        """Run the script's periodic check."""
        with self.history.script_of(self.name):
            held = self.file.read()
            if held is None or onebox_box.token_lost(self.script, held):
                self._enter(held or self.kept)
            else:
                self.kept = held

    def _enter(self, held: str | None) -> None:
        self.cached = None  # the runtime is stopped before registering and started after it
        self.kept = onebox_box.register(self.script, held)
        self.file.write(self.kept)

    def register(self, presenting: str, *, lost: bool, held: LiteralString | None = None) -> ApiResponse:
        """Register once, as the script or as the runtime with its token only, and process the response."""
        bearer = self._token() if presenting in ("token", "both") else None
        headers = {}
        if presenting in ("secret", "both"):
            bearer = bearer or self.script.secret
            headers["X-Bootstrap-Token"] = self.script.secret
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        body: dict[str, object] = {"id": self.history.workspace_id, "url": ""}
        response = self.history.call(REGISTER, headers, body, by=self.name, held=held)
        if presenting == "token":
            self.cached = bearer
        if lost or response.status != 200:
            return response
        got = response.token or bearer or ""
        if presenting == "token":
            self.cached = got
            (self.configs / ".auth_token").write_text(got)
        else:
            self.cached, self.kept = None, got  # the runtime will be restarted
            self.file.write(got)
        return response

    def heartbeat(self, *, held: LiteralString | None = None) -> ApiResponse:
        """Send the runtime's heartbeat with its cached token, or the one in the file."""
        self.cached = self._token()
        headers = {} if self.cached is None else {"Authorization": f"Bearer {self.cached}"}
        body: dict[str, object] = {"workspace_id": self.history.workspace_id, "active_tasks": 0}
        return self.history.call(HEARTBEAT, headers, body, by=self.name, held=held)

    def restart_runtime(self) -> ApiResponse:
        self.cached = None
        return self.register("token", lost=False)

    def _token(self) -> str | None:
        """The token in the file, of any generation: only the script checks the generation file."""
        file = self.configs / ".auth_token"
        return self.cached or (file.read_text() if file.exists() else None)

    def wipe(self) -> None:
        for file in self.configs.iterdir():
            file.unlink()

    def copy_files_of(self, other: "Box") -> None:
        """Copy the files, as a volume does that is reused or shared."""
        self.wipe()
        shutil.copytree(other.configs, self.configs, dirs_exist_ok=True)


class TwoBoxes(RuleBasedStateMachine):
    """A box and its successor, both running correctly; only the current box's recovery is checked."""

    checking: ClassVar[bool] = False

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.history = History(stage, checking=self.checking)
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
            self.current.heartbeat()
        self.boxes.append(Box(self.history))

    @rule(box=BOX, presenting=PRESENTING)
    def a_box_registers(self, box: str, presenting: str) -> None:
        self.box(box).register(presenting, lost=False)

    @rule(box=BOX)
    def a_runtime_heartbeats(self, box: str) -> None:
        self.box(box).heartbeat()

    @rule()
    def the_current_box_gets_in(self) -> None:
        self.current.look()
        response = self.current.heartbeat()
        assert response.status == 200, f"I5: a heartbeat of the current box got {response}"

    @override
    def teardown(self) -> None:
        if sys.exception() is None:  # otherwise the history ended early, by a failure or by shrinking
            self.the_current_box_gets_in()


class Histories(TwoBoxes):
    """Adds faults, and checks every response and every state of the record."""

    checking = True

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.crashes = 0

    @rule()
    def the_old_box_is_told_that_it_is_over(self) -> None:
        for what_it_does in (self.boxes[-2].look, self.boxes[-2].start):
            with pytest.raises(box_base.ShutDown):
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

    @rule(path=st.sampled_from([REGISTER, HEARTBEAT, "state"]), presenting=FOREIGN)
    def an_unknown_caller_calls(self, path: str, presenting: str) -> None:
        workspace_id = self.history.workspace_id
        bearer = {
            "nothing": None,
            "a random token": "x" * 43,
            "a forged secret": f"ob1.{KEYS.current}.{len(self.boxes)}.{'x' * 43}",
            "a neighbour's token": self.history.stage.neighbours_token,
        }[presenting]
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        if path == "state":
            self.history.call(f"/workspaces/{workspace_id}/state", headers, None, by="an unknown caller")
        else:
            body: dict[str, object] = {"id": workspace_id, "workspace_id": workspace_id}
            self.history.call(path, headers, body, by="an unknown caller")

    @precondition(lambda self: self.crashes < MOST_CRASHES)
    @rule(during=st.sampled_from(sorted(HELD)))
    def the_api_is_killed(self, during: str) -> None:
        self.crashes += 1
        if during == "a heartbeat":
            self.current.heartbeat(held=HELD[during])
        else:
            self.current.register("both", lost=True, held=HELD[during])

    @invariant()
    def the_record_is_sound(self) -> None:
        if self.boxes:
            self.history.check()

    @override
    def teardown(self) -> None:
        super().teardown()
        if (
            sys.exception() is None and not self.history.stage.incident_rule
        ):  # with the incident's rule these checks would fail without any step
            self.history.check()
            self.boxes[-2].copy_files_of(self.current)
            self.boxes[-2].register("both", lost=True)
            self.the_old_box_is_told_that_it_is_over()


@pytest.fixture(scope="module")
def incident(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The API with the incident's rule."""
    with stage(database, tmp_path_factory.mktemp("incident"), incident_rule=True) as running:
        yield running


@pytest.mark.storm
def test_after_any_history_the_current_box_recovers_and_no_other(database: str, tmp_path: Path) -> None:
    with stage(database, tmp_path) as running:
        _run(lambda: Histories(running), RUN)


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
    # Hypothesis accepts any factory; its annotation allows the class only.
    run_state_machine_as_test(cast("type[TwoBoxes]", machine), settings=how)
