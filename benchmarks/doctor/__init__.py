"""Does the data doctor find what was planted, how quickly, and what does it find in real sets?"""
