"""The page on which people give feedback: fast, keyboard first, served on this machine, never reaching outside it."""
