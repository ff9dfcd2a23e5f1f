-- Instances and DNS names that carry our tags and that no generation claims: since when, and what was done.

CREATE TABLE orphans (
    -- the instance ID, or the DNS name
    name            text PRIMARY KEY,
    kind            text NOT NULL CHECK (kind IN ('instance', 'name')),
    -- by its own word: there may be no such workspace
    workspace_id    text NOT NULL,
    generation      bigint NOT NULL,
    attempt         bigint NOT NULL,
    first_seen      timestamptz NOT NULL,
    last_seen       timestamptz NOT NULL,
    times           integer NOT NULL,
    -- the pass that saw it last: repeated, it sees nothing new
    pass_id         text NOT NULL,
    verdict         text NOT NULL,
    acted_at        timestamptz
);

ALTER TABLE facts DROP CONSTRAINT facts_kind_check;
ALTER TABLE facts ADD CONSTRAINT facts_kind_check
    CHECK (kind IN ('registered', 'beating', 'silent', 'credential_lost', 'intruder',
                    'not_processing', 'processing', 'stray', 'unclaimed'));
