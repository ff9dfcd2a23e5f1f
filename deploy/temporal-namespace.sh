#!/bin/sh
# Creates the namespace and the search attributes that Onebox's workflows set. Safe to run again.
# Environment: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE.
set -eu
temporal operator namespace describe --namespace "${TEMPORAL_NAMESPACE}" >/dev/null 2>&1 ||
  temporal operator namespace create --namespace "${TEMPORAL_NAMESPACE}" --retention 30d
# A front end hears of a new namespace with its next refresh, up to 10 s later.
attempts=30
until temporal operator search-attribute list --namespace "${TEMPORAL_NAMESPACE}" >/dev/null 2>&1; do
  attempts=$((attempts - 1))
  [ "${attempts}" -gt 0 ] || { echo "namespace ${TEMPORAL_NAMESPACE} cannot be used" >&2; exit 1; }
  sleep 1
done
temporal operator search-attribute create --namespace "${TEMPORAL_NAMESPACE}" \
  --name WorkspacePhase --type Keyword --name WorkspaceInstance --type Keyword \
  --name WorkspaceErrorCode --type Keyword --name WorkspaceReason --type Keyword \
  --name WorkspaceGeneration --type Int \
  --name DelegationState --type Keyword --name RollState --type Keyword
