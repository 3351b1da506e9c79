"""What an accelerator says when it cannot do its work."""


class AccelFailure(Exception):
    """`what` failed, `why`, and the `remedy` a person can apply; each a sentence without a full stop."""

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        super().__init__(": ".join(part for part in (what, why) if part))
        self.what = what
        self.why = why
        self.remedy = remedy
