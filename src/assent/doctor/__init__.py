"""The first-batch checks: what must hold on the first real batch, or nothing is trained.

They know neither models nor learners: the stages hand them functions. Numbers and names follow the list D1-D13.
"""
