"""The command line: printing and progress only. What a verb means is the agent's business.

    main      the `thimble` command: groups imported when they are used, errors → text and exit code
    session   what the global options say; the client made from it, the profile, the first-visit question
    command   the shape of every command: common options, `act` for mutations (dry run, waiting)
    show      tables, facts and JSON (pure)         meter     progress: a bar, plain lines, or nothing
    *_view    rows and lines of one noun (pure)     *_words   what is typed → wire types (pure)
    escape    the console's escape key (pure)       console   the raw terminal around it

One module per noun holds its commands. Standard output carries the answer, standard error everything else.
"""
