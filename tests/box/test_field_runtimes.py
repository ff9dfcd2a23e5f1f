"""Unmodified field runtimes, with and without the box script, on the real API and database."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from register_api.auth.rules import ABANDONED_AFTER
from register_api.http.config import BootstrapPolicy
from store.registration.credentials import token_prefix
from tests.box.field import Field, Wire, Workspace
from tests.box.field_runtimes import HEARTBEAT, REGISTER, Kind
from tests.box.machine import SECONDS, ended, wait_until
from tests.database import migrated_database, server
from tests.register_api.serving import PATIENT, ApiProcess, api_process

ELSEWHERE = "127.78.0.1"

newer = pytest.mark.parametrize("kind", [Kind.RETRY_5XX, Kind.CACHED])
by_address = pytest.mark.parametrize("policy", [BootstrapPolicy.ADDRESS])


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("postgres")) as running:
        yield migrated_database(running, "field_runtimes")


@pytest.fixture(scope="module")
def rows(database: str) -> Iterator[psycopg.Connection[DictRow]]:
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as conn:
        yield conn


@pytest.fixture(scope="module")
def apis(database: str) -> Iterator[Callable[[BootstrapPolicy], ApiProcess]]:
    """One process for each policy."""
    running: dict[BootstrapPolicy, ApiProcess] = {}
    with ExitStack() as stack:

        def api(policy: BootstrapPolicy) -> ApiProcess:
            if policy not in running:
                running[policy] = stack.enter_context(api_process(database, policy=policy, waits=PATIENT))
            return running[policy]

        yield api


@pytest.fixture
def policy() -> BootstrapPolicy:
    return BootstrapPolicy.SECRET


@pytest.fixture
def api(apis: Callable[[BootstrapPolicy], ApiProcess], policy: BootstrapPolicy) -> ApiProcess:
    process = apis(policy)
    if not process.running:  # a failed test had killed it
        process.kill()
        process.start()
    # It listens before it has a database connection, and a runtime of the kind `once` has one attempt only.
    wait_until(lambda: _ready(process), "an API with a connection to the database")
    return process


def _ready(api: ApiProcess) -> bool:
    try:
        return httpx2.get(f"{api.url}/readyz", timeout=SECONDS, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture(params=list(Kind), ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


@pytest.fixture
def workspace(rows: psycopg.Connection[DictRow]) -> Workspace:
    return Workspace(rows)


@pytest.fixture
def machine(tmp_path: Path, workspace: Workspace, kind: Kind, api: ApiProcess) -> Iterator[Field]:
    machine = Field(tmp_path, workspace, kind, url=api.url)
    yield machine
    machine.shut_down()


@pytest.fixture
def wire(api: ApiProcess, machine: Field) -> Iterator[Wire]:
    with Wire(api.port) as running:
        machine.url = running.url
        yield running
        machine.shut_down()


def test_it_comes_online_and_sends_its_url_and_card(machine: Field, workspace: Workspace) -> None:
    machine.boot()
    machine.online()
    [row] = workspace.rows(
        "SELECT url, agent_card FROM generations WHERE workspace_id = %s AND superseded_at IS NULL"
    )
    assert row["url"] == row["agent_card"]["url"] == f"http://{workspace.address}:8000"
    assert workspace.tokens() == ["active"]
    assert machine.statuses(REGISTER) == [200]
    assert set(machine.statuses(HEARTBEAT)) == {200}


@pytest.mark.parametrize("origin", ["an older generation", "another workspace", "a crash"])
def test_a_stale_file_at_boot_costs_nothing_and_is_never_presented(
    machine: Field, wire: Wire, rows: psycopg.Connection[DictRow], origin: str
) -> None:
    stale = "half-written"
    if origin == "another workspace":
        stale = Workspace(rows).give("active", generation=2)
    machine.put(stale)
    if origin == "an older generation":
        machine.put(stale := machine.workspace.give("revoked", generation=1))
        (machine.configs / ".auth_token.generation").write_text(f"{machine.workspace.id} 1\n")
    machine.boot()
    assert machine.online() != stale
    assert stale not in wire.bearers
    assert machine.workspace.tokens() == ["active"]


def test_an_api_that_is_down_at_boot_and_one_that_dies_later_cost_no_box(
    machine: Field, api: ApiProcess
) -> None:
    api.kill()
    machine.put("stale")
    machine.boot()
    wait_until(lambda: machine.logged("register answered 0"), "a failed call")
    assert machine.token is None
    api.start()
    token = machine.online()
    api.kill()
    wait_until(lambda: machine.calls()[-1]["status"] is None, "a failed heartbeat")
    api.start()
    assert machine.online() == token
    assert len(machine.runtimes()) == 1


@pytest.mark.parametrize("policy", [BootstrapPolicy.BOTH])
def test_a_box_that_is_refused_comes_online_once_the_record_is_right(
    machine: Field, workspace: Workspace
) -> None:
    workspace.locate(ELSEWHERE)
    machine.boot()
    wait_until(lambda: machine.logged("register answered 401 token_invalid"), "a refusal")
    assert machine.calls() == []
    workspace.locate(workspace.address)
    machine.online()


def test_a_revoked_token_is_replaced(machine: Field, workspace: Workspace) -> None:
    machine.boot()
    token = machine.online()
    workspace.revoke()
    assert machine.online() != token
    assert workspace.tokens() == ["revoked", "active"]
    assert len(machine.runtimes()) == 2  # a runtime that caches its token would never read the new one


def test_a_deleted_token_file_comes_back(machine: Field, workspace: Workspace) -> None:
    machine.boot()
    token = machine.online()
    (machine.configs / ".auth_token").unlink()
    wait_until(lambda: machine.token == token, "the token in its file")
    assert machine.online() == token
    assert workspace.tokens() == ["active"]


def test_an_overwritten_token_is_restored(machine: Field, workspace: Workspace) -> None:
    machine.boot()
    token = machine.online()
    machine.put("x" * 43)
    wait_until(lambda: len(machine.runtimes()) == 2, "a second runtime")
    assert machine.online() == token
    assert workspace.tokens() == ["active"]


def test_a_box_that_lost_file_and_memory_gets_a_new_token_once_the_old_one_was_quiet(
    machine: Field, workspace: Workspace
) -> None:
    machine.boot()
    token = machine.online()
    [pid] = machine.running()
    machine.kill()
    wait_until(lambda: ended(pid), "the end of the runtime of a killed script")
    (machine.configs / ".auth_token").unlink()
    machine.boot()
    wait_until(lambda: machine.logged("register answered 503 token_in_use"), "a refusal")
    workspace.age(ABANDONED_AFTER)
    assert machine.online() != token
    assert workspace.tokens() == ["revoked", "active"]


def test_a_lost_answer_ends_with_one_and_the_same_token(machine: Field, wire: Wire) -> None:
    machine.boot()
    token = machine.online()
    assert wire.lost == {"status": "registered", "auth_token": token}
    assert machine.workspace.tokens() == ["active"]


def test_a_superseded_box_stops_its_runtime_powers_off_and_never_holds_a_live_token_again(
    machine: Field, workspace: Workspace
) -> None:
    machine.boot()
    token = machine.online()
    workspace.open()
    assert machine.process.wait(SECONDS) == 0
    assert machine.off.exists()
    assert machine.running() == []
    machine.off.unlink()
    machine.boot()  # the old instance is started again
    assert machine.process.wait(SECONDS) == 0
    assert machine.off.exists()
    assert len(machine.runtimes()) == 1
    assert {call["token"] for call in machine.calls()} == {token_prefix(token)}
    assert workspace.rows("SELECT 1 FROM tokens WHERE workspace_id = %s AND state <> 'revoked'") == []


@by_address
@pytest.mark.parametrize("stale", [False, True], ids=["with nothing", "with a stale file"])
def test_without_the_script_a_box_comes_online_by_its_address(machine: Field, stale: bool) -> None:
    if stale:
        machine.put(machine.workspace.give("revoked", generation=1))
    machine.boot_bare()
    machine.online()
    assert machine.statuses(REGISTER) == [200]
    assert machine.workspace.tokens() == ["active"]
    assert (machine.configs / ".auth_token").stat().st_mode & 0o777 == 0o600


@by_address
@newer
@pytest.mark.parametrize("stale", [False, True], ids=["with nothing", "with a stale file"])
def test_without_the_script_one_that_retries_comes_online_once_its_launch_is_recorded(
    machine: Field, workspace: Workspace, stale: bool
) -> None:
    workspace.locate(None)
    if stale:
        machine.put(workspace.give("revoked", generation=1))
    machine.delay_scale = 0.5  # its attempts end after 45 s, and the launch is recorded before
    machine.boot_bare()
    wait_until(lambda: machine.statuses(REGISTER), "an answer")
    workspace.locate(workspace.address)
    machine.online()
    *before, last = machine.statuses(REGISTER)
    assert (set(before), last) == ({503}, 200)


@by_address
@pytest.mark.parametrize("kind", [Kind.ONCE])
def test_without_the_script_one_that_does_not_retry_is_reported_if_it_came_before_its_launch_was_recorded(
    machine: Field, workspace: Workspace
) -> None:
    workspace.locate(None)
    machine.boot_bare()
    wait_until(lambda: 503 in machine.statuses(HEARTBEAT), "an unauthenticated heartbeat")
    workspace.locate(workspace.address)
    wait_until(workspace.events, "an event")
    assert workspace.events() == ["credential_lost"]
    assert machine.statuses(REGISTER) == [503]


@by_address
@newer
def test_without_the_script_one_that_retries_gets_the_token_of_a_lost_answer(
    machine: Field, wire: Wire
) -> None:
    machine.boot_bare()
    token = machine.online()
    assert wire.lost == {"status": "registered", "auth_token": token}
    assert machine.statuses(REGISTER) == [None, 200]


@by_address
def test_without_the_script_a_box_at_another_address_is_refused(machine: Field, workspace: Workspace) -> None:
    workspace.locate(ELSEWHERE)
    machine.boot_bare()
    wait_until(lambda: len(machine.statuses(HEARTBEAT)) > 4, "heartbeats")
    assert machine.statuses(REGISTER) == [401]
    assert set(machine.statuses(HEARTBEAT)) == {401}
    assert (machine.token, workspace.tokens(), workspace.events()) == (None, [], [])


def test_without_script_and_address_policy_a_box_stays_out_and_is_reported_until_it_is_given_a_token(
    machine: Field, workspace: Workspace
) -> None:
    machine.boot_bare()
    wait_until(lambda: len(machine.statuses(HEARTBEAT)) > 4, "heartbeats")
    assert machine.statuses(REGISTER) == [401]
    assert set(machine.statuses(HEARTBEAT)) == {401}
    assert (workspace.tokens(), workspace.events()) == ([], ["credential_lost"])
    [row] = workspace.rows("SELECT credential_lost_at FROM heartbeats WHERE workspace_id = %s")
    assert row["credential_lost_at"] is not None
    machine.put(workspace.give("active", generation=2))
    machine.online()
    assert workspace.events() == ["credential_lost", "alive"]
