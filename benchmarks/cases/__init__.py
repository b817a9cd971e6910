"""One file a benchmark; each has ``run(setup) -> Outcome`` or makes several such functions."""
