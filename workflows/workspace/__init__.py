"""The lifecycle of one workspace: a pure state machine, and the workflow that runs its due step.

A new rule is a function of values here; a new step is a module in `phases`.
"""
