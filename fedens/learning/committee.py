"""Committees: which structures each member leaves out, to show its errors there."""

from __future__ import annotations


def left_out(n_structures: int, member: int, committee: int, share: int = 1) -> list[int]:
    """Every ``committee``-th structure, beginning with the member's own; none for one network.

    Nor is anything left out where a member would have nothing to learn from.

    Args:
        share: leave out no more than one structure of so many.
    """
    if committee == 1 or n_structures == 1:
        return []
    return list(range(member, n_structures, max(committee, share)))
