"""Power-cut tests of a virtual server, repeated with random moments (`thimble lab cuts`).

site       a virtual server and the way in
ledger     changes that were acknowledged, and whether they are still there
scenario   what every scenario answers; update, install and apply are three
image_server  the images, served to the server
run        the loop: begin, cut, power on, verify
"""
