-- Fleet rolls: who their members are, and the image that a roll gave a workspace.

-- One row for each roll. A later one has the larger number: what it gave stands against a late attempt of
-- an earlier one.
CREATE TABLE rolls (
    roll            text PRIMARY KEY,
    number          bigint GENERATED ALWAYS AS IDENTITY,
    requested_by    text NOT NULL,
    reason          text NOT NULL,
    image_id        text,
    workspaces      text[] NOT NULL,
    planned_at      timestamptz NOT NULL DEFAULT now()
);

-- Beside the spec, not in it: a workflow that enrolls again stores its own spec, with the image of its time.
ALTER TABLE workspaces
    ADD COLUMN rolled_image_id text,
    ADD COLUMN rolled_by bigint;
