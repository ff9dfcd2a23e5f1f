"""The table of endpoints, the models of requests and responses, and the OpenAPI document made from them."""
