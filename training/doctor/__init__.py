"""What spoils a run: broken, duplicated, leaked, contradicting and odd files of an ImageFolder set."""
