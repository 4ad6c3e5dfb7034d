"""Small functions in C for a CPU, compiled at first use; torch operations wherever that cannot be had.

Nothing is built at installation. `ASSENT_COMPILE=0` in the environment keeps to torch.
"""
