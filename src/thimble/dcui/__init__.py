"""The console UI: what a person at the machine's own screen or serial line sees. A client of the API.

    model     all that is known and shown, as frozen values        (pure)
    pages     menus, forms, texts, the editor: values, and what a key does to them   (pure)
    flows     what happens when something is chosen, and when an answer comes        (pure)
    update    (model, message) → (model, effects)                   (pure)
    view      (model, w, h) → rows of styled text                   (pure)
    link      effects that ask: the API, in threads; PID 1's files and socket
    terminal  the tty: size, keys, small redraws (urwid)
    attach    a VM's serial line on this terminal
    main      the loop that puts them together

PID 1 starts it when somebody presses Enter (boot/console_sessions.py); it ends by itself when nobody types
any more. It never leaves a trace on the screen and never keeps a password longer than the call that needs it.
"""
