"""Application errors: retryable, refused or final. The type is a code, the first detail a hint for operators.

Messages quote the error text of AWS or PostgreSQL. They never contain user data or credentials.
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
from workflows.workspace.contract import REFUSED, SUPERSEDED

AWS_UNREACHABLE = "aws_unreachable"
DATABASE_UNAVAILABLE = "database_unavailable"

THROTTLE_DELAY = timedelta(seconds=3)
"""EC2 refills the RunInstances bucket at about 2/s: a burst passes within a few seconds."""


def from_aws(error: ClientError) -> ApplicationError:
    """The application error for an AWS error: its code, its message, and a hint."""
    code = errors.code_of(error)
    words = errors.message_of(error)
    message = f"{error.operation_name}: {words or code}"
    hint = errors.hint_of(code, words)
    if errors.is_throttled(code):
        jittered = THROTTLE_DELAY * random.uniform(0.7, 1.3)  # noqa: S311 - spreads retries, guards nothing
        return retryable(code, message, hint=hint, after=jittered)
    if errors.is_transient(error):
        return retryable(code, message, hint=hint)
    if errors.is_final(code, words):
        return non_retryable(code, message, hint=hint)
    return refused(code, message, hint=hint)


def non_retryable(code: str, message: str, *, hint: str) -> ApplicationError:
    """An error that needs an operator: Temporal does not retry it."""
    return ApplicationError(message[:MAX_MESSAGE_CHARS], hint, type=code, non_retryable=True)


def retryable(code: str, message: str, *, hint: str, after: timedelta | None = None) -> ApplicationError:
    """A temporary error: Temporal retries it, after `after` if that is given."""
    return ApplicationError(message[:MAX_MESSAGE_CHARS], hint, type=code, next_retry_delay=after)


def refused(code: str, message: str, *, hint: str) -> ApplicationError:
    """A rejection without effect, which passes once its cause is gone. The workflow shows and retries it.

    Temporal does not retry it: until its last attempt, the workflow would know nothing of the cause.
    """
    return ApplicationError(message[:MAX_MESSAGE_CHARS], hint, REFUSED, type=code, non_retryable=True)


def superseded(generation: int, *, by: str = "") -> ApplicationError:
    """The request names a generation or launch that is no longer current. Expected, so it raises no alert."""
    return ApplicationError(
        f"generation {generation} is not the current one" + (f": {by}" if by else ""),
        "A newer request superseded this one. No action is needed.",
        type=SUPERSEDED,
        non_retryable=True,
        category=ApplicationErrorCategory.BENIGN,
    )


def unknown_workspace(workspace_id: str) -> ApplicationError:
    """The workspace has no record in PostgreSQL."""
    return non_retryable(
        "workspace_unknown",
        f"workspace {workspace_id} has no record",
        hint="Start the workspace's workflow: it creates the record.",
    )


@contextmanager
def translated() -> Iterator[None]:
    """Translate errors of boto3 and the store to `ApplicationError`.

    Causes are dropped: their texts may quote parameters, and Temporal would store them in the history.
    """
    try:
        yield
    except ClientError as error:
        raise from_aws(error) from None
    except ParamValidationError:
        raise non_retryable(
            "invalid_parameter",
            "boto3 rejected the parameters of the AWS call",
            hint="A field of the spec has an invalid type or format: compare it with the AWS API reference.",
        ) from None
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, NoRegionError) as error:
        raise retryable(
            "aws_not_configured",
            f"{type(error).__name__}: the worker has no complete AWS configuration",
            hint="Give the worker AWS credentials and a region (AWS_REGION, a profile, or an instance role).",
            after=timedelta(seconds=30),
        ) from None
    except (BotoCoreError, ResponseParserError) as error:
        raise retryable(
            AWS_UNREACHABLE,
            f"{type(error).__name__}: no valid response from AWS",
            hint="Check that the worker reaches the AWS endpoint. The call is retried automatically.",
        ) from None
    except StoreUnavailable as error:
        raise retryable(
            DATABASE_UNAVAILABLE,
            f"PostgreSQL is unavailable ({error})",
            hint="Check that PostgreSQL runs and has free connections. The call is retried automatically.",
        ) from None
