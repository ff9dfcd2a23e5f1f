"""AWS's error codes, as sets behind predicates, and what a human can do about them. Pure.

What follows from a code for a step is said in `failures` and decided by the lifecycle.
"""

from botocore.exceptions import ClientError

MAX_MESSAGE_CHARS = 500
"""An encoded authorization message is longer, and says nothing to a reader."""

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
"""They say nothing about capacity, and nothing was done."""

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
"""Definitive for this zone and type, although EC2 sends some of them as 5xx."""

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
"""Pass by themselves: AWS's own trouble, states on their way to others, and credentials that are being
renewed."""

_CONFLICT = frozenset({"IdempotentParameterMismatch", "InvalidChangeBatch"})
_PROTECTED = "OperationNotPermitted"
_ALREADY_TERMINATED = "IdempotentInstanceTerminated"

_HINTS = {
    "IdempotentParameterMismatch": (
        "This launch was sent before with other parameters: look for its instance by the onebox tags, "
        "then request a recreate, which launches under a token of its own."
    ),
    "InvalidAMIID.NotFound": (
        "The image does not exist in this region: correct BOX_IMAGE_ID or the spec's image_id."
    ),
    "InvalidAMIID.Malformed": "This is no image ID: correct BOX_IMAGE_ID or the spec's image_id.",
    "InvalidSubnetID.NotFound": (
        "The subnet does not exist in this region: correct BOX_SUBNET_IDS or the spec's subnet_ids."
    ),
    "InvalidGroup.NotFound": (
        "The security group does not exist in this VPC: correct BOX_SECURITY_GROUP_IDS or the spec."
    ),
    "InvalidVolume.ZoneMismatch": (
        "The box was launched in another zone than its data volume: request a recreate, which launches there."
    ),
    "NoSuchHostedZone": "The hosted zone does not exist in this account: correct DNS_ZONE_ID.",
    "OptInRequired": "The account has not subscribed to this image: accept its terms in AWS Marketplace.",
    "PendingVerification": "AWS is still verifying the account for this region; it writes when it has.",
    _PROTECTED: (
        "The instance is protected against termination: remove the protection, and it goes on by itself."
    ),
}


def code_of(error: ClientError) -> str:
    """AWS's own code for the error."""
    return error.response.get("Error", {}).get("Code", "") or "unknown"


def status_of(error: ClientError) -> int:
    """The HTTP status of the error; 0 if there was none."""
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def message_of(error: ClientError) -> str:
    """AWS's own words, shortened."""
    return error.response.get("Error", {}).get("Message", "")[:MAX_MESSAGE_CHARS]


def is_throttled(code: str) -> bool:
    """Whether the call came too soon, and did nothing."""
    return code in _THROTTLED


def is_capacity(code: str) -> bool:
    """Whether this zone and type have no room: the next ones may."""
    return code in _CAPACITY


def is_quota(code: str) -> bool:
    """Whether the account's own limit is reached: no other zone helps."""
    return code in _QUOTA


def is_denied(code: str) -> bool:
    """Whether the control plane lacks a permission, or is not who it says."""
    return code in _DENIED


def is_not_found(code: str) -> bool:
    """Whether what the call names is not there; no proof that it is gone."""
    return code.endswith((".NotFound", "NotFoundException")) or code.startswith("NoSuch")


def is_conflict(code: str) -> bool:
    """Whether another write came in between, or an earlier one said something else."""
    return code in _CONFLICT


def is_protected(code: str) -> bool:
    """Whether a human switched termination off for the instance."""
    return code == _PROTECTED


def is_already_terminated(code: str) -> bool:
    """Whether the launch under this token had an instance, which is terminated: another attempt is due."""
    return code == _ALREADY_TERMINATED


def is_invalid(code: str) -> bool:
    """Whether the request itself is wrong, and would be again."""
    return code.startswith(("Invalid", "Malformed", "Missing", "Unknown", "Unsupported", "Validation"))


def had_no_effect(error: ClientError) -> bool:
    """Whether AWS refused the call for certain, so that nothing came of it."""
    code = code_of(error)
    if is_throttled(code) or is_capacity(code) or is_quota(code):
        return True
    if is_conflict(code) or code in _TRANSIENT:
        return False
    return 400 <= status_of(error) < 500


def is_transient(error: ClientError) -> bool:
    """Whether AWS could not serve the call now, and may the next time."""
    code = code_of(error)
    return code in _TRANSIENT or is_capacity(code) or status_of(error) >= 500


def hint_of(code: str) -> str:
    """What a human can do about the code."""
    return _HINTS.get(code) or _general_hint(code)


def _general_hint(code: str) -> str:
    if is_throttled(code):
        return "AWS throttles these calls; it is tried again by itself."
    if is_denied(code):
        return "Give the control plane's role this permission, then request a recreate."
    if is_quota(code):
        return "The quota is reached: raise it in Service Quotas or free some, then request a recreate."
    if is_not_found(code):
        return "What the call names is not in this account and region: correct the spec or the settings."
    if is_invalid(code):
        return "AWS does not take this parameter: correct the spec or the settings, then request a recreate."
    return f"Look up {code} in AWS's list of error codes; it is said there what it takes."
