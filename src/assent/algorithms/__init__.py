"""One file, one algorithm: a frozen value with `loss`, and `experience` where it learns online."""
