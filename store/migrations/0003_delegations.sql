-- Delegations: work handed from one workspace to another, and whether the agents process it.

CREATE TABLE delegations (
    delegation_id   text PRIMARY KEY CHECK (delegation_id ~ '^[A-Za-z0-9._-]{1,128}$'),
    type            text NOT NULL CHECK (type IN ('delegate', 'record', 'canary')),
    -- none: the control plane itself
    source_id       text REFERENCES workspaces,
    target_id       text NOT NULL REFERENCES workspaces,
    idempotency_key text,
    idempotent      boolean NOT NULL DEFAULT false,
    task            text NOT NULL,
    state           text NOT NULL DEFAULT 'queued'
                    CHECK (state IN ('queued', 'delivered', 'acked', 'in_progress',
                                     'processed', 'failed', 'expired', 'canceled')),
    attempt         integer NOT NULL DEFAULT 0,
    tries           integer NOT NULL DEFAULT 0,
    not_before      timestamptz,
    target_generation integer,
    stalled         boolean NOT NULL DEFAULT false,
    held            boolean NOT NULL DEFAULT false,
    error_code      text,
    error           text,
    response_preview text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered_at    timestamptz,
    progressed_at   timestamptz,
    ended_at        timestamptz,
    -- how often the source's polls have shown its end
    shown           integer NOT NULL DEFAULT 0,
    CHECK ((type = 'canary') = (source_id IS NULL)),
    CHECK ((ended_at IS NOT NULL) = (state IN ('processed', 'failed', 'expired', 'canceled')))
);
CREATE UNIQUE INDEX one_delegation_of_a_key ON delegations (source_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX delegations_of_a_source ON delegations (source_id, created_at DESC);
CREATE INDEX open_delegations_of_a_target ON delegations (target_id)
    WHERE state IN ('queued', 'delivered', 'acked', 'in_progress');
CREATE INDEX unacked_delegations ON delegations (delivered_at) WHERE state = 'delivered';
CREATE INDEX stalled_delegations ON delegations (target_id) WHERE stalled AND ended_at IS NULL;
CREATE INDEX open_delegations_by_age ON delegations (created_at) WHERE ended_at IS NULL AND type <> 'canary';
CREATE INDEX results_to_be_shown ON delegations (source_id, shown) WHERE ended_at IS NOT NULL;

-- I10, held by the database itself: what has ended never changes its state or its words.
CREATE FUNCTION keep_ended_delegation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.ended_at IS NOT NULL AND (NEW.state, NEW.error, NEW.response_preview, NEW.ended_at)
       IS DISTINCT FROM (OLD.state, OLD.error, OLD.response_preview, OLD.ended_at) THEN
        RAISE EXCEPTION 'delegation % has ended as %', OLD.delegation_id, OLD.state;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_ended_delegation BEFORE UPDATE ON delegations
    FOR EACH ROW EXECUTE FUNCTION keep_ended_delegation();

-- Delegations whose workflow has to look again: written with the change, deleted once it is told.
CREATE TABLE stirrings (
    stirring_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delegation_id   text NOT NULL
);
CREATE FUNCTION announce_stirring() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('onebox_stirrings', ''); RETURN NULL; END $$;
CREATE TRIGGER announce_stirring AFTER INSERT ON stirrings
    FOR EACH STATEMENT EXECUTE FUNCTION announce_stirring();

-- What is known of the current box's brain: when it last processed something, and since when it is not seen to.
ALTER TABLE generations
    ADD COLUMN last_processed_at timestamptz,
    ADD COLUMN not_processing_since timestamptz,
    ADD COLUMN not_processing_why text;

ALTER TABLE facts ADD COLUMN detail text NOT NULL DEFAULT '';
ALTER TABLE facts DROP CONSTRAINT facts_kind_check;
ALTER TABLE facts ADD CONSTRAINT facts_kind_check
    CHECK (kind IN ('registered', 'beating', 'silent', 'credential_lost', 'intruder',
                    'not_processing', 'processing'));
