"""Orders by HL7 v2 as one thing that goes on: the listener, and what is done with its messages."""

import time
from collections.abc import Callable
from functools import partial

from dicom_node.config import NodeConfig
from dicom_node.worklist.hl7.mllp import Listener
from dicom_node.worklist.hl7.taking import Request, answer


class Hl7Listener(Listener):
    """Takes orders where `[hl7] port` says, hands each to `request`, and acknowledges it.

    Raises
    ------
    ConfigError: a file of its TLS cannot be used.
    """

    def __init__(self, config: NodeConfig, request: Request, clock: Callable[[], float] = time.time) -> None:
        answers = partial(answer, request=request, application=config.node.ae_title)
        super().__init__(config.hl7, lambda message: answers(message, now=clock()))
