"""AWS's API on this machine: moto, with what it lacks and with what AWS does by itself.

Scaling groups that launch and replace, metrics, alarms that act, health of targets, mail, the metadata service. It makes no container
and runs on any system; ``rehearsal`` gives what is made here a body. Knows nothing of Pergola.
"""
