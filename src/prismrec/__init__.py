"""PrismRec: several vectors per user, learned without amplifying popularity."""
