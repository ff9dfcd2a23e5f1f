#!/bin/sh
# Creates the namespace and the search attributes that Onebox's workflows set. Safe to run again.
# Environment: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE.
set -eu
temporal operator namespace describe --namespace "${TEMPORAL_NAMESPACE}" >/dev/null 2>&1 ||
  temporal operator namespace create --namespace "${TEMPORAL_NAMESPACE}" --retention 30d
# Temporal's front end refreshes its list of namespaces every 10 s.
attempts=30
until temporal operator search-attribute list --namespace "${TEMPORAL_NAMESPACE}" >/dev/null 2>&1; do
  attempts=$((attempts - 1))
  [ "${attempts}" -gt 0 ] || { echo "namespace ${TEMPORAL_NAMESPACE} is not usable after 30 s" >&2; exit 1; }
  sleep 1
done
temporal operator search-attribute create --namespace "${TEMPORAL_NAMESPACE}" \
  --name WorkspacePhase --type Keyword --name WorkspaceInstance --type Keyword \
  --name WorkspaceErrorCode --type Keyword --name WorkspaceReason --type Keyword \
  --name WorkspaceGeneration --type Int \
  --name DelegationState --type Keyword --name RollState --type Keyword
