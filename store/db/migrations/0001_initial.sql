-- Baseline schema of the control plane.
--
-- Naming: `*_at` is a point in time, `*_since` the start of a state that still lasts. A row of `generations` without
-- `superseded_at` is the current generation. Tables with `only_row` hold exactly one row: its primary key can only
-- be true.

-- ---------------------------------------------------------------------------------------------------------------
-- Workspaces: the workspace, its generations, their EC2 launches, the requests, and the events for its workflow
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE workspaces (
    workspace_id    text PRIMARY KEY
                    CHECK (workspace_id ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    intent          text NOT NULL DEFAULT 'run' CHECK (intent IN ('run', 'stop', 'delete')),
    -- the newest generation ever opened; 0 before the first one
    generation      integer NOT NULL DEFAULT 0 CHECK (generation >= 0),
    spec            jsonb NOT NULL DEFAULT '{}',
    -- of the last status that the workflow wrote; a write with an older revision is rejected
    revision        bigint NOT NULL DEFAULT 0,
    phase           text NOT NULL DEFAULT 'provisioning',
    last_error      jsonb,
    conditions      jsonb NOT NULL DEFAULT '[]',
    dns_name        text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    deleted_at      timestamptz,
    -- Image set by a rollout, and the sequence of that rollout. Kept outside `spec`: a workflow that enrolls again
    -- stores its own spec, which may name an older image.
    rollout_image_id text,
    rollout_number  bigint
);

-- One row per generation. The row without `superseded_at` is the current one.
CREATE TABLE generations (
    workspace_id    text NOT NULL REFERENCES workspaces,
    generation      integer NOT NULL CHECK (generation > 0),
    key_id          text NOT NULL,
    spec            jsonb NOT NULL,
    opened_at       timestamptz NOT NULL DEFAULT now(),
    superseded_at   timestamptz,
    instance_id     text,
    private_ip      inet,
    -- reported by the box; written only while superseded_at IS NULL
    url             text,
    delivery_mode   text,
    agent_card      jsonb,
    registered_at   timestamptz,
    last_register_at timestamptz,
    -- liveness of the agent: when it last processed work, and since when there is no evidence that it does
    last_processed_at timestamptz,
    agent_unresponsive_since timestamptz,
    agent_unresponsive_reason text,
    -- when the generation was first recorded as online; set once, so that metrics count it once
    online_at       timestamptz,
    PRIMARY KEY (workspace_id, generation)
);
CREATE UNIQUE INDEX one_current_generation ON generations (workspace_id) WHERE superseded_at IS NULL;
-- The watchdog's queries. These partial indexes are empty in a healthy fleet, and heartbeats do not touch them.
CREATE INDEX unregistered_generations ON generations (opened_at)
    WHERE superseded_at IS NULL AND registered_at IS NULL;
CREATE INDEX generations_with_unresponsive_agent ON generations (workspace_id)
    WHERE superseded_at IS NULL AND agent_unresponsive_since IS NOT NULL;

-- The RunInstances request as it was first prepared; a retry sends the same bytes. `user_data` is the template:
-- it does not contain the bootstrap secret.
CREATE TABLE launches (
    workspace_id    text NOT NULL,
    generation      integer NOT NULL,
    attempt         integer NOT NULL CHECK (attempt > 0),
    client_token    text NOT NULL UNIQUE CHECK (length(client_token) <= 64),
    request         jsonb NOT NULL,
    user_data       text NOT NULL,
    prepared_at     timestamptz NOT NULL DEFAULT now(),
    -- the last RunInstances call that may have had an effect
    requested_at    timestamptz,
    instance_id     text,
    private_ip      inet,
    -- EC2's error code, if it had no capacity for this attempt
    capacity_error  text,
    terminated_at   timestamptz,
    declared_dead   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (workspace_id, generation, attempt),
    FOREIGN KEY (workspace_id, generation) REFERENCES generations
);
CREATE UNIQUE INDEX one_launch_per_instance ON launches (instance_id) WHERE instance_id IS NOT NULL;

-- Requests (recreate, start, stop, delete …) and their outcomes.
CREATE TABLE requests (
    workspace_id    text NOT NULL REFERENCES workspaces,
    request_id      text NOT NULL,
    kind            text NOT NULL,
    requested_by    text NOT NULL,
    reason          text NOT NULL,
    observed_generation integer,
    force           boolean NOT NULL,
    decided_at      timestamptz NOT NULL,
    outcome         text NOT NULL CHECK (outcome IN ('accepted', 'joined', 'stale', 'deferred', 'rejected')),
    generation      integer NOT NULL,
    detail          text NOT NULL,
    retry_at        timestamptz,
    PRIMARY KEY (workspace_id, request_id)
);
CREATE INDEX requests_by_time ON requests (workspace_id, decided_at);

-- Transactional outbox of workspace events. A row is inserted in the transaction that changes the state, and
-- deleted once the relay has signalled the workflow.
CREATE TABLE workspace_outbox (
    event_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace_id    text NOT NULL,
    generation      integer NOT NULL,
    kind            text NOT NULL,
    -- time of the insert, not of the transaction: the transaction may have waited for a lock
    occurred_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    detail          text NOT NULL DEFAULT '',
    CONSTRAINT workspace_outbox_kind_check
        CHECK (kind IN ('registered', 'alive', 'stale', 'credential_lost', 'superseded_call',
                        'not_processing', 'processing', 'orphan', 'unrecorded_instance'))
);
CREATE FUNCTION notify_workspace_outbox() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('onebox_workspace_outbox', ''); RETURN NULL; END $$;
-- FOR EACH ROW: a statement-level trigger would also fire for heartbeat statements that insert no event, and each
-- NOTIFY takes the lock that serializes notifying commits.
CREATE TRIGGER notify_workspace_outbox AFTER INSERT ON workspace_outbox
    FOR EACH ROW EXECUTE FUNCTION notify_workspace_outbox();

-- ---------------------------------------------------------------------------------------------------------------
-- Registration: credentials, heartbeats, and the audit log of the register API
-- ---------------------------------------------------------------------------------------------------------------

-- Instance tokens of the register protocol.
CREATE TABLE tokens (
    token_id        uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id    text NOT NULL,
    generation      integer NOT NULL,
    state           text NOT NULL CHECK (state IN ('pending', 'active', 'retiring', 'revoked')),
    sha256          bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
    prefix          text NOT NULL CHECK (length(prefix) = 8),
    key_id          text NOT NULL,
    nonce           bytea,
    created_at      timestamptz NOT NULL DEFAULT now(),
    last_used_at    timestamptz,
    revoked_at      timestamptz,
    FOREIGN KEY (workspace_id, generation) REFERENCES generations,
    CHECK ((state = 'pending') = (nonce IS NOT NULL))
);
-- Invariant I4, enforced by the database: at most one pending and one active token per generation.
CREATE UNIQUE INDEX one_pending_token ON tokens (workspace_id, generation) WHERE state = 'pending';
CREATE UNIQUE INDEX one_active_token ON tokens (workspace_id, generation) WHERE state = 'active';
CREATE INDEX tokens_by_workspace ON tokens (workspace_id, generation);
-- Excludes revoked tokens, which accumulate.
CREATE INDEX live_tokens ON tokens (workspace_id, generation) WHERE state <> 'revoked';

-- API tokens for a workspace's tools. A separate table: the register protocol does not accept them as instance
-- tokens, a recreate does not revoke them, and they do not count as live tokens of a generation.
CREATE TABLE api_tokens (
    token_id        uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id    text NOT NULL REFERENCES workspaces,
    name            text NOT NULL DEFAULT '',
    sha256          bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
    prefix          text NOT NULL CHECK (length(prefix) = 8),
    created_by      text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    last_used_at    timestamptz,
    revoked_at      timestamptz
);
CREATE INDEX api_tokens_by_workspace ON api_tokens (workspace_id, created_at);

-- One row per workspace, updated by every heartbeat. Narrow, and without an index on the columns that heartbeats
-- change, so that updates are heap-only (HOT).
CREATE TABLE heartbeats (
    workspace_id    text PRIMARY KEY REFERENCES workspaces,
    generation      integer NOT NULL,
    last_heartbeat_at timestamptz,
    -- the generation's first heartbeat, or the first one after missed heartbeats
    alive_since     timestamptz,
    stale_since     timestamptz,
    active_tasks    integer NOT NULL DEFAULT 0,
    is_busy         boolean,
    runtime_state   text,
    error_rate      double precision NOT NULL DEFAULT 0,
    sample_error    text NOT NULL DEFAULT '',
    current_task    text NOT NULL DEFAULT '',
    uptime_seconds  bigint NOT NULL DEFAULT 0,
    -- consecutive heartbeats of the current box without a live token; an authenticated heartbeat resets it
    unauthenticated_count integer NOT NULL DEFAULT 0,
    credential_lost_at timestamptz
) WITH (fillfactor = 50);
-- The watchdog's queries. Both partial indexes are empty in a healthy fleet.
CREATE INDEX stale_boxes ON heartbeats (workspace_id) WHERE stale_since IS NOT NULL;
CREATE INDEX boxes_with_lost_credentials ON heartbeats (workspace_id) WHERE credential_lost_at IS NOT NULL;

-- When the workflow was last notified that a box of a superseded generation calls: rate limit per generation.
CREATE TABLE superseded_calls (
    workspace_id    text NOT NULL,
    generation      integer NOT NULL,
    reported_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, generation),
    FOREIGN KEY (workspace_id, generation) REFERENCES generations
);

-- Audit log of identity decisions: who called, what they proved, what the answer was. `repeats` counts similar calls
-- from the same source that got no row of their own, so that a flood of calls does not fill the disk.
CREATE TABLE audit_log (
    audit_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    workspace_id    text NOT NULL REFERENCES workspaces,
    generation      integer NOT NULL,
    operation       text NOT NULL,
    identity        text NOT NULL,
    credential_kind text NOT NULL,
    code            text NOT NULL,
    token_prefix    text CHECK (length(token_prefix) = 8),
    source          inet,
    from_box        boolean NOT NULL,
    needs_attention boolean NOT NULL,
    request_id      text NOT NULL,
    repeats         integer NOT NULL DEFAULT 0
);
CREATE INDEX audit_log_by_workspace ON audit_log (workspace_id, audit_id);

CREATE FUNCTION protect_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.at < now() - interval '90 days' THEN
        RETURN OLD;  -- retention: old rows may be deleted, no row may be changed
    END IF;
    RAISE EXCEPTION 'the audit log is append-only; rows older than 90 days may be deleted';
END $$;
CREATE TRIGGER protect_audit_log BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION protect_audit_log();

-- ---------------------------------------------------------------------------------------------------------------
-- Delegations: tasks that one workspace delegates to another
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE delegations (
    delegation_id   text PRIMARY KEY CHECK (delegation_id ~ '^[A-Za-z0-9._-]{1,128}$'),
    type            text NOT NULL CHECK (type IN ('delegate', 'record', 'canary')),
    -- NULL: the control plane itself
    source_id       text REFERENCES workspaces,
    target_id       text NOT NULL REFERENCES workspaces,
    idempotency_key text,
    idempotent      boolean NOT NULL DEFAULT false,
    task            text NOT NULL,
    state           text NOT NULL DEFAULT 'queued'
                    CHECK (state IN ('queued', 'delivered', 'acked', 'in_progress',
                                     'processed', 'failed', 'expired', 'canceled')),
    attempts        integer NOT NULL DEFAULT 0,
    -- consecutive failures to reach the box; they do not count as attempts
    connect_failures integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    target_generation integer,
    stalled         boolean NOT NULL DEFAULT false,
    dead_lettered   boolean NOT NULL DEFAULT false,
    error_code      text,
    error           text,
    response_preview text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered_at    timestamptz,
    progressed_at   timestamptz,
    ended_at        timestamptz,
    -- how many polls of the source's box have listed the result
    times_listed    integer NOT NULL DEFAULT 0,
    CHECK ((type = 'canary') = (source_id IS NULL)),
    CHECK ((ended_at IS NOT NULL) = (state IN ('processed', 'failed', 'expired', 'canceled')))
);
CREATE UNIQUE INDEX one_delegation_per_idempotency_key ON delegations (source_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX delegations_by_source ON delegations (source_id, created_at DESC);
-- A query uses the next two indexes only if it names these states: `ended_at IS NULL` does not imply them.
CREATE INDEX open_delegations_by_target ON delegations (target_id)
    WHERE state IN ('queued', 'delivered', 'acked', 'in_progress');
CREATE INDEX open_delegations_by_source ON delegations (source_id)
    WHERE state IN ('queued', 'delivered', 'acked', 'in_progress');
CREATE INDEX unacked_delegations ON delegations (delivered_at) WHERE state = 'delivered';
CREATE INDEX stalled_delegations ON delegations (target_id) WHERE stalled AND ended_at IS NULL;
CREATE INDEX open_delegations_by_age ON delegations (created_at) WHERE ended_at IS NULL AND type <> 'canary';
CREATE INDEX results_to_list ON delegations (source_id, times_listed) WHERE ended_at IS NOT NULL;
CREATE INDEX delegations_by_end ON delegations (ended_at) WHERE ended_at IS NOT NULL AND type = 'delegate';

-- Invariant I10, enforced by the database: the state and result of an ended delegation never change.
CREATE FUNCTION protect_ended_delegation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.ended_at IS NOT NULL AND (NEW.state, NEW.error, NEW.response_preview, NEW.ended_at)
       IS DISTINCT FROM (OLD.state, OLD.error, OLD.response_preview, OLD.ended_at) THEN
        RAISE EXCEPTION 'delegation % has ended as %', OLD.delegation_id, OLD.state;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER protect_ended_delegation BEFORE UPDATE ON delegations
    FOR EACH ROW EXECUTE FUNCTION protect_ended_delegation();

-- Transactional outbox of delegations whose workflow must wake up and read the ledger. A row is inserted in the
-- transaction that changes the delegation, and deleted once the relay has signalled the workflow.
CREATE TABLE delegation_outbox (
    event_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delegation_id   text NOT NULL
);
CREATE FUNCTION notify_delegation_outbox() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('onebox_delegation_outbox', ''); RETURN NULL; END $$;
CREATE TRIGGER notify_delegation_outbox AFTER INSERT ON delegation_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION notify_delegation_outbox();

-- ---------------------------------------------------------------------------------------------------------------
-- Fleet: circuit breaker, concurrency limit, watchdog, EC2 capacity
-- ---------------------------------------------------------------------------------------------------------------

-- Whether heartbeats can be stored. A gap tells the watchdog that missing heartbeats are the control plane's outage,
-- not the boxes'. Exactly one row.
CREATE TABLE heartbeat_intake (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- NULL: no gap since the first register API started
    gapless_since   timestamptz,
    last_seen_at    timestamptz NOT NULL DEFAULT now()
);

-- When too many workspaces were last stale at the same time. Exactly one row.
CREATE TABLE fleet_stale_events (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    seen_at         timestamptz NOT NULL
);

-- Permits for automatic recreates. Whether a permit is still in use follows from the workspace's row.
CREATE TABLE recreate_permits (
    workspace_id    text PRIMARY KEY REFERENCES workspaces,
    generation      integer NOT NULL,
    granted_at      timestamptz NOT NULL DEFAULT now()
);

-- Recreates that the watchdog has requested, one row per cause.
CREATE TABLE watchdog_requests (
    workspace_id    text NOT NULL REFERENCES workspaces,
    generation      integer NOT NULL,
    cause           text NOT NULL,
    since           timestamptz NOT NULL,
    request_id      text NOT NULL,
    request_count   integer NOT NULL DEFAULT 1,
    last_requested_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, generation, cause)
);

-- The watchdog's last run. Exactly one row.
CREATE TABLE watchdog_status (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ended_at        timestamptz NOT NULL,
    -- why automatic recreates are frozen; NULL: they are not
    frozen_reason   text
);

-- Offerings (instance type and subnet or zone) without capacity, skipped until `expires_at`.
CREATE TABLE unavailable_offerings (
    instance_type   text NOT NULL,
    subnet_id       text NOT NULL,
    code            text NOT NULL,
    expires_at      timestamptz NOT NULL,
    PRIMARY KEY (instance_type, subnet_id)
);

-- Instances that EC2 listed in the orphan sweep's last pass. Exactly one row.
CREATE TABLE ec2_inventory (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    listed_at       timestamptz NOT NULL,
    -- pending or running, with this control plane's owner tag
    running         integer NOT NULL,
    -- workspaces with more than one such instance, and the maximum for a single workspace
    workspaces_with_duplicates integer NOT NULL,
    max_per_workspace integer NOT NULL
);

-- ---------------------------------------------------------------------------------------------------------------
-- Rollouts
-- ---------------------------------------------------------------------------------------------------------------

-- One row per rollout. Later rollouts have a larger `sequence`: a late attempt of an earlier rollout does not
-- overwrite the image that a later one has set.
CREATE TABLE rollouts (
    rollout_id      text PRIMARY KEY,
    sequence        bigint GENERATED ALWAYS AS IDENTITY,
    requested_by    text NOT NULL,
    reason          text NOT NULL,
    image_id        text,
    workspaces      text[] NOT NULL,
    planned_at      timestamptz NOT NULL DEFAULT now()
);

-- ---------------------------------------------------------------------------------------------------------------
-- Volumes: data volumes, which outlive boxes, and their snapshots
-- ---------------------------------------------------------------------------------------------------------------

-- One row per workspace that has, or may have, a data volume. Written before CreateVolume is called.
CREATE TABLE volumes (
    workspace_id    text PRIMARY KEY REFERENCES workspaces,
    client_token    text NOT NULL CHECK (length(client_token) <= 64),
    -- the CreateVolume request as it was first prepared; a retry sends the same
    request         jsonb NOT NULL,
    -- boxes of the workspace are launched in this zone only
    zone            text NOT NULL,
    requested_at    timestamptz,
    volume_id       text UNIQUE,
    created_at      timestamptz,
    -- the instance that the volume is, or may be, attached to; written before AttachVolume is called
    attached_instance_id text,
    attached_generation integer,
    deleted_at      timestamptz,
    -- consecutive CreateSnapshot calls that EC2 rejected
    snapshot_failures integer NOT NULL DEFAULT 0,
    last_failed_at  timestamptz,
    CHECK ((attached_instance_id IS NULL) = (attached_generation IS NULL))
);

-- One row per CreateSnapshot call, written before the call: CreateSnapshot has no ClientToken.
CREATE TABLE snapshots (
    snapshot_key    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id    text NOT NULL REFERENCES workspaces,
    volume_id       text NOT NULL,
    generation      integer NOT NULL,
    requested_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    snapshot_id     text UNIQUE,
    -- requested: the call is in progress, or its response was lost. lost: EC2 never created the snapshot.
    state           text NOT NULL DEFAULT 'requested'
                    CHECK (state IN ('requested', 'pending', 'completed', 'failed', 'lost', 'deleted')),
    CHECK (state IN ('requested', 'lost') OR snapshot_id IS NOT NULL)
);
-- At most one unfinished snapshot per volume, enforced by the database.
CREATE UNIQUE INDEX one_pending_snapshot ON snapshots (volume_id) WHERE state IN ('requested', 'pending');
CREATE INDEX snapshots_by_volume ON snapshots (volume_id, requested_at);

-- ---------------------------------------------------------------------------------------------------------------
-- Orphans: instances and DNS names with this control plane's tags that no generation owns
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE orphans (
    -- the instance ID, or the DNS name
    name            text PRIMARY KEY,
    kind            text NOT NULL CHECK (kind IN ('instance', 'name')),
    -- from the tags or the TXT record: there may be no such workspace
    workspace_id    text NOT NULL,
    generation      bigint NOT NULL,
    attempt         bigint NOT NULL,
    first_seen      timestamptz NOT NULL,
    last_seen       timestamptz NOT NULL,
    sightings       integer NOT NULL,
    -- the last pass that saw it: a retried pass does not count it twice
    pass_id         text NOT NULL,
    verdict         text NOT NULL,
    handled_at      timestamptz
);
