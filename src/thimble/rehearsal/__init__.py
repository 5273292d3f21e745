"""Rehearsals: what may happen to a host, done to a virtual one, again and again (`thimble lab cuts`).

site       a virtual server and the way in
ledger     changes that were acknowledged, and whether they are still there
scenario   what every scenario answers; update, install and apply are three
image_server  the images, served to the server
run        the loop: begin, cut, power on, verify
"""
