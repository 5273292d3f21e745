"""How a verb of the contract gets to its service, and the one way in which every mutation is done.

registry      `noun.verb` → the method of its service: for the API, documents, the support bundle
run           decide ▸ dry run, refusal, or act (at once, or as a task)
task_verbs    the verbs of tasks, over `state.tasks`
event_verbs   the verb of the event stream, over `state.events`
"""
