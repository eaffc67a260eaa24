"""Training on Lightning: the task, averaged weights, a resumable loader, the command line."""
