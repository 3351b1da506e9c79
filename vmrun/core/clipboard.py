"""The text that was cut last, for all who have a clipboard: VNC's viewers, and an agent in a guest once there is one.

    clipboard.join(peer); clipboard.leave(peer)
    clipboard.grab(peer, "text")            # cut there; all others hear offered()
    clipboard.grab(peer)                    # the same, its text follows when it is asked for
    clipboard.ask(peer)                     # peer hears given(text): at once, or when the owner has told it
    clipboard.tell(peer, "text")            # an owner's answer to wanted()

Everything belongs to the main thread.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Peer(Protocol):
        """Someone with a clipboard."""

        def offered(self) -> None:
            """There is other text than before."""

        def given(self, text: str) -> None:
            """The text that it asked for."""

        def wanted(self) -> None:
            """Its own text is asked for."""


MOST_TEXT = 1 << 20  # characters that are kept; longer text is not taken at all


class Clipboard:
    """One for a machine. Text that is too long is as if it had not been cut."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.owner: Peer | None = None
        self.text: str | None = None  # None: the owner knows it
        self._waiting: list[Peer] = []

    def join(self, peer: Peer) -> None:
        """From now on it hears of what others cut."""
        if peer not in self.peers:
            self.peers.append(peer)

    def leave(self, peer: Peer) -> None:
        """What it cut stays as far as it was told."""
        if peer in self.peers:
            self.peers.remove(peer)
        if peer in self._waiting:
            self._waiting.remove(peer)
        if self.owner is peer:
            self.owner = None
            self._waiting.clear()

    def grab(self, peer: Peer, text: str | None = None) -> None:
        if text is not None and len(text) > MOST_TEXT:
            return
        self.owner, self.text = peer, text
        self._waiting.clear()
        for other in list(self.peers):
            if other is not peer:
                other.offered()

    def ask(self, peer: Peer) -> None:
        """Nothing comes where nothing was cut, or whoever cut it has gone."""
        if self.text is not None:
            peer.given(self.text)
        elif self.owner is not None and self.owner is not peer and peer not in self._waiting:
            self._waiting.append(peer)
            if len(self._waiting) == 1:
                self.owner.wanted()

    def tell(self, peer: Peer, text: str) -> None:
        """Text that nobody asked for, or that is not the owner's, counts as cut now."""
        if peer is not self.owner or not self._waiting:
            self.grab(peer, text)
            return
        waiting, self._waiting = self._waiting, []
        if len(text) > MOST_TEXT:
            return
        self.text = text
        for other in waiting:
            other.given(text)
