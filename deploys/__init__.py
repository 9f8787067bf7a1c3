"""Deploys in two colours: the motion of a release, from the first new host to the last old session.

What a deploy needs on AWS (groups, target groups, listeners, launch templates) is made by the roles; this package only moves weights and
sizes, watches, and takes back. It runs in a process of its own (``python -m deploys``), so that neither Ctrl-C nor the end of a terminal
leaves visitors on a bad release.
"""
