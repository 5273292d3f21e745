"""The door to Linux. Only here commands are run, files made durable, processes, links and groups made.

Every function does one thing at once and says what went wrong as a `Problem`; none decides anything.
"""
