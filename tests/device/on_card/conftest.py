"""Autograd counts the devices at the first backward pass of a process, so the card is registered before any."""

from tests.device.card import register

register()
