#!/bin/sh
# Creates the namespace and the search attributes that Onebox's workflows set. Safe to run again.
# Environment: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE.
set -eu
temporal operator namespace describe --namespace "${TEMPORAL_NAMESPACE}" >/dev/null 2>&1 ||
  temporal operator namespace create --namespace "${TEMPORAL_NAMESPACE}" --retention 30d
temporal operator search-attribute create --namespace "${TEMPORAL_NAMESPACE}" \
  --name WorkspacePhase --type Keyword --name WorkspaceInstance --type Keyword \
  --name WorkspaceErrorCode --type Keyword --name WorkspaceReason --type Keyword \
  --name WorkspaceGeneration --type Int \
  --name DelegationState --type Keyword --name RollState --type Keyword
