-- The fleet: how much is wrong at once, how much is being recreated, what the watchdog has asked for.

-- Since when, without a gap, beats could be taken in, and when they last could. One row.
CREATE TABLE intake (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- none: since the first register API ran
    since           timestamptz,
    last_at         timestamptz NOT NULL DEFAULT now()
);

-- When too many workspaces were last seen stale at once. One row.
CREATE TABLE many_stale (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    seen_at         timestamptz NOT NULL
);

-- Places for automatic recreates. Whether one is still in use is told by the workspace's own row.
CREATE TABLE recreate_slots (
    workspace_id    text PRIMARY KEY REFERENCES workspaces,
    generation      integer NOT NULL,
    taken_at        timestamptz NOT NULL DEFAULT now()
);

-- What the watchdog has asked for, once for each cause.
CREATE TABLE watchdog_asks (
    workspace_id    text NOT NULL REFERENCES workspaces,
    generation      integer NOT NULL,
    cause           text NOT NULL,
    since           timestamptz NOT NULL,
    request_id      text NOT NULL,
    times           integer NOT NULL DEFAULT 1,
    asked_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, generation, cause)
);

-- Types and zones in which EC2 had no room, until it is worth asking again.
CREATE TABLE bad_offerings (
    instance_type   text NOT NULL,
    subnet_id       text NOT NULL,
    code            text NOT NULL,
    until           timestamptz NOT NULL,
    PRIMARY KEY (instance_type, subnet_id)
);

-- What the watchdog looks for. All four are empty where all is well, and a beat touches none of them.
CREATE INDEX silent_boxes ON beats (workspace_id) WHERE silent_since IS NOT NULL;
CREATE INDEX boxes_without_credential ON beats (workspace_id) WHERE credential_lost_at IS NOT NULL;
CREATE INDEX unregistered_generations ON generations (opened_at)
    WHERE superseded_at IS NULL AND registered_at IS NULL;
CREATE INDEX generations_not_processing ON generations (workspace_id)
    WHERE superseded_at IS NULL AND not_processing_since IS NOT NULL;
