"""How long requests may take. Apart from what obeys it, so that who only says it needs no client."""

from __future__ import annotations

import msgspec


class Patience(msgspec.Struct, frozen=True):
    """How long to wait, in seconds.

    `connect`: for a connection. `silence`: for the next bytes of an answer. `whole`: for one request
    with its body, either way. `retry`: no try begins later than this after the first; `refused`: the
    same where no try got as far as a connection.
    """

    connect: float = 5.0
    silence: float = 20.0
    whole: float = 120.0
    retry: float = 30.0
    refused: float = 4.0
