"""Garbage collection of instances and DNS names that no generation claims."""
