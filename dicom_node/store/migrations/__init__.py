"""The ledger's history: one file a change, in order."""
