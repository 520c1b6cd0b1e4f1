"""Parts of the store: places for bytes, manifests, what a run leaves, upkeep."""
