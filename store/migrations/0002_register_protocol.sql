-- The register protocol, whole: API tokens, the audit trail, lost credentials, superseded boxes that call.

-- Tokens for a workspace's tools. A table of their own: no register call can take one for an instance's, no
-- recreate revokes one, and none counts where a generation's live tokens are counted.
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
CREATE INDEX api_tokens_of_a_workspace ON api_tokens (workspace_id, created_at);

-- Who called, what they proved, what they were told. `repeats` counts calls like this one, from the same
-- source, that came since its last row and got none of their own: a flood must not fill the disk.
CREATE TABLE audit (
    audit_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    workspace_id    text NOT NULL REFERENCES workspaces,
    generation      integer NOT NULL,
    call            text NOT NULL,
    verdict         text NOT NULL,
    bearer          text NOT NULL,
    code            text NOT NULL,
    token_prefix    text CHECK (length(token_prefix) = 8),
    source          inet,
    from_box        boolean NOT NULL,
    alert           boolean NOT NULL,
    request_id      text NOT NULL,
    repeats         integer NOT NULL DEFAULT 0
);
CREATE INDEX audit_of_a_workspace ON audit (workspace_id, audit_id);

CREATE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.at < now() - interval '90 days' THEN
        RETURN OLD;  -- retention: old rows may go, none may change
    END IF;
    RAISE EXCEPTION 'the audit trail is append-only; rows older than 90 days may be deleted';
END $$;
CREATE TRIGGER keep_audit BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION keep_audit();

-- Full beats of the current box without a live token, in a row; a counted beat begins anew.
ALTER TABLE beats
    ADD COLUMN strikes integer NOT NULL DEFAULT 0,
    ADD COLUMN credential_lost_at timestamptz;

-- When a superseded box last called: the lifecycle is told once in a while, not for every call.
CREATE TABLE intrusions (
    workspace_id    text NOT NULL,
    generation      integer NOT NULL,
    told_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, generation),
    FOREIGN KEY (workspace_id, generation) REFERENCES generations
);

ALTER TABLE facts DROP CONSTRAINT facts_kind_check;
ALTER TABLE facts ADD CONSTRAINT facts_kind_check
    CHECK (kind IN ('registered', 'beating', 'silent', 'credential_lost', 'intruder'));
