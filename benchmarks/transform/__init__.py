"""A whole Batch Transform job against the limit of the processor, and against the usual server."""
