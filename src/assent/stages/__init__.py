"""The composition root: one file a stage; the only place that knows concrete classes."""
