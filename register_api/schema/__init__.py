"""The endpoint table, request and response models, and the OpenAPI document generated from them."""
