"""Faults on purpose: a real server under load, and a ledger of every request's fate. `python -m chaos`"""
