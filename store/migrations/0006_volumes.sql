-- Data volumes, which outlive boxes, and their snapshots.

-- One row for each workspace that has, or may have, a volume: written before the call that creates it.
CREATE TABLE volumes (
    workspace_id    text PRIMARY KEY REFERENCES workspaces,
    client_token    text NOT NULL CHECK (length(client_token) <= 64),
    -- CreateVolume as it was first sent; a retry sends the same
    request         jsonb NOT NULL,
    -- boxes are launched there, and nowhere else
    zone            text NOT NULL,
    called_at       timestamptz,
    volume_id       text UNIQUE,
    created_at      timestamptz,
    -- the instance that it may be attached to: written before the call that attaches it
    attached_to     text,
    attached_generation integer,
    deleted_at      timestamptz,
    -- snapshots that EC2 refused in a row
    refusals        integer NOT NULL DEFAULT 0,
    refused_at      timestamptz,
    CHECK ((attached_to IS NULL) = (attached_generation IS NULL))
);

-- One row for each CreateSnapshot, written before the call: there is no ClientToken for it.
CREATE TABLE snapshots (
    snapshot_key    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id    text NOT NULL REFERENCES workspaces,
    volume_id       text NOT NULL,
    generation      integer NOT NULL,
    asked_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    snapshot_id     text UNIQUE,
    -- asking: the call is under way, or its answer was lost
    state           text NOT NULL DEFAULT 'asking'
                    CHECK (state IN ('asking', 'pending', 'completed', 'failed', 'never_made', 'deleted')),
    CHECK (state IN ('asking', 'never_made') OR snapshot_id IS NOT NULL)
);
-- Never two pending, held by the database itself.
CREATE UNIQUE INDEX one_pending_snapshot ON snapshots (volume_id) WHERE state IN ('asking', 'pending');
CREATE INDEX snapshots_of_a_volume ON snapshots (volume_id, asked_at);
