"""The translation of errors: retryable or not, and the hint."""

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from temporalio.exceptions import ApplicationError

from activities.aws import errors as aws_errors
from activities.shared import application_errors
from store.db.pool import StoreUnavailable
from workflows.workspace.contract import REFUSED


def refusal(code: str, *, status: int = 400, message: str = "words of AWS") -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "HTTPHeaders": {},
                "RequestId": "r",
                "HostId": "h",
                "RetryAttempts": 0,
            },
        },
        "RunInstances",
    )


def translated(error: Exception) -> ApplicationError:
    with pytest.raises(ApplicationError) as raised, application_errors.translated():
        raise error
    return raised.value


@pytest.mark.parametrize(
    ("code", "status"),
    [("RequestLimitExceeded", 503), ("Throttling", 400), ("PriorRequestNotComplete", 400)],
)
def test_throttling_is_retried_after_a_jittered_delay(code: str, status: int) -> None:
    errors = [translated(refusal(code, status=status)) for _ in range(10)]
    assert all(not error.non_retryable and error.type == code for error in errors)
    delays = [error.next_retry_delay for error in errors]
    assert all(delay is not None and 1 < delay.total_seconds() < 10 for delay in delays)
    assert len(set(delays)) > 1


@pytest.mark.parametrize(
    "code",
    [
        "UnauthorizedOperation",
        "AccessDenied",
        "InvalidAMIID.NotFound",
        "InvalidAMIID.Unavailable",
        "InvalidGroup.NotFound",
        "InvalidSubnetID.NotFound",
        "InvalidVolume.NotFound",
        "VcpuLimitExceeded",
        "InstanceLimitExceeded",
        "NoSuchHostedZone",
        "OptInRequired",
        "NeverHeardOf",
    ],
)
def test_a_rejection_whose_cause_may_go_away_is_left_to_the_workflows_retries(code: str) -> None:
    error = translated(refusal(code))
    assert error.non_retryable, "retries by Temporal would hide the hint"
    assert error.type == code
    assert error.message == "RunInstances: words of AWS"
    hint, kind = error.details
    assert kind == REFUSED
    assert "retried automatically" in hint


def test_an_instance_profile_that_ec2_does_not_know_yet_is_no_invalid_request() -> None:
    words = "Value (box) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
    hint, kind = translated(refusal("InvalidParameterValue", message=words)).details
    assert kind == REFUSED
    assert "retried automatically" in hint


@pytest.mark.parametrize(
    "code",
    [
        "InvalidAMIID.Malformed",
        "InvalidParameterCombination",
        "InvalidParameterValue",
        "MalformedQueryString",
        "MissingParameter",
        "IdempotentParameterMismatch",
    ],
)
def test_a_permanent_error_is_final_and_has_a_hint(code: str) -> None:
    error = translated(refusal(code))
    assert error.non_retryable
    assert error.type == code
    assert error.message == "RunInstances: words of AWS"
    (hint,) = error.details
    assert isinstance(hint, str)
    assert len(hint) > 20


@pytest.mark.parametrize(
    ("code", "status"), [("InternalError", 500), ("Unavailable", 503), ("NeverHeardOf", 502), ("", 500)]
)
def test_failures_inside_aws_are_retried(code: str, status: int) -> None:
    error = translated(refusal(code, status=status))
    assert not error.non_retryable
    assert error.type == (code or "unknown")


def test_termination_protection_is_left_to_the_workflows_retries_and_has_a_hint() -> None:
    hint, kind = translated(refusal("OperationNotPermitted")).details
    assert kind == REFUSED
    assert "protect" in hint


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="http://ec2.test"),
        ConnectTimeoutError(endpoint_url="http://ec2.test"),
        ReadTimeoutError(endpoint_url="http://ec2.test"),
    ],
)
def test_an_unreachable_aws_is_retried(error: Exception) -> None:
    found = translated(error)
    assert found.type == application_errors.AWS_UNREACHABLE
    assert not found.non_retryable


def test_missing_credentials_are_reported_and_retried_slowly() -> None:
    found = translated(NoCredentialsError())
    assert found.type == "aws_not_configured"
    assert found.next_retry_delay is not None
    assert found.next_retry_delay.total_seconds() >= 30


def test_an_unavailable_database_is_retried() -> None:
    found = translated(StoreUnavailable("PoolTimeout"))
    assert found.type == application_errors.DATABASE_UNAVAILABLE
    assert not found.non_retryable
    assert found.details


def test_no_error_carries_what_botocore_quotes_of_the_request() -> None:
    found = translated(ParamValidationError(report="Invalid type for parameter UserData, value: s3cret"))
    assert "s3cret" not in f"{found.message}{found.details}"
    assert found.__cause__ is None
    assert found.non_retryable


def test_a_long_message_is_cut() -> None:
    assert len(translated(refusal("AccessDenied", message="x" * 5000)).message) <= 500


@pytest.mark.parametrize(
    ("code", "status", "effect"),
    [
        ("RequestLimitExceeded", 503, False),
        ("InsufficientInstanceCapacity", 500, False),
        ("VcpuLimitExceeded", 400, False),
        ("UnauthorizedOperation", 403, False),
        ("InvalidAMIID.NotFound", 400, False),
        ("NeverHeardOf", 400, False),
        ("InternalError", 500, True),
        ("NeverHeardOf", 503, True),
        ("RequestTimeout", 408, True),
        ("IdempotentParameterMismatch", 400, True),
    ],
)
def test_only_a_certain_rejection_had_no_effect(code: str, status: int, effect: bool) -> None:
    assert aws_errors.had_no_effect(refusal(code, status=status)) is not effect


@pytest.mark.parametrize(
    "code",
    [
        "InsufficientInstanceCapacity",
        "InsufficientFreeAddressesInSubnet",
        "Unsupported",
        "UnfulfillableCapacity",
    ],
)
def test_capacity_is_neither_throttling_nor_quota(code: str) -> None:
    assert aws_errors.is_capacity(code)
    assert not aws_errors.is_throttled(code)
    assert not aws_errors.is_quota(code)


def test_being_superseded_is_final_and_benign() -> None:
    error = application_errors.superseded(3, by="generation 4")
    assert error.type == "generation_superseded"
    assert error.non_retryable
    assert error.category.name == "BENIGN"
