"""What each stage of a run does: tables in, its verb, tables out. `experiment.py` knows their order."""
