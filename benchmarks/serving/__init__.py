"""Kennel and its peers on the same images, network and machine, in one run; see `__main__`."""
