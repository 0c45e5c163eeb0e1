"""The networks on the hot path, ours."""
