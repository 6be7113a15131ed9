"""The tables of WalkOCC on the simulated benchmark: runs that are made once, and tables that are queries over them."""
