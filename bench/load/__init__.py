"""Load on a register API: request bytes, the load process, boxes without processes."""
