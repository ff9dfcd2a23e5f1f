"""The context that every activity runs in, and the translation of errors to `ApplicationError`."""
