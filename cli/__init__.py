"""The `onebox` command."""
