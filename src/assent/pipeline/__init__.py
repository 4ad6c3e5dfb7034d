"""Artefacts, lineage, recipes, and running them so that nothing finished is lost or made twice. Never imports torch."""
