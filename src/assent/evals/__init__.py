"""How good the result is, and how sure of it anyone may be.

`win_rate` compares a policy with a baseline, `length_control` takes the pull of length out of that, `report_card`
judges the reward model, `overoptimisation` watches proxy and gold part ways, `report` writes the page that a person
reads.

Undefined numbers are `None`, never nan, so that everything here goes through JSON and comes back equal.
"""
