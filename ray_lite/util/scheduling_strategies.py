"""Where a task or an actor is to run: what the option scheduling_strategy takes besides names.

Owns Ray's class for it. There is one node, so it decides nothing; it is here so that a program
written for a cluster runs as it is.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeAffinitySchedulingStrategy:
    """Run on one node: here on the only one, whatever `node_id` says.

    Args:
        node_id: Hexadecimal digits, as get_runtime_context().get_node_id() gives them.
        soft: Whether another node would do.

    Raises:
        ValueError: `node_id` is no hexadecimal number.
    """

    node_id: str
    soft: bool

    def __post_init__(self) -> None:
        """Refuse what cannot be the id of any node."""
        try:
            bytes.fromhex(self.node_id)
        except ValueError:
            raise ValueError(
                f"Invalid node_id {self.node_id!r}: it must be hexadecimal digits; nodes() gives "
                "them under NodeID"
            ) from None
