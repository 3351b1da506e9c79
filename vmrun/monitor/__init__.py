"""Talking to a machine that runs: QMP for programs, a line monitor for people, qtest for tests."""
