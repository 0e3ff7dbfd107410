"""Benchmarks of speed and accuracy. Each prints a table and appends it to results/ with the commit and the hardware."""
