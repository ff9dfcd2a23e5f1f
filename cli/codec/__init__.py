"""The codec server: shows operators clear text in Temporal's UI and CLI."""
