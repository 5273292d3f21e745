"""The host document `thimble.toml`: read, planned, applied, exported.

    text ─► read (locate ▸ decode ▸ rules) ─► Document ─► plan (with facts) ─► effects ─► services' verbs
                                                 facts ─► export ─► text

Whatever is applied goes through the very methods the API calls; nothing is ever deleted because a document
does not mention it.
"""
