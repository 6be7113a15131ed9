# One way to do each everyday thing. Nothing has to be installed or exported before: see docs/install.md.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test bench lint clean

PYTHON ?=
export PYTHON

help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-6s %s\n", $$1, $$2 }'

setup:  ## make .venv and build the ROS workspace, without torch
	@scripts/setup demo

demo: setup  ## play the sample recording through the real nodes, score it, write out/demo/report.html
	@scripts/with_ros occ-perception demo

bench:  ## measure speed, latency and memory, write out/bench.json
	@scripts/setup bench
	@scripts/with_ros occ-perception bench

lint:  ## ruff, mypy --strict and the import floors
	@scripts/setup test
	@scripts/lint

# Nodes meet their deadlines only where nothing else runs, so what starts them comes after the rest, one by one.
test:  ## set up, lint and run every test
	@scripts/setup test
	@scripts/lint
	@OMP_NUM_THREADS=1 scripts/with_ros python -m pytest --complete -m "not ros" -n auto --maxprocesses 4 --dist loadfile --durations=15
	@scripts/with_ros python -m pytest --complete -m ros --durations=15

clean:  ## remove everything that make has made
	rm -rf .venv .cache out build install log dist *.egg-info ros2_ws/build ros2_ws/install ros2_ws/log
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
