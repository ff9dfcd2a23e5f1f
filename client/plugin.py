"""The Temporal plugin of every Onebox client and worker: data converter, encryption, header codec."""

from temporalio.client import ClientConfig
from temporalio.common import HeaderCodecBehavior
from temporalio.plugin import SimplePlugin
from typing_extensions import override

from workflows.shared.encryption import PayloadKeys, converter


class OneboxPlugin(SimplePlugin):
    """Pass it to `Client.connect(plugins=[…])`; workers of that client inherit it."""

    def __init__(self, keys: PayloadKeys) -> None:
        super().__init__("onebox", data_converter=converter(keys))

    @override
    def configure_client(self, config: ClientConfig) -> ClientConfig:
        config = super().configure_client(config)
        # The request ID travels in a header, and its sender chooses the text.
        config["header_codec_behavior"] = HeaderCodecBehavior.CODEC
        return config
