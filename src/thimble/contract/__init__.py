"""The API defined once, as typed data. Server binding, client, CLI, OpenAPI and TypeScript derive from it.

One module per noun holds its wire types; `verbs` holds the table of everything that can be asked.
Input types forbid unknown fields; create types are not update types; what a client may not set is not
in them.
"""
