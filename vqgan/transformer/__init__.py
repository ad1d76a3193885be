"""The second stage: a transformer over the codes of a frozen first stage, its training, its samples."""
