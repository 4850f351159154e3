"""What Console keeps for its next life (xoar.shards.console): rows of xoar.messages.schema's table.

Nobody sends these. They lie in its recovery box, and who had taken over the last life may have written them:
they are read by this table, and then by whoever knows what they mean.
"""

from xoar.messages.fields import Blob, Choice, Text
from xoar.messages.kind import Kind
from xoar.messages.records import U8, U16, U32, U64

PIECE = 4096
"""Bytes of a stream that one record takes."""

SERVICE = Choice("console", "log", "xen", "relay")
STREAM = Choice("line", "link", "channel")
DIRECTION = Choice("input", "output")

KEPT_CONSOLES = (
    Kind(
        195,
        "remember_console",
        "the console of a domain, also of one that has ended",
        (
            ("domid", U16),
            ("parent", U16),
            ("gref", U32),
            ("port", U32),
            ("slot", U16),  # where its history lies
            ("ended", U8),
            ("broken", U8),
        ),
    ),
    Kind(
        196,
        "remember_toolstack",
        "the link of a Toolstack that came after the boot",
        (("name", Text(64)), ("domid", U16), ("gref", U32), ("port", U32)),
    ),
    Kind(197, "remember_relays", "the last number that a stream to a Toolstack had", (("last", U32),)),
    Kind(
        198,
        "remember_channel",
        "an operator's channel, and how far its two directions are (xoar.messages.line)",
        (
            ("channel", U16),
            ("accepted", U8),
            ("sent", U32),
            ("send_limit", U32),
            ("received", U32),
            ("receive_limit", U32),
            ("announced", U32),
        ),
    ),
    Kind(
        199,
        "remember_service",
        "what a channel is connected to, or will be after that",
        (
            ("channel", U16),
            ("service", SERVICE),
            ("domid", U16),  # of the console; of the Toolstack
            ("position", U64),  # in what was printed
            ("stop", U64),
            ("follow", U8),
            ("number", U32),  # of the stream to a Toolstack
            ("hung_up", U8),
        ),
    ),
    Kind(
        200,
        "remember_hangup",
        "a Toolstack has not heard that a stream ended",
        (("domid", U16), ("number", U32)),
    ),
    Kind(
        201,
        "remember_bytes",
        "a piece of what is on its way; number: the domid of a link, an operator's channel",
        (("stream", STREAM), ("number", U16), ("direction", DIRECTION), ("data", Blob(PIECE))),
    ),
)
