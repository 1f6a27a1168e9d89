"""Faults and hostile requests on purpose, against the real server and its parts."""
