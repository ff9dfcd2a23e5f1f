-- What the fleet's figures are told from: the last looks at EC2 and at the fleet, and when a generation came online.

-- What EC2 listed in the orphan sweep's last pass. One row.
CREATE TABLE inventory (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    looked_at       timestamptz NOT NULL,
    -- pending or running, with our owner tag
    alive           integer NOT NULL,
    -- workspaces of which more than one is alive, and the largest number of one workspace
    crowded         integer NOT NULL,
    most            integer NOT NULL
);

-- The watchdog's last round. One row.
CREATE TABLE watchdog_rounds (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ended_at        timestamptz NOT NULL,
    frozen          text
);

-- When a generation was first recorded as online: told once, so that it is counted once.
ALTER TABLE generations ADD COLUMN online_at timestamptz;
-- Those of before came online some time after they registered; nobody knows better, and none is counted now.
UPDATE generations SET online_at = registered_at WHERE registered_at IS NOT NULL;

-- Live tokens, without all that were ever revoked.
CREATE INDEX live_tokens ON tokens (workspace_id, generation) WHERE state <> 'revoked';
CREATE INDEX delegations_by_end ON delegations (ended_at) WHERE ended_at IS NOT NULL AND type = 'delegate';
