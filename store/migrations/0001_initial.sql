-- The record of workspaces, generations, launches, tokens, beats, requests and facts.

CREATE TABLE workspaces (
    workspace_id    text PRIMARY KEY
                    CHECK (workspace_id ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    intent          text NOT NULL DEFAULT 'run' CHECK (intent IN ('run', 'stop', 'delete')),
    generation      integer NOT NULL DEFAULT 0 CHECK (generation >= 0),
    spec            jsonb NOT NULL DEFAULT '{}',
    -- what the lifecycle last said; a write with an older revision is refused
    revision        bigint NOT NULL DEFAULT 0,
    phase           text NOT NULL DEFAULT 'provisioning',
    last_error      jsonb,
    conditions      jsonb NOT NULL DEFAULT '[]',
    dns_name        text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    deleted_at      timestamptz
);

-- One row for each generation; the one without an end is the current one.
CREATE TABLE generations (
    workspace_id    text NOT NULL REFERENCES workspaces,
    generation      integer NOT NULL CHECK (generation > 0),
    key_id          text NOT NULL,
    spec            jsonb NOT NULL,
    opened_at       timestamptz NOT NULL DEFAULT now(),
    superseded_at   timestamptz,
    instance_id     text,
    private_ip      inet,
    -- what the box said of itself; fenced by superseded_at IS NULL
    url             text,
    delivery_mode   text,
    agent_card      jsonb,
    registered_at   timestamptz,
    last_register_at timestamptz,
    PRIMARY KEY (workspace_id, generation)
);
CREATE UNIQUE INDEX one_current_generation ON generations (workspace_id) WHERE superseded_at IS NULL;

-- The launch request as it was first sent; a retry sends the same bytes. The bootstrap secret is not in it.
CREATE TABLE launches (
    workspace_id    text NOT NULL,
    generation      integer NOT NULL,
    attempt         integer NOT NULL CHECK (attempt > 0),
    client_token    text NOT NULL UNIQUE CHECK (length(client_token) <= 64),
    request         jsonb NOT NULL,
    user_data       text NOT NULL,
    frozen_at       timestamptz NOT NULL DEFAULT now(),
    called_at       timestamptz,
    instance_id     text,
    private_ip      inet,
    refused_code    text,
    gone_at         timestamptz,
    declared_dead   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (workspace_id, generation, attempt),
    FOREIGN KEY (workspace_id, generation) REFERENCES generations
);
CREATE UNIQUE INDEX one_launch_of_an_instance ON launches (instance_id) WHERE instance_id IS NOT NULL;

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
-- I4, held by the database itself: at most one pending and one active token in a generation.
CREATE UNIQUE INDEX one_pending_token ON tokens (workspace_id, generation) WHERE state = 'pending';
CREATE UNIQUE INDEX one_active_token ON tokens (workspace_id, generation) WHERE state = 'active';
CREATE INDEX tokens_of_a_workspace ON tokens (workspace_id, generation);

-- One row for each workspace, rewritten by every beat: narrow, without an index on what changes (HOT updates).
CREATE TABLE beats (
    workspace_id    text PRIMARY KEY REFERENCES workspaces,
    generation      integer NOT NULL,
    last_beat_at    timestamptz,
    -- the first beat of the generation, or the first after silence
    beating_since   timestamptz,
    silent_since    timestamptz,
    active_tasks    integer NOT NULL DEFAULT 0,
    is_busy         boolean,
    runtime_state   text,
    error_rate      double precision NOT NULL DEFAULT 0,
    sample_error    text NOT NULL DEFAULT '',
    current_task    text NOT NULL DEFAULT '',
    uptime_seconds  bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE requests (
    workspace_id    text NOT NULL REFERENCES workspaces,
    request_id      text NOT NULL,
    kind            text NOT NULL,
    requested_by    text NOT NULL,
    reason          text NOT NULL,
    observed_generation integer,
    force           boolean NOT NULL,
    at              timestamptz NOT NULL,
    outcome         text NOT NULL CHECK (outcome IN ('accepted', 'joined', 'stale', 'deferred', 'rejected')),
    generation      integer NOT NULL,
    detail          text NOT NULL,
    retry_at        timestamptz,
    PRIMARY KEY (workspace_id, request_id)
);
CREATE INDEX requests_by_time ON requests (workspace_id, at);

-- Transitions on their way to the workflows: written with the change they tell of, deleted once signalled.
-- The trigger is for each row: one for each statement would notify, and take the lock of all notifying
-- commits, with every beat that inserts no fact.
CREATE TABLE facts (
    fact_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace_id    text NOT NULL,
    generation      integer NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('registered', 'beating', 'silent')),
    -- of the insert, not of the transaction: it may have waited for a lock that another fact held
    at              timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE FUNCTION announce_fact() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('onebox_facts', ''); RETURN NULL; END $$;
CREATE TRIGGER announce_fact AFTER INSERT ON facts FOR EACH ROW EXECUTE FUNCTION announce_fact();
