"""A typed Python client of workspaces: for watchdogs, tools and the `onebox` command."""
