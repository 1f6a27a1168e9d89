"""Trials -> the best recipe, a leaderboard and one HTML page, wherever the trials ran."""
