"""An AWS account on one machine: the emulator's answers, given a body of containers.

Knows AWS and containers, and nothing of Pergola. ``docs/REHEARSAL.md`` lists where it differs from AWS.
"""
