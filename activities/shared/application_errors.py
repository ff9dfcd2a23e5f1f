"""What becomes of an error: tried again, given up with a hint, or a result that the lifecycle decides on.

It knows codes, not steps. The error's type is the code on the record, its first detail the hint for a human.
No message holds more than the other side's own words; user data and credentials are in none of them.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.aws import errors
from activities.aws.errors import MAX_MESSAGE_CHARS
from store.db.pool import StoreUnavailable
from workflows.workspace.contract import SUPERSEDED

AWS_UNREACHABLE = "aws_unreachable"
DATABASE_UNAVAILABLE = "database_unavailable"

THROTTLE_DELAY = timedelta(seconds=3)
"""EC2 refills RunInstances at about 2/s: a few seconds are enough for a burst of the fleet to pass."""

PROTECTED_DELAY = timedelta(seconds=60)
"""A human has to act; within a minute of it the termination goes on."""


def from_aws(error: ClientError) -> ApplicationError:
    """The error as the lifecycle and the record read it."""
    code = errors.code_of(error)
    message = f"{error.operation_name}: {errors.message_of(error) or code}"
    hint = errors.hint_of(code)
    if errors.is_throttled(code):
        jittered = THROTTLE_DELAY * random.uniform(0.7, 1.3)  # noqa: S311 - spreads retries, guards nothing
        return retryable(code, message, hint=hint, after=jittered)
    if errors.is_protected(code):
        return retryable(code, message, hint=hint, after=PROTECTED_DELAY)
    if errors.is_transient(error):
        return retryable(code, message, hint=hint)
    return non_retryable(code, message, hint=hint)


def non_retryable(code: str, message: str, *, hint: str) -> ApplicationError:
    """An error that only a human can mend."""
    return ApplicationError(message[:MAX_MESSAGE_CHARS], hint, type=code, non_retryable=True)


def retryable(code: str, message: str, *, hint: str, after: timedelta | None = None) -> ApplicationError:
    """An error that passes by itself."""
    return ApplicationError(message[:MAX_MESSAGE_CHARS], hint, type=code, next_retry_delay=after)


def superseded(generation: int, *, by: str = "") -> ApplicationError:
    """The request names a generation, or a launch, that is not the current one; expected, so no alarm."""
    return ApplicationError(
        f"generation {generation} is not the current one" + (f": {by}" if by else ""),
        "A newer request took over; nothing is to be done.",
        type=SUPERSEDED,
        non_retryable=True,
        category=ApplicationErrorCategory.BENIGN,
    )


def unknown_workspace(workspace_id: str) -> ApplicationError:
    """There is no record to work on."""
    return non_retryable(
        "workspace_unknown",
        f"workspace {workspace_id} has no record",
        hint="Start its workflow, which enrolls it.",
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn the errors of boto3 and the store into errors that say what follows from them.

    The causes are cut off: their texts may quote parameters, and would stand in the workflow's history.
    """
    try:
        yield
    except ClientError as error:
        raise from_aws(error) from None
    except ParamValidationError:
        raise non_retryable(
            "invalid_parameter",
            "the request does not fit AWS's model of it",
            hint="A member of the spec has a form that AWS does not know: compare it with the API reference.",
        ) from None
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, NoRegionError) as error:
        raise retryable(
            "aws_not_configured",
            f"{type(error).__name__}: AWS cannot be called",
            hint="Give the worker AWS credentials and a region (AWS_REGION, a profile, or an instance role).",
            after=timedelta(seconds=30),
        ) from None
    except (BotoCoreError, ResponseParserError) as error:
        raise retryable(
            AWS_UNREACHABLE,
            f"{type(error).__name__}: no usable answer from AWS",
            hint="See whether the worker reaches the AWS endpoint; it is tried again by itself.",
        ) from None
    except StoreUnavailable as error:
        raise retryable(
            DATABASE_UNAVAILABLE,
            f"PostgreSQL cannot be asked now ({error})",
            hint="See whether PostgreSQL runs and has connections left; it is tried again by itself.",
        ) from None
