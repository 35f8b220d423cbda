"""Run directories: settings, a function of a batch, parts that appear whole, a report."""
