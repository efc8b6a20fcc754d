"""PrismRec: several vectors per user, learned without amplifying popularity."""

from typing import TYPE_CHECKING, Any

__all__ = ["Retriever"]

if TYPE_CHECKING:
    from prismrec.retriever import Retriever
else:

    def __getattr__(name: str) -> Any:
        """Import `Retriever` where it is asked for: the command line and serving do without PyTorch."""
        if name != "Retriever":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from prismrec.retriever import Retriever

        return Retriever
