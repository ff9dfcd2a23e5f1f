"""AWS error codes, as sets behind predicates, with hints for operators. Pure."""

from botocore.exceptions import ClientError

MAX_MESSAGE_CHARS = 500
"""Cuts encoded authorization messages, which are longer and not readable."""

_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "ConcurrentSnapshotLimitExceeded",
        "EC2ThrottledException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "SnapshotCreationPerVolumeRateExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
"""The call was rejected by a rate limit. It had no effect and says nothing about capacity."""

_CAPACITY = frozenset(
    {
        "InsufficientCapacity",
        "InsufficientFreeAddressesInSubnet",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "InsufficientReservedInstanceCapacity",
        "UnfulfillableCapacity",
        "Unsupported",
    }
)
"""This instance type has no capacity in this zone. EC2 sends some of these codes with status 5xx."""

_QUOTA = frozenset(
    {
        "AddressLimitExceeded",
        "InstanceLimitExceeded",
        "MaxIOPSLimitExceeded",
        "MaxStorageLimitExceeded",
        "NetworkInterfaceLimitExceeded",
        "PendingSnapshotLimitExceeded",
        "SnapshotLimitExceeded",
        "VcpuLimitExceeded",
        "VolumeLimitExceeded",
    }
)

_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "Blocked",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "PendingVerification",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)

_TRANSIENT = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncorrectInstanceState",
        "IncorrectState",
        "InternalError",
        "InternalFailure",
        "InternalServiceError",
        "RequestExpired",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "Unavailable",
        "VolumeInUse",
    }
)
"""Temporary: failures inside AWS, state transitions in progress, credentials being renewed."""

_CONFLICT = frozenset({"IdempotentParameterMismatch", "InvalidChangeBatch"})

_FINAL = frozenset(
    {
        "IdempotentParameterMismatch",
        "InvalidBlockDeviceMapping",
        "InvalidInput",
        "InvalidRequest",
        "InvalidVolume.ZoneMismatch",
        "MissingAction",
        "MissingInput",
        "MissingParameter",
    }
)
_FINAL_PREFIXES = ("InvalidParameter", "Malformed", "Unknown", "Unsupported", "Validation")
"""The request itself is at fault: it never passes, whatever changes in the account."""

_UNKNOWN_PROFILE = "Invalid IAM Instance Profile"
"""EC2 says this in `InvalidParameterValue`, also for some seconds after IAM created the profile."""

_PROTECTED = "OperationNotPermitted"
_ALREADY_TERMINATED = "IdempotentInstanceTerminated"

_RETRIED_UNCHANGED = (
    "The call is retried automatically. A correction needs another generation: request a recreate with force."
)
_HINTS = {
    "IdempotentParameterMismatch": (
        "An earlier RunInstances call used the same ClientToken with other parameters. Find its instance by "
        "the onebox tags, then request a recreate, which launches under a new token."
    ),
    "InvalidAMIID.NotFound": (
        "The image does not exist in this region: share it with this account, or correct BOX_IMAGE_ID or"
        f" image_id in the spec. {_RETRIED_UNCHANGED}"
    ),
    "InvalidAMIID.Malformed": "The image ID is malformed: correct BOX_IMAGE_ID or image_id in the spec.",
    "InvalidSubnetID.NotFound": (
        "The subnet does not exist in this region: correct BOX_SUBNET_IDS or subnet_ids in the spec."
        f" {_RETRIED_UNCHANGED}"
    ),
    "InvalidGroup.NotFound": (
        "The security group does not exist in this VPC: correct BOX_SECURITY_GROUP_IDS or the spec."
        f" {_RETRIED_UNCHANGED}"
    ),
    "InvalidVolume.ZoneMismatch": (
        "The box is in another zone than its data volume: request a recreate, which launches in that zone."
    ),
    "NoSuchHostedZone": "The hosted zone does not exist in this account: correct DNS_ZONE_ID."
    " The call is retried automatically.",
    "OptInRequired": (
        "The account has not subscribed to this image: accept its terms in AWS Marketplace."
        " The call is retried automatically."
    ),
    "PendingVerification": (
        "AWS is still verifying the account for this region: wait for its email. The call is retried"
        " automatically."
    ),
    _PROTECTED: "Termination protection is on: remove it. The termination is then retried automatically.",
}


def code_of(error: ClientError) -> str:
    """The AWS error code."""
    return error.response.get("Error", {}).get("Code", "") or "unknown"


def status_of(error: ClientError) -> int:
    """The HTTP status of the error; 0 if there was none."""
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def message_of(error: ClientError) -> str:
    """The AWS error message, truncated."""
    return error.response.get("Error", {}).get("Message", "")[:MAX_MESSAGE_CHARS]


def is_throttled(code: str) -> bool:
    """Whether a rate limit rejected the call."""
    return code in _THROTTLED


def is_capacity(code: str) -> bool:
    """Whether this instance type has no capacity in this zone. Other offerings may have."""
    return code in _CAPACITY


def is_quota(code: str) -> bool:
    """Whether a quota of the account is reached. Other zones do not help."""
    return code in _QUOTA


def is_denied(code: str) -> bool:
    """Whether the control plane lacks a permission or has invalid credentials."""
    return code in _DENIED


def is_not_found(code: str) -> bool:
    """Whether AWS does not list the resource. No proof that it does not exist."""
    return code.endswith((".NotFound", "NotFoundException")) or code.startswith("NoSuch")


def is_conflict(code: str) -> bool:
    """Whether a concurrent write or an earlier call with the same token conflicts."""
    return code in _CONFLICT


def is_protected(code: str) -> bool:
    """Whether the instance has termination protection."""
    return code == _PROTECTED


def is_already_terminated(code: str) -> bool:
    """Whether the instance of this ClientToken is terminated: the launch needs another attempt."""
    return code == _ALREADY_TERMINATED


def is_final(code: str, message: str) -> bool:
    """Whether the request itself is at fault, so that it never passes."""
    if is_not_found(code) or _UNKNOWN_PROFILE in message:
        return False
    return code in _FINAL or code.startswith(_FINAL_PREFIXES) or code.endswith(".Malformed")


def had_no_effect(error: ClientError) -> bool:
    """Whether AWS certainly rejected the call, so that it had no effect."""
    code = code_of(error)
    if is_throttled(code) or is_capacity(code) or is_quota(code):
        return True
    if is_conflict(code) or code in _TRANSIENT:
        return False
    return 400 <= status_of(error) < 500


def is_transient(error: ClientError) -> bool:
    """Whether a retry of the call may succeed."""
    code = code_of(error)
    return code in _TRANSIENT or is_capacity(code) or status_of(error) >= 500


def hint_of(code: str, message: str) -> str:
    """What an operator can do about the error."""
    return _HINTS.get(code) or _general_hint(code, message)


def _general_hint(code: str, message: str) -> str:
    if is_throttled(code):
        return "AWS throttles these calls. The call is retried automatically."
    if is_denied(code):
        return "Give the control plane's role this permission. The call is retried automatically."
    if is_quota(code):
        return (
            "The quota is reached: raise it in Service Quotas or delete resources. The call is retried"
            " automatically."
        )
    if is_not_found(code) or _UNKNOWN_PROFILE in message:
        return (
            "The resource does not exist in this account and region: create it, or correct the spec or the"
            f" settings. {_RETRIED_UNCHANGED}"
        )
    if is_final(code, message):
        return "AWS rejects this parameter: correct the spec or the settings, then request a recreate."
    return (
        f"Look up {code} in the AWS list of error codes for its cause and solution. The call is retried"
        " automatically."
    )
